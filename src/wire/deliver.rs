//! The only sender of events to handlers.
//!
//! It knows no credential of a portal: no session, no authorizer, no gate. It
//! sends to one [`Target`], follows no redirect, and looks at nothing of the
//! answer but its status. The application token is put in here because a
//! handler compares it; it opens no portal.

use super::client;
use super::target::Target;
use crate::error::{Code, Coded};
use crate::query_string::encode_pairs;
use crate::secret::Secret;
use reqwest::Client;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Why there is no status of a handler.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum DeliverError {
    /// The client cannot be built.
    #[error("the client for the handler cannot be built: {0}")]
    Setup(String),
    /// No byte of the event left.
    #[error("the handler cannot be reached: {0}")]
    NotReached(String),
    /// The event left and no answer came.
    #[error("the handler gave no answer: {0}")]
    NoAnswer(String),
}

impl Coded for DeliverError {
    fn code(&self) -> Code {
        match self {
            DeliverError::Setup(_) => Code::LocalState,
            DeliverError::NotReached(_) => Code::Offline,
            DeliverError::NoAnswer(_) => Code::Temporary,
        }
    }
}

/// Delivers events to one handler.
#[derive(Debug)]
pub struct Deliverer {
    client: Client,
    target: Target,
}

impl Deliverer {
    /// Prepares to deliver to a handler. On this machine no proxy is used, and
    /// `localhost` is this machine whatever a name server says.
    pub fn new(target: Target, timeout: Duration, ca_file: Option<&Path>) -> Result<Deliverer, DeliverError> {
        let builder = client::plain(timeout);
        let builder = if target.is_loopback() {
            let own = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
            client::without_tls(builder).map(|builder| builder.resolve_to_addrs("localhost", &own))
        } else {
            client::with_tls(builder, ca_file)
        };
        let client = builder.and_then(|builder| builder.build().map_err(client::describe)).map_err(DeliverError::Setup)?;
        Ok(Deliverer { client, target })
    }

    /// Returns the handler.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Posts a form, with the application token in its documented place, and
    /// returns the status of the answer.
    pub async fn post_form(
        &self,
        pairs: &[(String, String)],
        application_token: Option<&Secret>,
        headers: &[(&str, &str)],
    ) -> Result<u16, DeliverError> {
        let token = application_token.map(|token| ("auth[application_token]", token.expose()));
        let body = encode_pairs(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).chain(token));
        let mut request = self.client.post(self.target.url()).header("Content-Type", "application/x-www-form-urlencoded").body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.map_err(|error| {
            let not_sent = error.is_connect() || error.is_builder();
            let why = client::describe(error);
            if not_sent { DeliverError::NotReached(why) } else { DeliverError::NoAnswer(why) }
        })?;
        Ok(response.status().as_u16())
    }

    /// Does the same on the calling thread, for who delivers a few.
    pub fn post_form_blocking(&self, pairs: &[(String, String)], application_token: Option<&Secret>) -> Result<u16, DeliverError> {
        let runtime = client::runtime().map_err(DeliverError::Setup)?;
        runtime.block_on(self.post_form(pairs, application_token, &[]))
    }
}

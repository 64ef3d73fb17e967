//! The HTTP client and the only conversion of its errors.
//!
//! `reqwest::Error` prints the address, and with it the webhook's secret; it
//! never leaves this file. Redirects are never followed and never repeated by
//! the library; a write always gets a fresh connection; no `Referer` carries
//! an address on.

use super::answer::Answer;
use crate::ids::Portal;
use reqwest::blocking::{Client, ClientBuilder};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// No byte of the request left: no address, no connection, no TLS.
    NotSent(String),
    /// The request may have been executed.
    Maybe(String),
}

/// Builds a client for one server.
pub(super) fn build(server: &Portal, timeout: Duration, ca_file: Option<&Path>) -> Result<Client, String> {
    let builder = Client::builder()
        .user_agent(concat!("b24/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        .connect_timeout(timeout.min(Duration::from_secs(10)))
        .tcp_user_timeout(Duration::from_secs(20))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .http1_only()
        .pool_max_idle_per_host(0);
    let builder = if server.is_loopback() { without_tls(builder)? } else { with_tls(builder, ca_file)? };
    builder.build().map_err(describe)
}

/// Loopback needs neither a proxy nor certificate authorities, whose loading
/// costs more than the call; `https` to loopback works with `B24_CA_FILE` only
/// on other hosts and is refused here by an empty set.
fn without_tls(builder: ClientBuilder) -> Result<ClientBuilder, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(builder.no_proxy().tls_backend_preconfigured(config))
}

fn with_tls(builder: ClientBuilder, ca_file: Option<&Path>) -> Result<ClientBuilder, String> {
    // Fails only when it was installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = builder.https_only(true).tls_version_min(reqwest::tls::Version::TLS_1_2);
    let Some(path) = ca_file else { return Ok(builder) };
    let pem = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(describe)?;
    Ok(builder.tls_certs_merge(certificates))
}

/// Sends one POST and reads the whole answer.
pub(super) fn post(client: &Client, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Answer, Failed> {
    let mut request = client.post(url).header("Accept", "application/json").body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = request.send().map_err(|error| {
        let not_sent = error.is_connect() || error.is_builder();
        let why = describe(error);
        if not_sent { Failed::NotSent(why) } else { Failed::Maybe(why) }
    })?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let status = response.status().as_u16();
    let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let location =
        header("location").map(|text| url::Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default());
    let replayed_by_portal = header("idempotent-replayed").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let mut content = Vec::new();
    let expected = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    // The announced length is a hint: a false one must not cost memory.
    content.reserve_exact(expected.min(256 * 1024 * 1024));
    match response.read_to_end(&mut content) {
        Ok(_) => Ok(Answer { status, body: content, retry_after, location, replayed_by_portal }),
        Err(error) => Err(Failed::Maybe(format!("the answer was cut short: {}", error.kind()))),
    }
}

/// Returns what went wrong without the address.
fn describe(error: reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_builder() {
        "the request could not be built"
    } else {
        "the connection broke"
    };
    let error = error.without_url();
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    let mut deepest = None;
    while let Some(cause) = source {
        deepest = Some(cause.to_string());
        source = cause.source();
    }
    match deepest {
        Some(cause) => format!("{kind} ({cause})"),
        None => kind.to_owned(),
    }
}

//! How a request is authorised, and the one refresh of an expired token.
//!
//! The client secret goes to the configured authorization server only. A
//! refresh happens under the lock of the token line: the pair is re-read, and
//! if another process has renewed it, theirs is used; else it is refreshed
//! once and stored durably before it is used. A refresh whose answer was lost
//! is not repeated by this process, because a refresh token works once.

use super::client::{self, Failed, Most};
use crate::catalog::Api;
use crate::credential::{Credential, OAuth};
use crate::error::{Code, Coded};
use crate::host::Random;
use crate::ids::{self, Portal, Principal};
use crate::secret::{Redactor, Secret};
use crate::store::locked::StoreError;
use crate::store::tokens::{Pair, TokenLine};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A pair of tokens takes a few hundred bytes.
const MOST: Most = Most(1024 * 1024);

/// Why a token could not be refreshed.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// There is nothing to refresh with.
    #[error("the access token has expired and there is no refresh token, client id and client secret to renew it")]
    CannotRefresh,
    /// The authorization server refused for good.
    #[error("the refresh token no longer works ({0})")]
    LoginNeeded(String),
    /// The authorization server refused for another reason.
    #[error("the authorization server refused: {0}")]
    Refused(String),
    /// No connection.
    #[error("the authorization server cannot be reached: {0}")]
    Offline(String),
    /// The answer was lost.
    #[error("the answer of the token refresh was lost: {0}")]
    Unknown(String),
    /// The tokens are for another portal.
    #[error("the tokens are for the portal {0}, not for the configured one")]
    OtherPortal(String),
    /// A file could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Coded for AuthError {
    fn code(&self) -> Code {
        match self {
            AuthError::CannotRefresh | AuthError::LoginNeeded(_) => Code::LoginNeeded,
            AuthError::Refused(_) | AuthError::OtherPortal(_) => Code::Auth,
            AuthError::Offline(_) => Code::Offline,
            AuthError::Unknown(_) => Code::RefreshUnknown,
            AuthError::Store(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            AuthError::CannotRefresh | AuthError::LoginNeeded(_) => {
                "Log in to the application again and set B24_ACCESS_TOKEN and B24_REFRESH_TOKEN anew".to_owned()
            }
            AuthError::Refused(_) => "Check B24_CLIENT_ID, B24_CLIENT_SECRET and B24_OAUTH_URL".to_owned(),
            AuthError::OtherPortal(_) => "Check B24_DOMAIN".to_owned(),
            AuthError::Offline(_) | AuthError::Unknown(_) => "Try again".to_owned(),
            AuthError::Store(error) => return error.hint(),
        })
    }
}

/// Address and credentials of one request.
pub struct Authorized {
    /// The full address; holds the webhook's secret.
    pub url: Secret,
    /// `auth` for the body.
    pub body_token: Option<Secret>,
    /// Token for the `Authorization` header, where the body has no room.
    pub bearer: Option<Secret>,
}

/// Returns the address of a method with `secret` in the place of the secret,
/// for people.
#[must_use]
pub fn address_form(credential: &Credential, name: &str, api: Api, secret: &str) -> String {
    let segment = segment(api);
    match credential {
        Credential::Webhook { portal, user, .. } => format!("{}/rest/{segment}{user}/{secret}/{name}", portal.origin()),
        Credential::OAuth(oauth) => format!("{}/rest/{segment}{name}", oauth.portal.origin()),
    }
}

fn segment(api: Api) -> &'static str {
    match api {
        Api::V2 => "",
        Api::V3 => "api/",
    }
}

/// Authorises the requests of one credential.
pub enum Authorizer {
    /// By the address.
    Webhook {
        /// The portal.
        portal: Portal,
        /// The user.
        user: String,
        /// The secret.
        code: Secret,
    },
    /// By a token.
    OAuth {
        /// The application and its portal.
        oauth: Box<OAuth>,
        /// The stored pairs.
        line: Box<TokenLine>,
        /// The pair in use.
        pair: Box<Pair>,
    },
}

impl Authorizer {
    /// Prepares a credential; reads the newest stored pair.
    pub fn new(credential: Credential, tokens: PathBuf) -> Result<Authorizer, StoreError> {
        match credential {
            Credential::Webhook { portal, user, code } => Ok(Authorizer::Webhook { portal, user, code }),
            Credential::OAuth(oauth) => {
                let client = oauth.client_id.as_deref().unwrap_or("-");
                let line = TokenLine::open(tokens, oauth.server.host(), client, oauth.given.clone())?;
                let pair = line.current()?;
                Ok(Authorizer::OAuth { oauth: Box::new(oauth), line: Box::new(line), pair: Box::new(pair) })
            }
        }
    }

    /// Teaches the redactor the secrets in use.
    pub fn teach(&self, redactor: &mut Redactor) {
        match self {
            Authorizer::Webhook { code, .. } => redactor.learn(code),
            Authorizer::OAuth { pair, oauth, .. } => {
                [Some(&pair.access), pair.refresh.as_ref(), oauth.client_secret.as_ref()]
                    .into_iter()
                    .flatten()
                    .for_each(|secret| redactor.learn(secret));
            }
        }
    }

    /// Returns who acts, if it is known without asking the portal.
    #[must_use]
    pub fn principal(&self) -> Option<Principal> {
        match self {
            Authorizer::Webhook { user, .. } => Some(Principal::Webhook { user: user.clone() }),
            Authorizer::OAuth { oauth, pair, .. } => {
                let client = oauth.client_id.clone().unwrap_or_else(|| "-".to_owned());
                pair.user.clone().map(|user| Principal::OAuth { client, user })
            }
        }
    }

    /// Keeps the user id that the portal told, with the tokens.
    pub fn learn_user(&mut self, user: &str, random: &dyn Random, wait: Duration) -> Result<(), StoreError> {
        let Authorizer::OAuth { line, pair, .. } = self else { return Ok(()) };
        let lock = line.lock(wait)?;
        let mut newest = lock.current()?;
        newest.user = Some(user.to_owned());
        lock.store(&newest, random)?;
        pair.user = newest.user;
        Ok(())
    }

    /// Returns address and credentials for a method.
    #[must_use]
    pub fn authorize(&self, name: &str, api: Api) -> Authorized {
        let segment = segment(api);
        match self {
            Authorizer::Webhook { portal, user, code } => Authorized {
                url: Secret::new(format!("{}/rest/{segment}{user}/{}/{name}", portal.origin(), code.expose())),
                body_token: None,
                bearer: None,
            },
            Authorizer::OAuth { oauth, pair, .. } => {
                let url = Secret::new(format!("{}/rest/{segment}{name}", oauth.portal.origin()));
                // The body of a v3 batch is an array and has no room for `auth`.
                let token = Some(pair.access.clone());
                match (api, name) {
                    (Api::V3, "batch") => Authorized { url, body_token: None, bearer: token },
                    _ => Authorized { url, body_token: token, bearer: None },
                }
            }
        }
    }

    /// Renews an expired token, or takes the pair that another process has
    /// stored meanwhile.
    pub fn refresh(&mut self, tools: &RefreshTools) -> Result<(), AuthError> {
        let Authorizer::OAuth { oauth, line, pair } = self else { return Err(AuthError::CannotRefresh) };
        let lock = line.lock(tools.wait)?;
        let newest = lock.current()?;
        if newest.access.expose() != pair.access.expose() {
            **pair = newest;
            return Ok(());
        }
        let (Some(client), Some(secret), Some(token)) = (&oauth.client_id, &oauth.client_secret, &newest.refresh) else {
            return Err(AuthError::CannotRefresh);
        };
        crate::crash::point("refresh.before_send");
        let renewed = request_tokens(oauth, client, secret, token, tools);
        crate::crash::point("refresh.after_answer");
        let renewed = renewed?;
        check_portal(&newest, &renewed)?;
        lock.store(&renewed, tools.random)?;
        **pair = lock.current()?;
        Ok(())
    }
}

/// What a refresh needs from outside.
pub struct RefreshTools<'a> {
    /// Randomness for temporary names.
    pub random: &'a dyn Random,
    /// How long to wait for the lock.
    pub wait: Duration,
    /// Limit of the request.
    pub timeout: Duration,
    /// Further certificate authorities.
    pub ca_file: Option<&'a Path>,
}

/// Asks the authorization server for a new pair: the one HTTP request that is
/// no method call. Sent as a form body, because an address would put the
/// client secret into the logs of proxies.
fn request_tokens(oauth: &OAuth, client: &str, secret: &Secret, token: &Secret, tools: &RefreshTools) -> Result<Pair, AuthError> {
    let http = client::build(&oauth.server, tools.timeout, MOST, tools.ca_file).map_err(AuthError::Offline)?;
    let form =
        [("grant_type", "refresh_token"), ("client_id", client), ("client_secret", secret.expose()), ("refresh_token", token.expose())];
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(form);
    let url = format!("{}/oauth/token/", oauth.server.origin());
    let answer = client::post(&http, &url, &[("Content-Type", "application/x-www-form-urlencoded")], body.finish().into_bytes());
    let answer = answer.map_err(|failed| match failed {
        Failed::NotSent(why) => AuthError::Offline(why),
        Failed::Maybe(why) => AuthError::Unknown(why),
        Failed::TooLarge(answer) => AuthError::Unknown(format!("an answer of more than 1 MB with HTTP status {}", answer.status)),
    })?;
    let mut redactor = Redactor::default();
    redactor.learn(secret);
    redactor.learn(token);
    read_tokens(answer.status, &answer.body, &redactor)
}

/// What a token endpoint answers; a key that stands twice makes it unreadable.
#[derive(Deserialize)]
struct TokenAnswer {
    error: Option<Value>,
    access_token: Option<Value>,
    refresh_token: Option<Value>,
    user_id: Option<Value>,
    member_id: Option<Value>,
}

/// Reads the new pair. Tokens and an error at once prove neither, and so does a
/// status that a proxy could have given. An error word that echoes a secret is
/// masked before it is shortened; the pair itself may well be the old one again.
pub fn read_tokens(status: u16, body: &[u8], redactor: &Redactor) -> Result<Pair, AuthError> {
    let lost = || AuthError::Unknown(format!("HTTP status {status}"));
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| lost())?;
    let text = |value: &Option<Value>| match value {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let tokens = (text(&answer.access_token), text(&answer.refresh_token));
    match (&answer.error, tokens) {
        (None, (Some(access), Some(refresh))) if (200..=203).contains(&status) => {
            let user = text(&answer.user_id).as_deref().and_then(ids::user_id);
            Ok(Pair { access: Secret::new(access), refresh: Some(Secret::new(refresh)), user, member: text(&answer.member_id) })
        }
        (Some(_), (None, None)) if answer.access_token.is_none() && answer.refresh_token.is_none() => {
            let error = text(&answer.error).ok_or_else(lost)?;
            let is_definite = (200..=203).contains(&status) || ((400..500).contains(&status) && ![408, 425, 429].contains(&status));
            Err(match error.to_ascii_lowercase().as_str() {
                _ if !is_definite => AuthError::Unknown(format!("{} with HTTP status {status}", redactor.redact_text(&error))),
                "invalid_grant" | "bad_verification_code" => AuthError::LoginNeeded(error),
                _ => AuthError::Refused(crate::method::shown(&redactor.redact_text(&error))),
            })
        }
        _ => Err(lost()),
    }
}

/// A pair for another portal must not be used: `member_id` survives a portal's
/// renaming, so a difference means that it is another one.
fn check_portal(known: &Pair, renewed: &Pair) -> Result<(), AuthError> {
    match (&known.member, &renewed.member) {
        (Some(known), Some(renewed)) if known != renewed => Err(AuthError::OtherPortal(renewed.clone())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_definite_refusal_ends_a_login() {
        assert!(matches!(read_tokens(400, br#"{"error":"invalid_grant"}"#, &Redactor::default()), Err(AuthError::LoginNeeded(_))));
        assert!(matches!(read_tokens(200, br#"{"error":"wrong_client"}"#, &Redactor::default()), Err(AuthError::Refused(_))));
        assert!(matches!(read_tokens(500, br#"{"error":"X"}"#, &Redactor::default()), Err(AuthError::Unknown(_))));
        assert!(matches!(read_tokens(502, b"<html>", &Redactor::default()), Err(AuthError::Unknown(_))));
        assert!(matches!(read_tokens(200, b"{}", &Redactor::default()), Err(AuthError::Unknown(_))));
        let pair = read_tokens(200, br#"{"access_token":"a","refresh_token":"b","user_id":67}"#, &Redactor::default()).unwrap();
        assert_eq!(pair.user.as_deref(), Some("67"));
        for (status, body) in [
            (200, r#"{"access_token":"a","refresh_token":"b","error":"invalid_grant"}"#),
            (400, r#"{"access_token":"a","refresh_token":"b"}"#),
            (400, r#"{"access_token":"a","error":"invalid_grant"}"#),
            (400, r#"{"error":"invalid_grant","error":"x"}"#),
            (400, r#"{"error":["invalid_grant"]}"#),
            (302, r#"{"error":"invalid_grant"}"#),
            (304, r#"{"error":"invalid_grant"}"#),
            (429, r#"{"error":"invalid_grant"}"#),
            (503, r#"{"error":"invalid_grant"}"#),
            (206, r#"{"access_token":"a","refresh_token":"b"}"#),
        ] {
            assert!(matches!(read_tokens(status, body.as_bytes(), &Redactor::default()), Err(AuthError::Unknown(_))), "{status} {body}");
        }
    }

    #[test]
    fn a_server_that_echoes_the_secret_does_not_get_it_printed() {
        let mut redactor = Redactor::default();
        redactor.learn(&Secret::new("canary7f3e9b21c4".to_owned()));
        // The echo begins where the message is cut.
        let body = format!(r#"{{"error":"{}canary7f3e9b21c4"}}"#, "x".repeat(50));
        for status in [400, 500] {
            let error = read_tokens(status, body.as_bytes(), &redactor).unwrap_err().to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }
}

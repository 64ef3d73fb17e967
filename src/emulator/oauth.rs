//! The token endpoint: rotation of token pairs.
//!
//! A refresh token works once (the strict reading of the official course);
//! with it dies the access token that was issued beside it. A dead access
//! token answers `expired_token`: the portal knows it and it is over.

use super::journal::Record;
use super::portal::Turn;
use super::system::SCOPES;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Life of a refresh token.
const REFRESH_LIFE_S: i64 = 180 * 24 * 3600;

/// A pair of tokens, as the journal has it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct IssuedTokens {
    access: String,
    refresh: String,
    user: u64,
    issued_at: i64,
    expires_at: i64,
    /// The refresh token that was spent for this pair.
    spent: Option<String>,
    /// The pair that the portal hands out itself.
    first: bool,
}

/// The live tokens.
#[derive(Default)]
pub(super) struct TokenState {
    access: HashMap<String, AccessToken>,
    refresh: HashMap<String, RefreshToken>,
    first: Option<(String, String)>,
}

struct AccessToken {
    user: u64,
    expires_at: i64,
}

struct RefreshToken {
    user: u64,
    access: String,
    expires_at: i64,
}

/// What an access token is good for.
pub(super) enum TokenCheck {
    Valid { user: u64 },
    Expired,
    Unknown,
}

impl TokenState {
    pub(super) fn apply(&mut self, tokens: IssuedTokens) {
        let old = tokens.spent.and_then(|spent| self.refresh.remove(&spent));
        if let Some(access) = old.and_then(|old| self.access.get_mut(&old.access)) {
            access.expires_at = 0;
        }
        if tokens.first {
            self.first = Some((tokens.access.clone(), tokens.refresh.clone()));
        }
        self.access.insert(tokens.access.clone(), AccessToken { user: tokens.user, expires_at: tokens.expires_at });
        let expires_at = tokens.issued_at + REFRESH_LIFE_S;
        self.refresh.insert(tokens.refresh, RefreshToken { user: tokens.user, access: tokens.access, expires_at });
    }

    pub(super) fn check(&self, access: &str, now: i64) -> TokenCheck {
        match self.access.get(access) {
            Some(token) if token.expires_at > now => TokenCheck::Valid { user: token.user },
            Some(_) => TokenCheck::Expired,
            None => TokenCheck::Unknown,
        }
    }

    /// Returns the pair that the portal handed out, while its refresh token
    /// still works.
    pub(super) fn unspent_first(&self, now: i64) -> Option<(&str, &str)> {
        let (access, refresh) = self.first.as_ref()?;
        (self.refresh.get(refresh)?.expires_at > now).then_some((access, refresh))
    }
}

/// Hands out the pair that a new application starts with.
pub(super) fn issue_first(turn: &mut Turn<'_>, user: u64) {
    issue(turn, user, None, true);
}

/// Answers the token endpoint: status and document.
pub(super) fn token(turn: &mut Turn<'_>, params: &Map<String, Value>, origin: &str) -> (u16, Value) {
    match refresh(turn, params, origin) {
        Ok(document) => (200, document),
        Err((status, code, message)) => (status, json!({"error": code, "error_description": message})),
    }
}

type OauthRefusal = (u16, &'static str, &'static str);

fn refresh(turn: &mut Turn<'_>, params: &Map<String, Value>, origin: &str) -> Result<Value, OauthRefusal> {
    let text = |name: &str| params.get(name).and_then(Value::as_str).unwrap_or_default();
    let genesis = turn.genesis();
    match text("grant_type") {
        "refresh_token" | "authorization_code" => {}
        _ => return Err((400, "invalid_request", "Wrong \"grant_type\" parameter")),
    }
    if text("client_id") != genesis.client_id {
        return Err((200, "wrong_client", "Wrong client"));
    }
    if text("client_secret") != genesis.client_secret {
        return Err((400, "invalid_client", "Wrong client secret"));
    }
    if text("grant_type") == "authorization_code" {
        // Nobody can have a code: the emulator has no consent page.
        return Err((400, "invalid_grant", "Wrong authorization code"));
    }
    let given = text("refresh_token");
    if given.is_empty() {
        return Err((400, "invalid_request", "No \"refresh_token\" parameter found"));
    }
    let user = match turn.state.tokens.refresh.get(given) {
        Some(token) if token.expires_at > turn.now.timestamp() => token.user,
        _ => return Err((400, "invalid_grant", "Refresh token is invalid or expired")),
    };
    let spent = (!turn.limits.lenient_refresh).then(|| given.to_owned());
    let (access, refresh, expires_at) = issue(turn, user, spent, false);
    Ok(json!({
        "access_token": access,
        "refresh_token": refresh,
        "expires": expires_at,
        "expires_in": turn.limits.token_ttl_s,
        "scope": SCOPES.join(","),
        "client_endpoint": format!("{origin}/rest/"),
        "server_endpoint": format!("{origin}/rest/"),
        "domain": origin.trim_start_matches("http://"),
        "member_id": genesis.member_id,
        "status": "L",
        "user_id": user,
    }))
}

fn issue(turn: &mut Turn<'_>, user: u64, spent: Option<String>, first: bool) -> (String, String, i64) {
    let (access, refresh) = (turn.random_hex(35), turn.random_hex(35));
    let issued_at = turn.now.timestamp();
    let expires_at = issued_at.saturating_add(i64::try_from(turn.limits.token_ttl_s).unwrap_or(i64::MAX));
    turn.record(Record::Tokens(IssuedTokens {
        access: access.clone(),
        refresh: refresh.clone(),
        user,
        issued_at,
        expires_at,
        spent,
        first,
    }));
    (access, refresh, expires_at)
}

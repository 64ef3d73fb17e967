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
    /// A pair that events carry.
    #[serde(default)]
    event: bool,
}

/// The live tokens.
#[derive(Default)]
pub(super) struct TokenState {
    access: HashMap<String, AccessToken>,
    refresh: HashMap<String, RefreshToken>,
    first: Option<(String, String)>,
    /// The youngest pair for events, by user.
    event: HashMap<u64, EventTokens>,
}

/// A pair that events of one user carry.
#[derive(Clone)]
pub(super) struct EventTokens {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) expires_at: i64,
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
        if tokens.event {
            let pair = EventTokens { access: tokens.access.clone(), refresh: tokens.refresh.clone(), expires_at: tokens.expires_at };
            self.event.insert(tokens.user, pair);
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

    /// Returns the pair for events of a user while half of its life is left
    /// and nobody has spent its refresh token.
    fn event(&self, user: u64, at: (i64, i64)) -> Option<&EventTokens> {
        let (now, life_s) = at;
        let pair = self.event.get(&user)?;
        (pair.expires_at - now > life_s / 2 && self.refresh.contains_key(&pair.refresh)).then_some(pair)
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
    issue(turn, user, Purpose::First);
}

/// Returns the pair that an event of a user carries. One pair serves many
/// events; it is none of those that clients hold, because spending one of its
/// refresh tokens must not end a client's session.
pub(super) fn event_tokens(turn: &mut Turn<'_>, user: u64) -> EventTokens {
    let life_s = i64::try_from(turn.limits.token_ttl_s).unwrap_or(i64::MAX);
    if let Some(pair) = turn.state.tokens.event(user, (turn.now.timestamp(), life_s)) {
        return pair.clone();
    }
    let (access, refresh, expires_at) = issue(turn, user, Purpose::Event);
    EventTokens { access, refresh, expires_at }
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
    let (access, refresh, expires_at) = issue(turn, user, Purpose::Refresh { spent });
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

/// Why a pair is issued.
enum Purpose {
    First,
    Event,
    Refresh { spent: Option<String> },
}

fn issue(turn: &mut Turn<'_>, user: u64, purpose: Purpose) -> (String, String, i64) {
    let (access, refresh) = (turn.random_hex(35), turn.random_hex(35));
    let issued_at = turn.now.timestamp();
    let expires_at = issued_at.saturating_add(i64::try_from(turn.limits.token_ttl_s).unwrap_or(i64::MAX));
    turn.record(Record::Tokens(IssuedTokens {
        access: access.clone(),
        refresh: refresh.clone(),
        user,
        issued_at,
        expires_at,
        first: matches!(purpose, Purpose::First),
        event: matches!(purpose, Purpose::Event),
        spent: match purpose {
            Purpose::Refresh { spent } => spent,
            Purpose::First | Purpose::Event => None,
        },
    }));
    (access, refresh, expires_at)
}

//! Every environment variable that b24 reads, and the snapshot that it reads
//! them from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;

/// One variable: what it does and what it is when unset.
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What stands in `.env.example` behind the equals sign.
    pub example: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
}

const fn variable(name: &'static str, example: &'static str, help: &'static str) -> Variable {
    Variable { name, example, help }
}

/// All variables, in the order of `.env.example`.
pub const VARIABLES: &[Variable] = &[
    variable("B24_WEBHOOK_URL", "", "Incoming webhook: https://PORTAL/rest/USER/CODE/ (instead of the three below)"),
    variable("B24_DOMAIN", "", "Portal host, for example acme.bitrix24.com"),
    variable("B24_WEBHOOK_USER_ID", "", "User id of the webhook"),
    variable("B24_WEBHOOK_CODE", "", "Secret code of the webhook"),
    variable("B24_AUTH_MODE", "webhook", "webhook or oauth"),
    variable("B24_ACCESS_TOKEN", "", "OAuth access token"),
    variable("B24_REFRESH_TOKEN", "", "OAuth refresh token; used once, its successor is kept in the state folder"),
    variable("B24_CLIENT_ID", "", "OAuth application id"),
    variable("B24_CLIENT_SECRET", "", "OAuth application secret"),
    variable("B24_OAUTH_URL", "https://oauth.bitrix.info", "OAuth server; https://oauth.bitrix24.tech for portals of the eastern zones"),
    variable(
        "B24_APPLICATION_TOKEN",
        "",
        "Application token that events carry: b24 listen lets them in by it, b24 trigger sends it to handlers on this machine",
    ),
    variable("B24_WEBHOOK_URL_FILE", "", "File that holds B24_WEBHOOK_URL (mode 0600)"),
    variable("B24_WEBHOOK_CODE_FILE", "", "File that holds B24_WEBHOOK_CODE (mode 0600)"),
    variable("B24_ACCESS_TOKEN_FILE", "", "File that holds B24_ACCESS_TOKEN (mode 0600)"),
    variable("B24_REFRESH_TOKEN_FILE", "", "File that holds B24_REFRESH_TOKEN (mode 0600)"),
    variable("B24_CLIENT_SECRET_FILE", "", "File that holds B24_CLIENT_SECRET (mode 0600)"),
    variable("B24_PROFILE", "", "Profile of config.toml, or `emulator` for the built-in portal"),
    variable("B24_CONFIG", "", "Folder of config.toml and credentials.toml; default ~/.config/b24"),
    variable("B24_STATE_DIR", "", "State folder; default $XDG_STATE_HOME/b24, else ~/.local/state/b24"),
    variable("B24_PACKS", "core", "Enabled packs, comma-separated; empty means core, none means none"),
    variable("B24_METHOD_ALLOWLIST", "", "Further allowed method patterns, comma-separated"),
    variable("B24_REQUIRE_PLAN", "0", "1: changes are sent through saved plans only"),
    variable("B24_READ_ONLY", "0", "1: nothing but reads is sent"),
    variable("B24_PLAN_FILE", "", "Place of the plans; the folder PATH.d is used"),
    variable("B24_PLAN_TTL_SEC", "1800", "Life of a plan in seconds, 60 to 86400"),
    variable("B24_AUDIT_FILE", "", "Audit file; default audit/audit.jsonl in the state folder; empty: reads are not audited"),
    variable("B24_IDEMPOTENCY_FILE", "", "Place of the ledger; the folder PATH.d is used"),
    variable("B24_IDEMPOTENCY_TTL_SEC", "86400", "With B24_AUTO_KEY: how long an identical write is answered from the ledger"),
    variable("B24_AUTO_KEY", "0", "1: an identical write is answered from the ledger instead of being refused or repeated"),
    variable("B24_RATE_LIMITER", "file", "file, or off (none, noop)"),
    variable("B24_RATE_LIMITER_FILE", "", "Place of the rate limit; the folder PATH.d is used"),
    variable("B24_RATE_LIMITER_RATE", "2", "Requests per second, up to 50"),
    variable("B24_RATE_LIMITER_BURST", "10", "Requests that may go at once, up to 250"),
    variable("B24_RATE_LIMITER_TTL_SEC", "3600", "Accepted for the Python script's sake, without effect"),
    variable("B24_TIMEOUT", "90", "Seconds that one attempt may take"),
    variable("B24_MAX_WAIT", "30", "Seconds that a call may wait for slots, locks and pauses in all; answers are waited for besides"),
    variable("B24_MAX_ANSWER", "256MB", "Largest answer that is taken, and about the memory that it may cost"),
    variable("B24_CA_FILE", "", "Certificate authorities (PEM) to trust besides the system's"),
    variable("B24_ERROR_FORMAT", "auto", "auto, json or text"),
    variable("B24_EXIT_CODES", "full", "full, or simple: 0, 1 and 2 only, as the Python script"),
    variable("B24_AUTH_CONNECTOR", "", "Label of our own changes: they are not queued under the same label"),
    variable("B24_ACTOR", "", "Who acts, for the audit; a known agent is recognised without it"),
];

/// Variables of the surrounding system that b24 looks at, not its own.
pub const FOREIGN: &[&str] = &[
    "HOME",
    "XDG_STATE_HOME",
    "XDG_CONFIG_HOME",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CI",
    "NO_COLOR",
    "USER",
    "AGENT",
    "AI_AGENT",
    "CLAUDECODE",
    "CODEX_SANDBOX",
    "CODEX_CI",
    "GEMINI_CLI",
    "CURSOR_AGENT",
    "OPENCODE",
    "OPENCLAW_SHELL",
];

/// The environment as it was when the program started.
#[derive(Debug, Clone, Default)]
pub struct Env {
    variables: BTreeMap<String, String>,
    unreadable: Vec<String>,
}

impl Env {
    /// Keeps the given variables.
    #[must_use]
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Env {
        Env { variables: variables.into_iter().collect(), unreadable: Vec::new() }
    }

    /// Keeps the variables of the system. One that is not UTF-8 is not passed
    /// over where it could guard something: one of ours, or a folder that is
    /// looked for things in, is remembered as unreadable; of another system
    /// variable that b24 looks at, it is kept that it is set.
    #[must_use]
    pub fn of_the_system(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Env {
        let mut env = Env::default();
        for (name, value) in variables {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => {
                    env.variables.insert(name, value);
                }
                (Ok(name), Err(value)) if must_be_text(&name) => {
                    drop(value);
                    env.unreadable.push(name);
                }
                (Ok(name), Err(value)) if FOREIGN.contains(&name.as_str()) => {
                    env.variables.insert(name, value.to_string_lossy().into_owned());
                }
                (Err(name), _) if must_be_text(&name.to_string_lossy()) => env.unreadable.push(name.to_string_lossy().into_owned()),
                (Ok(_) | Err(_), _) => {}
            }
        }
        env
    }

    /// Returns the name of a variable that is set but cannot be read.
    #[must_use]
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.first().map(String::as_str)
    }

    /// Returns a variable that is set and not blank, trimmed.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Returns whether a variable is set, even to nothing.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    /// Returns whether a variable says yes: `1`, `true`, `yes` or `on`.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()))
    }

    /// Returns what a variable that switches a guard on says; `None` when it
    /// says neither yes nor no, which must not be taken for no.
    #[must_use]
    pub fn guard(&self, name: &str) -> Option<bool> {
        let value = self.get(name).unwrap_or("0").to_ascii_lowercase();
        match value.as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    /// Returns every variable with its value.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Adds variables of an `--env-file`; the environment itself wins.
    pub fn add_missing(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in variables {
            self.variables.entry(name).or_insert(value);
        }
    }
}

/// Returns whether a variable must not be passed over when it cannot be read.
fn must_be_text(name: &str) -> bool {
    name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("B24_")) || name == "HOME" || name.starts_with("XDG_")
}

/// Reads `NAME=value` lines; quotes around a value are taken off. The error is
/// the number of the entry that is none.
pub fn parse_file(text: &str) -> Result<Vec<(String, String)>, usize> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entry = |(index, line): (usize, &str)| {
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        let value = value.trim();
        let quoted = |quote| value.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        Ok((name.trim().to_owned(), value.to_owned()))
    };
    lines.enumerate().map(entry).collect()
}

/// Returns the text of `.env.example`.
#[must_use]
pub fn example() -> String {
    let mut text = String::from("# Every variable that b24 reads, with its default. Copy to .env and use --env-file .env\n");
    for variable in VARIABLES {
        let _ = write!(text, "\n# {}\n# {}={}\n", variable.help, variable.name, variable.example);
    }
    text
}

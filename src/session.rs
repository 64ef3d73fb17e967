//! One user of one portal, with everything that a call needs opened: ledger,
//! limits, audit, transport.

use crate::credential::Credential;
use crate::error::{Code, Failure};
use crate::host::{self, Clock, Host, Random};
use crate::ids::{Portal, Principal};
use crate::secret::Redactor;
use crate::settings::Settings;
use crate::store::audit::AuditLog;
use crate::store::ledger::Ledger;
use crate::store::limiter::Limiter;
use crate::store::operating::Operating;
use crate::store::retry_budget::RetryBudget;
use crate::wire::auth::{Authorizer, RefreshTools};
use crate::wire::transport::Transport;
use std::sync::Arc;

mod known_as;

/// Which portal is called and what it is called in every record.
pub struct Connection {
    /// How to authorise.
    pub credential: Credential,
    /// The portal's identity: its host, or the id of an emulator's data.
    pub identity: String,
}

impl Connection {
    /// A portal whose identity follows from its host.
    #[must_use]
    pub fn to_portal(credential: Credential) -> Connection {
        Connection { identity: credential.portal().identity(), credential }
    }
}

/// Who runs b24, for the audit: what `B24_ACTOR` says, else the agent that the
/// environment betrays, else the user.
#[must_use]
pub fn actor(host: &Host) -> String {
    if let Some(actor) = host.env.get("B24_ACTOR") {
        return actor.to_owned();
    }
    if let Some((_, agent)) = AGENTS.iter().find(|(variable, _)| host.env.get(variable).is_some()) {
        return format!("agent:{agent}");
    }
    format!("user:{}", host.env.get("USER").unwrap_or("-"))
}

/// Returns whether a person sits at the terminal: only a person may decide
/// what became of an unknown outcome.
#[must_use]
pub fn is_person(host: &Host) -> bool {
    host.stdin_is_terminal && !AGENTS.iter().any(|(variable, _)| host.env.get(variable).is_some())
}

/// Variables by which known agents betray themselves.
const AGENTS: &[(&str, &str)] = &[
    ("CLAUDECODE", "claude-code"),
    ("CODEX_SANDBOX", "codex"),
    ("CODEX_CI", "codex"),
    ("GEMINI_CLI", "gemini-cli"),
    ("CURSOR_AGENT", "cursor"),
    ("OPENCODE", "opencode"),
    ("OPENCLAW_SHELL", "openclaw"),
    ("AI_AGENT", "ai-agent"),
    ("AGENT", "agent"),
];

/// What a session takes from the host, to be used while streams are borrowed
/// elsewhere.
#[derive(Clone)]
pub struct Tools {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Who runs b24.
    pub actor: String,
}

impl Tools {
    /// Takes them from a host.
    #[must_use]
    pub fn of(host: &Host) -> Tools {
        Tools { clock: Arc::clone(&host.clock), random: Arc::clone(&host.random), actor: actor(host) }
    }

    /// Returns a new request id.
    #[must_use]
    pub fn request_id(&self) -> String {
        host::uuid_v7(self.clock.as_ref(), self.random.as_ref())
    }
}

/// An opened session.
pub struct Session {
    /// What was decided before.
    pub settings: Settings,
    /// Clock, randomness, actor.
    pub tools: Tools,
    /// The portal.
    pub portal: Portal,
    /// The portal's identity.
    pub identity: String,
    /// Authorisation.
    pub authorizer: Authorizer,
    /// Removes every known secret from what is written.
    pub redactor: Redactor,
    /// The audit.
    pub audit: AuditLog,
    /// The rate limiter.
    pub limiter: Limiter,
    /// Operating time per method.
    pub operating: Operating,
    /// The retry budget.
    pub budget: RetryBudget,
    /// Blinds values in the audit and seals plans.
    pub install_key: [u8; 32],
    transport: Option<Transport>,
    /// Other identities under which earlier versions kept state of the portal.
    earlier: Vec<String>,
}

impl Session {
    /// Opens a session; nothing is sent.
    pub fn open(settings: Settings, connection: Connection, tools: Tools) -> Result<Session, Failure> {
        settings.state.prepare()?;
        let known = known_as::settle(&settings.state, &connection.identity, &tools)?;
        let connection = Connection { identity: known.identity, ..connection };
        let folder = settings.state.portal(&connection.identity);
        let limiter = match &settings.pace {
            None => Limiter::off(),
            Some(pace) => {
                let place = settings.limiter_folder.as_ref().map_or_else(|| folder.clone(), |other| other.join(&connection.identity));
                Limiter::new(place.join("limiter.bin"), *pace, Arc::clone(&tools.clock))
            }
        };
        let mut redactor = settings.redactor();
        connection.credential.secrets().iter().for_each(|secret| redactor.learn(secret));
        let portal = connection.credential.portal().clone();
        let authorizer = Authorizer::new(connection.credential, settings.state.place("tokens"))?;
        authorizer.teach(&mut redactor);
        Ok(Session {
            portal,
            authorizer,
            redactor,
            limiter,
            audit: AuditLog::open(settings.audit.clone(), Arc::clone(&tools.clock), Arc::clone(&tools.random)),
            operating: Operating::new(folder.join("operating"), Arc::clone(&tools.clock)),
            budget: RetryBudget::new(folder.join("retry.bin")),
            install_key: settings.state.install_key(tools.random.as_ref())?,
            identity: connection.identity,
            transport: None,
            earlier: known.earlier,
            settings,
            tools,
        })
    }

    /// Returns the ledger of a user of this portal.
    #[must_use]
    pub fn ledger(&self, principal: &Principal) -> Ledger {
        let place = |identity: &str| match &self.settings.ledger_folder {
            Some(other) => other.join(identity),
            None => self.settings.state.portal(identity),
        };
        let (clock, random) = (Arc::clone(&self.tools.clock), Arc::clone(&self.tools.random));
        let ledger = Ledger::new(place(&self.identity), self.identity.clone(), principal.to_string(), clock, random);
        self.earlier.iter().fold(ledger, |ledger, name| ledger.with_earlier_name(place(name), name.clone()))
    }

    /// Makes the sender at first use: a replay needs none.
    pub fn prepare_sender(&mut self) -> Result<(), Failure> {
        if self.transport.is_none() {
            let limits = &self.settings.limits;
            let made = Transport::new(&self.portal, limits, self.settings.ca_file.as_deref());
            self.transport = Some(made.map_err(|problem| {
                Failure::new(Code::ConfigInvalid, format!("the HTTP client cannot be set up: {problem}"))
                    .hint("Check B24_CA_FILE and the proxy variables")
            })?);
        }
        Ok(())
    }

    /// Returns the sender, if it was made.
    #[must_use]
    pub fn sender(&self) -> Option<&Transport> {
        self.transport.as_ref()
    }

    /// Renews an expired token and teaches the redactor the new one.
    pub fn refresh(&mut self) -> Result<(), Failure> {
        let limits = &self.settings.limits;
        let tools = RefreshTools {
            random: self.tools.random.as_ref(),
            wait: limits.max_wait,
            timeout: limits.timeout,
            ca_file: self.settings.ca_file.as_deref(),
        };
        let refreshed = self.authorizer.refresh(&tools);
        self.authorizer.teach(&mut self.redactor);
        Ok(refreshed?)
    }
}

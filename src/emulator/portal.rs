//! The portal itself: one turn per request, under the lock of the data.

use super::EmulatorError;
use super::envelope::{Answer, Api, Refusal};
use super::faults::FaultBook;
use super::journal::{Change, ChangeKind, Genesis, Journal, Record};
use super::limits::Limits;
use super::oauth::{TokenCheck, issue_first};
use super::raise::{self, OnlineEvent};
use super::state::{Row, State};
use super::{crm, crm_item, events, system, tasks, tasks_v3};
use crate::host::{Clock, Random, random_hex, uuid_v7};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// The portal as one process knows it.
pub(super) struct Portal {
    journal: Journal,
    state: State,
    limits: Limits,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Events that nobody has begun to deliver.
    outbox: Vec<OnlineEvent>,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) user: u64,
    /// `webhook:1` or `app`: what limits and idempotency keys belong to.
    pub(super) credential: String,
    pub(super) request_id: Option<String>,
    /// The source key of the request, or nothing.
    pub(super) connector: String,
}

impl Caller {
    /// Returns the caller of a request before its credential is checked.
    pub(super) fn unknown(request_id: Option<String>) -> Caller {
        Caller { user: 0, credential: String::new(), request_id, connector: String::new() }
    }

    /// Returns an employee who acts in the portal itself, not through REST.
    pub(super) fn at_home(user: u64) -> Caller {
        Caller { user, ..Caller::unknown(None) }
    }

    /// Returns whether an application calls, not a webhook.
    pub(super) fn is_application(&self) -> bool {
        self.credential == "app"
    }
}

/// What a request shows to be let in.
#[derive(Debug, Clone, Default)]
pub(super) struct Credential {
    pub(super) webhook: Option<(String, String)>,
    pub(super) access_token: Option<String>,
}

impl Portal {
    /// Opens the data of a folder; makes it when there is none yet.
    pub(super) fn open(folder: &Path, limits: Limits, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Portal, EmulatorError> {
        let mut portal = Portal { journal: Journal::new(folder), state: State::default(), limits, clock, random, outbox: Vec::new() };
        portal.turn(Caller::unknown(None), &FaultBook::default(), |turn| {
            if turn.state.genesis.is_none() {
                let genesis = new_genesis(turn);
                turn.record(Record::Genesis(genesis));
            }
            if turn.state.tokens.unspent_first(turn.now.timestamp()).is_none() {
                issue_first(turn, system::ADMIN);
            }
        })?;
        Ok(portal)
    }

    /// Runs one request's work while no other process can touch the data, and
    /// journals what it changed.
    pub(super) fn turn<T>(
        &mut self,
        caller: Caller,
        faults: &FaultBook,
        work: impl FnOnce(&mut Turn<'_>) -> T,
    ) -> Result<T, EmulatorError> {
        let mut file = self.journal.lock(&mut self.state)?;
        let mut turn = Turn {
            now: self.clock.now(),
            state: &mut self.state,
            limits: &self.limits,
            clock: self.clock.as_ref(),
            random: self.random.as_ref(),
            faults,
            caller,
            records: Vec::new(),
            outbox: Vec::new(),
            queued: Vec::new(),
        };
        let outcome = work(&mut turn);
        raise::signal(&mut turn);
        let (records, outbox) = (turn.records, turn.outbox);
        if let Err(error) = self.journal.append(&mut file, &records) {
            // The memory is ahead of the file now: the next turn reads anew.
            self.state = State::default();
            self.journal.rewind();
            return Err(error);
        }
        self.outbox.extend(outbox);
        Ok(outcome)
    }

    /// Hands over the events that online handlers must hear of.
    pub(super) fn take_outbox(&mut self) -> Vec<OnlineEvent> {
        std::mem::take(&mut self.outbox)
    }

    /// Returns what was fixed when the data set was made.
    pub(super) fn genesis(&self) -> Genesis {
        self.state.genesis.clone().expect("a portal that was opened has its genesis")
    }

    /// Returns the first tokens of the application.
    pub(super) fn first_tokens(&self) -> (String, String) {
        let (access, refresh) = self.state.tokens.unspent_first(self.clock.now().timestamp()).unwrap_or_default();
        (access.to_owned(), refresh.to_owned())
    }
}

fn new_genesis(turn: &Turn<'_>) -> Genesis {
    Genesis {
        data_id: turn.random_hex(8),
        member_id: turn.random_hex(16),
        created_at: super::envelope::stamp(turn.now),
        client_id: format!("local.{}.{}", turn.random_hex(7), turn.random_hex(4)),
        client_secret: turn.random_hex(25),
        application_token: turn.random_hex(16),
        webhooks: system::USERS.iter().map(|user| (user.id, turn.random_hex(8))).collect(),
    }
}

/// The portal while one request holds the lock of the data.
pub(super) struct Turn<'a> {
    /// When the turn began.
    pub(super) now: DateTime<Utc>,
    pub(super) state: &'a mut State,
    pub(super) limits: &'a Limits,
    pub(super) clock: &'a dyn Clock,
    pub(super) faults: &'a FaultBook,
    pub(super) caller: Caller,
    random: &'a dyn Random,
    records: Vec<Record>,
    /// Events for online handlers; they leave when the turn is in the journal.
    pub(super) outbox: Vec<OnlineEvent>,
    /// The source keys of the offline queues that this turn put rows into.
    pub(super) queued: Vec<String>,
}

impl Turn<'_> {
    /// Checks the credential and remembers whose it is.
    pub(super) fn authorize(&mut self, credential: &Credential) -> Result<(), Refusal> {
        if let Some((user, code)) = &credential.webhook {
            let known = self.genesis().webhooks;
            let Some((id, _)) = known.iter().find(|(id, known)| id.to_string() == *user && known == code) else {
                return Err(Refusal::v2(401, "INVALID_CREDENTIALS", "Invalid request credentials"));
            };
            self.caller.user = *id;
            self.caller.credential = format!("webhook:{id}");
            return Ok(());
        }
        let Some(token) = &credential.access_token else {
            return Err(Refusal::v2(401, "NO_AUTH_FOUND", "Wrong authorization data"));
        };
        match self.state.tokens.check(token, self.now.timestamp()) {
            TokenCheck::Valid { user } => {
                self.caller.user = user;
                "app".clone_into(&mut self.caller.credential);
                Ok(())
            }
            TokenCheck::Expired => Err(Refusal::v2(401, "expired_token", "The access token provided has expired.")),
            TokenCheck::Unknown => Err(Refusal::v2(401, "invalid_token", "Unable to get application by token")),
        }
    }

    /// Runs one method that is no batch. Any call can bear a source key; it
    /// belongs to the authorization, not to the method's parameters, and the
    /// one of a batch holds for commands without their own (documented:
    /// `api-reference/events/offline-events.md`).
    pub(super) fn call(&mut self, api: Api, method: &str, params: &Map<String, Value>) -> Answer {
        let Some(connector) = events::connector(params) else { return self.dispatch(api, method, params) };
        let mut params = params.clone();
        params.retain(|name, _| !name.eq_ignore_ascii_case(events::CONNECTOR));
        let inherited = std::mem::replace(&mut self.caller.connector, connector);
        let answer = self.dispatch(api, method, &params);
        self.caller.connector = inherited;
        answer
    }

    fn dispatch(&mut self, api: Api, method: &str, params: &Map<String, Value>) -> Answer {
        match api {
            Api::V2 => self.call_v2(method, params),
            Api::V3 => tasks_v3::call(self, method, params)
                .or_else(|| system::call_v3(method))
                .unwrap_or_else(|| Err(Refusal::v3(404, "METHODNOTFOUNDEXCEPTION", format!("Method `{method}` not found")))),
        }
    }

    fn call_v2(&mut self, method: &str, params: &Map<String, Value>) -> Answer {
        let parts: Vec<&str> = method.split('.').collect();
        let answer = match parts[..] {
            ["crm", "item", action] => crm_item::call(self, method, action, params),
            ["crm", entity, action] => crm::call(self, method, (entity, action), params),
            ["tasks", "task", action] => tasks::call(self, method, action, params),
            ["event" | "events", ..] => events::call(self, method, params),
            _ => system::call(self, method, params),
        };
        answer.unwrap_or_else(|| Err(Refusal::v2(404, "ERROR_METHOD_NOT_FOUND", "Method not found!")))
    }

    /// Takes over a journal line; it is written when the turn ends.
    pub(super) fn record(&mut self, record: Record) {
        // A line is applied as it will be read: the copy keeps one way of
        // changing the state.
        let copy = record.clone();
        self.state.apply(copy);
        self.records.push(record);
    }

    /// Changes an object, logs the change and tells those who listen.
    pub(super) fn change(&mut self, method: &str, entity: &str, id: u64, change: (ChangeKind, Row)) {
        let (kind, fields) = change;
        self.record(Record::Change(Change {
            seq: self.state.last_seq + 1,
            at: super::envelope::stamp(self.now),
            request_id: self.caller.request_id.clone(),
            user: self.caller.user,
            method: method.to_owned(),
            entity: entity.to_owned(),
            id,
            kind,
            fields: Value::Object(fields),
        }));
        raise::changed(self, entity, id, kind);
    }

    /// Returns what was fixed when the data set was made.
    pub(super) fn genesis(&self) -> Genesis {
        self.state.genesis.clone().expect("a portal that was opened has its genesis")
    }

    /// Returns random bytes as hex digits.
    pub(super) fn random_hex(&self, bytes: usize) -> String {
        random_hex(self.random, bytes)
    }

    /// Returns a new GUID as the portal writes it.
    pub(super) fn guid(&self) -> String {
        format!("{{{}}}", uuid_v7(self.clock, self.random))
    }
}

//! Whose events are worked off, for commands that call no portal.

use super::super::Stop;
use super::super::connect::{Connected, Role, connect_as};
use crate::host::Host;
use crate::secret::{Redactor, Secret};
use crate::settings::Settings;
use crate::store::StateDir;
use crate::store::audit::{AuditLog, AuditPlace, Durability};
use crate::store::locked::StoreError;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// The name under which events are kept when no portal is configured: a
/// receiver needs none.
const NOBODY: &str = "any-portal";

/// Whose events are worked off.
pub(in crate::cli) struct Owner {
    /// The portal's identity.
    pub(in crate::cli) identity: String,
    /// Takes secrets out of what handlers say.
    pub(in crate::cli) redactor: Redactor,
    /// The state folder.
    pub(in crate::cli) state: StateDir,
    /// The token that events of the built-in portal carry.
    pub(in crate::cli) application_token: Option<Secret>,
    /// The guards that were loosened, for the audit.
    pub(super) loosened: Vec<&'static str>,
    audit: AuditPlace,
    max_wait: Duration,
}

impl Owner {
    /// Returns the owner of a session's events.
    pub(in crate::cli) fn of(connected: &Connected) -> Owner {
        let session = &connected.session;
        Owner {
            identity: session.identity.clone(),
            redactor: session.redactor.clone(),
            state: session.settings.state.clone(),
            application_token: connected.application_token(),
            loosened: session.settings.loosened.clone(),
            audit: session.settings.audit.clone(),
            max_wait: session.settings.limits.max_wait,
        }
    }

    /// Finds the owner that the settings name.
    pub(in crate::cli) fn find(settings: Settings, host: &Host) -> Result<Owner, Stop> {
        settings.state.prepare()?;
        if !matches!(settings.credential, Some(Err(_))) {
            return Ok(Owner::of(&connect_as(Role::Application, settings, host)?));
        }
        Ok(Owner {
            identity: NOBODY.to_owned(),
            redactor: settings.redactor(),
            state: settings.state,
            application_token: None,
            loosened: settings.loosened,
            audit: settings.audit,
            max_wait: settings.limits.max_wait,
        })
    }

    /// Audits something that is done to the events, before it is done.
    pub(super) fn record(&self, fields: &Map<String, Value>, host: &Host) -> Result<(), StoreError> {
        let audit = AuditLog::open(self.audit.clone(), Arc::clone(&host.clock), Arc::clone(&host.random));
        audit.append(fields, Durability::Durable, self.max_wait).map(drop)
    }
}

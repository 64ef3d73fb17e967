//! Finds the portal of a command and opens a session with it. For the profile
//! `emulator` the built-in portal is started on loopback for this one command.

use super::Stop;
use crate::credential::{Credential, OAuth};
use crate::emulator::{Emulator, Limits, Options as EmulatorOptions};
use crate::error::{Code, Failure};
use crate::host::Host;
use crate::ids::Portal;
use crate::secret::Secret;
use crate::session::{Connection, Session, Tools};
use crate::settings::Settings;
use crate::store::tokens::Pair;
use std::sync::Arc;

/// A session, and the portal that lives as long as it, if it is the built-in
/// one.
pub(super) struct Connected {
    pub(super) session: Session,
    emulator: Option<Emulator>,
}

/// As what the built-in portal is called. Elsewhere the credential decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Through an incoming webhook.
    Webhook,
    /// As an application: what has to do with events takes nothing else.
    Application,
}

impl Connected {
    /// Returns the token that events of the built-in portal carry.
    pub(super) fn application_token(&self) -> Option<Secret> {
        self.emulator.as_ref().map(|emulator| emulator.access().application_token.clone())
    }

    /// Returns the built-in portal, if it is the one that is called.
    pub(super) fn emulator(&self) -> Option<&Emulator> {
        self.emulator.as_ref()
    }
}

/// Opens a session with the portal that the settings name.
pub(super) fn connect(settings: Settings, host: &Host) -> Result<Connected, Stop> {
    connect_as(Role::Webhook, settings, host)
}

/// The same in a role.
pub(super) fn connect_as(role: Role, mut settings: Settings, host: &Host) -> Result<Connected, Stop> {
    crate::interrupt::watch();
    let (connection, emulator) = match settings.credential.take() {
        Some(credential) => (Connection::to_portal(credential?), None),
        None => {
            settings.state.prepare()?;
            let emulator = start_emulator(&settings, host)?;
            let portal = Portal::parse(&emulator.origin())
                .map_err(|error| Failure::new(Code::Internal, format!("the emulator's address: {error}")))?;
            let credential = credential(&emulator, portal, role);
            (Connection { credential, identity: format!("emulator-{}", emulator.data_id()) }, Some(emulator))
        }
    };
    let session = Session::open(settings, connection, Tools::of(host))?;
    Ok(Connected { session, emulator })
}

/// The tokens of the built-in portal's application are new with every command,
/// so nothing of them is kept: without the refresh token there is nothing to
/// renew.
fn credential(emulator: &Emulator, portal: Portal, role: Role) -> Credential {
    let access = emulator.access();
    let webhook = access.admin();
    match role {
        Role::Webhook => Credential::Webhook { portal, user: webhook.user.to_string(), code: webhook.code.clone() },
        Role::Application => Credential::OAuth(OAuth {
            server: portal.clone(),
            portal,
            client_id: Some(access.client_id.clone()),
            client_secret: None,
            given: Pair { access: access.access_token.clone(), refresh: None, user: Some(webhook.user.to_string()), member: None },
        }),
    }
}

fn start_emulator(settings: &Settings, host: &Host) -> Result<Emulator, Stop> {
    let options = EmulatorOptions {
        data: settings.state.place("emulator"),
        port: 0,
        limits: Limits::none(),
        clock: Arc::clone(&host.clock),
        random: Arc::clone(&host.random),
        announce: false,
    };
    Ok(Emulator::start(options)?)
}

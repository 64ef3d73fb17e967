//! Finds the portal of a command and opens a session with it. For the profile
//! `emulator` the built-in portal is started on loopback for this one command.

use super::Stop;
use crate::credential::Credential;
use crate::emulator::{Emulator, Limits, Options as EmulatorOptions};
use crate::error::{Code, Failure};
use crate::host::Host;
use crate::ids::Portal;
use crate::session::{Connection, Session, Tools};
use crate::settings::Settings;
use std::sync::Arc;

/// A session, and the portal that lives as long as it, if it is the built-in
/// one.
pub(super) struct Connected {
    pub(super) session: Session,
    _emulator: Option<Emulator>,
}

/// Opens a session with the portal that the settings name.
pub(super) fn connect(mut settings: Settings, host: &Host) -> Result<Connected, Stop> {
    crate::interrupt::watch();
    let (connection, emulator) = match settings.credential.take() {
        Some(credential) => (Connection::to_portal(credential?), None),
        None => {
            settings.state.prepare()?;
            let emulator = start_emulator(&settings, host)?;
            let webhook = emulator.access().admin();
            let portal = Portal::parse(&emulator.origin())
                .map_err(|error| Failure::new(Code::Internal, format!("the emulator's address: {error}")))?;
            let credential = Credential::Webhook { portal, user: webhook.user.to_string(), code: webhook.code.clone() };
            (Connection { credential, identity: format!("emulator-{}", emulator.data_id()) }, Some(emulator))
        }
    };
    let session = Session::open(settings, connection, Tools::of(host))?;
    Ok(Connected { session, _emulator: emulator })
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

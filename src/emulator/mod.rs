//! A portal on loopback that behaves like Bitrix24: real HTTP, real state,
//! limits and faults on demand.
//!
//! The data of a portal is a folder with one journal; several servers, also of
//! several processes, can share it and are one portal then.

mod batch;
mod batch_v3;
mod crm;
mod crm_item;
mod deliver;
mod envelope;
mod events;
mod exchange;
mod execute;
mod faults;
mod fields;
mod journal;
mod limits;
mod names;
mod oauth;
mod offline;
pub mod php;
mod portal;
mod query;
mod query_v3;
mod queue;
mod raise;
mod request;
mod seen;
mod server;
mod state;
mod system;
mod tasks;
mod tasks_v3;

pub use deliver::Delivery;
pub use envelope::Api;
pub use faults::{Fault, FaultError, FaultKind, fault_kinds};
pub use journal::{Change, ChangeKind};
pub use limits::{Bucket, Limits, Operating};
pub use seen::{SeenRequest, SeenStatus};

use crate::error::{Code, Coded};
use crate::host::{Clock, Random, random_hex};
use crate::secret::Secret;
use crate::store::locked::{StoreError, replace_durable};
use exchange::Shared;
use portal::{Caller, Portal};
use serde_json::json;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::watch;

/// How to run an emulator.
#[derive(Clone)]
pub struct Options {
    /// The folder of the data; made when it is not there.
    pub data: PathBuf,
    /// The port; 0 for any free one.
    pub port: u16,
    /// What the portal limits.
    pub limits: Limits,
    /// The portal's clock; it also does the waiting.
    pub clock: Arc<dyn Clock>,
    /// Where ids and secrets come from.
    pub random: Arc<dyn Random>,
    /// Writes `webhook-url` and `oauth.json` into the folder, for other
    /// clients.
    pub announce: bool,
}

/// Why an emulator does not run.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// A file of the data cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The port cannot be opened.
    #[error("cannot listen on 127.0.0.1 port {port}: {source}")]
    Bind {
        /// The port asked for.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The server thread cannot run.
    #[error("cannot start the emulator's server: {0}")]
    Thread(io::Error),
    /// No event has this name.
    #[error("no event is called `{0}`")]
    UnknownEvent(String),
    /// The emulator was stopped.
    #[error("the emulator has stopped")]
    Stopped,
}

impl Coded for EmulatorError {
    fn code(&self) -> Code {
        match self {
            EmulatorError::Store(error) => error.code(),
            EmulatorError::Bind { .. } | EmulatorError::UnknownEvent(_) => Code::Usage,
            EmulatorError::Thread(_) | EmulatorError::Stopped => Code::LocalState,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            EmulatorError::Store(error) => error.hint(),
            EmulatorError::Bind { .. } => Some("Choose another port, or 0 for any free one".to_owned()),
            EmulatorError::UnknownEvent(_) => Some("Names are those of the documentation, such as ONCRMDEALUPDATE".to_owned()),
            EmulatorError::Thread(_) | EmulatorError::Stopped => None,
        }
    }
}

/// How to get into an emulated portal.
#[derive(Debug, Clone)]
pub struct Access {
    /// An incoming webhook of every employee; the first one is of the
    /// administrator.
    pub webhooks: Vec<Webhook>,
    /// The application's id.
    pub client_id: String,
    /// The application's secret.
    pub client_secret: Secret,
    /// An access token of the application and the administrator.
    pub access_token: Secret,
    /// The refresh token beside it; not spent when the emulator started.
    pub refresh_token: Secret,
    /// The token that events of the application carry.
    pub application_token: Secret,
    /// The portal's id, which a new address does not change.
    pub member_id: String,
}

impl Access {
    /// Returns the administrator's webhook.
    #[must_use]
    pub fn admin(&self) -> &Webhook {
        &self.webhooks[0]
    }
}

/// An incoming webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The employee it acts for.
    pub user: u64,
    /// The code in its address.
    pub code: Secret,
    /// The whole address, with a slash at the end.
    pub url: Secret,
}

/// Whom an event reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raised {
    /// Rows of the offline queue that were added or made young again.
    pub queued: usize,
    /// Calls of online handlers, also those of `ONOFFLINEEVENT`, that were
    /// begun; [`Emulator::deliveries`] tells how they end.
    pub deliveries: usize,
}

/// A running emulator; it stops when it is dropped.
pub struct Emulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    data_id: String,
    access: Access,
    stop: watch::Sender<bool>,
    ended: Arc<Ended>,
    thread: Option<JoinHandle<()>>,
}

/// Tells when the server thread is over.
#[derive(Default)]
struct Ended {
    over: Mutex<bool>,
    changed: Condvar,
}

/// Tells it when it is dropped, so that a panic leaves nobody waiting.
struct End(Arc<Ended>);

impl Drop for End {
    fn drop(&mut self) {
        *self.0.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

impl Emulator {
    /// Opens or makes the data and starts the server.
    pub fn start(options: Options) -> Result<Emulator, EmulatorError> {
        let mut folder = std::fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&options.data).map_err(StoreError::io("create", &options.data))?;
        let portal = Portal::open(&options.data, options.limits.clone(), options.clock.clone(), options.random.clone())?;
        let (listener, address) = bind(options.port)?;
        let origin = format!("http://{address}");
        let access = access(&portal, &origin);
        if options.announce {
            announce(&options, &portal, &origin)?;
        }
        let data_id = portal.genesis().data_id;
        let shared = Arc::new(Shared {
            portal: Mutex::new(portal),
            faults: faults::FaultBook::default(),
            seen: seen::SeenLog::default(),
            deliveries: deliver::Deliveries::default(),
            limits: options.limits,
            clock: options.clock,
            origin,
            stopping: AtomicBool::new(false),
        });
        let (stop, stopped) = watch::channel(false);
        let ended = Arc::new(Ended::default());
        let thread = spawn(listener, (shared.clone(), stopped), ended.clone())?;
        Ok(Emulator { shared, address, data_id, access, stop, ended, thread: Some(thread) })
    }

    /// Returns where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.shared.origin.clone()
    }

    /// Returns the id of the data set, which stays when the address changes.
    #[must_use]
    pub fn data_id(&self) -> &str {
        &self.data_id
    }

    /// Returns how to get in.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Arms a fault in this server.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }

    /// Disarms all faults of this server.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// Returns the requests that this server saw, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.shared.seen.all()
    }

    /// Returns the calls of online handlers that this server has ended, the
    /// oldest first. One that failed is here and nowhere else.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries.past()
    }

    /// Raises an event as if the administrator had caused it in the portal
    /// itself.
    ///
    /// `data` is what handlers get under `data`. Waiting rows of the offline
    /// queue become young again when `data` names the same object: `FIELDS.ID`
    /// (with `FIELDS.ENTITY_TYPE_ID`) or `FIELDS_AFTER.ID`.
    ///
    /// # Errors
    /// [`EmulatorError::UnknownEvent`] when no event has that name.
    pub fn raise(&self, event: &str, data: serde_json::Value) -> Result<Raised, EmulatorError> {
        let happened = raise::named(event, data).ok_or_else(|| EmulatorError::UnknownEvent(event.to_owned()))?;
        let mut portal = self.shared.portal.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.stopping.load(Ordering::SeqCst) {
            return Err(EmulatorError::Stopped);
        }
        let caller = Caller::at_home(system::ADMIN);
        let queued = portal.turn(caller, &self.shared.faults, |turn| raise::raise(turn, &happened))?;
        let events = portal.take_outbox();
        let deliveries = events.len();
        self.shared.deliveries.take(events, &self.shared.origin);
        Ok(Raised { queued, deliveries })
    }

    /// Blocks until the server has stopped.
    pub fn wait(&self) {
        let mut over = self.ended.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            over = self.ended.changed.wait(over).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Stops the server. What is being executed is finished, nothing is begun;
    /// calls of online handlers have five seconds left.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.stop.send_replace(true);
        // Whoever holds the portal is executing; the others see the flag.
        drop(self.shared.portal.lock().unwrap_or_else(PoisonError::into_inner));
        self.wait();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the server thread has been reported by the thread.
            let _ = thread.join();
        }
    }
}

/// Returns every change that was ever made, also while servers run.
pub fn changes(data: &Path) -> Result<Vec<Change>, EmulatorError> {
    journal::read_changes(data)
}

fn bind(port: u16) -> Result<(TcpListener, SocketAddr), EmulatorError> {
    let open = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    open().map_err(|source| EmulatorError::Bind { port, source })
}

fn spawn(listener: TcpListener, server: (Arc<Shared>, watch::Receiver<bool>), ended: Arc<Ended>) -> Result<JoinHandle<()>, EmulatorError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EmulatorError::Thread)?;
    let listener = {
        let _context = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(EmulatorError::Thread)?
    };
    let (shared, stop) = server;
    let run = move || {
        let _end = End(ended);
        runtime.block_on(async {
            tokio::spawn(deliver::run(shared.clone()));
            server::serve(listener, shared.clone(), stop).await;
            deliver::finish(&shared).await;
        });
        // Waits of faults are not waited for.
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name("emulator".to_owned()).spawn(run).map_err(EmulatorError::Thread)
}

fn webhook_url(origin: &str, user: u64, code: &str) -> String {
    format!("{origin}/rest/{user}/{code}/")
}

fn access(portal: &Portal, origin: &str) -> Access {
    let genesis = portal.genesis();
    let (access_token, refresh_token) = portal.first_tokens();
    let webhooks = genesis.webhooks.into_iter().map(|(user, code)| {
        let url = Secret::new(webhook_url(origin, user, &code));
        Webhook { user, code: Secret::new(code), url }
    });
    Access {
        webhooks: webhooks.collect(),
        client_id: genesis.client_id,
        client_secret: Secret::new(genesis.client_secret),
        access_token: Secret::new(access_token),
        refresh_token: Secret::new(refresh_token),
        application_token: Secret::new(genesis.application_token),
        member_id: genesis.member_id,
    }
}

/// Writes the files that tell other clients how to get in; they are readable
/// by their owner only.
fn announce(options: &Options, portal: &Portal, origin: &str) -> Result<(), EmulatorError> {
    let genesis = portal.genesis();
    let (access_token, refresh_token) = portal.first_tokens();
    let admin = genesis.webhooks.first().map(|(user, code)| webhook_url(origin, *user, code)).unwrap_or_default();
    let application = json!({
        "client_id": genesis.client_id, "client_secret": genesis.client_secret,
        "access_token": access_token, "refresh_token": refresh_token,
        "client_endpoint": format!("{origin}/rest/"), "server_endpoint": format!("{origin}/rest/"), "token_endpoint": format!("{origin}/oauth/token/"),
        "member_id": genesis.member_id, "application_token": genesis.application_token,
    });
    for (name, content) in [("webhook-url", format!("{admin}\n")), ("oauth.json", format!("{application:#}\n"))] {
        let temporary = format!(".{name}.{}", random_hex(options.random.as_ref(), 8));
        replace_durable(&options.data.join(name), content.as_bytes(), &temporary)?;
    }
    Ok(())
}

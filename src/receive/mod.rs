//! A receiver of what portals send to handlers: online events and outgoing
//! webhooks, over HTTP/1.1.
//!
//! # A request, from left to right
//!
//! ```text
//! verb, path -> media type -> announced length -> body (bounded, timed)
//!     -> decoded (bounded) -> application token -> envelope -> pace
//!     -> sink: stored? -> 200
//! ```
//!
//! - The application token is compared before anything else of the payload is
//!   used (b24restdocs: api-reference/events/safe-event-handlers.md). Who does
//!   not know it is told nothing but 403.
//! - The pace counts events whose token was right. Counted before, anybody
//!   could use it up, and the portal does not repeat what it was refused.
//! - 200 means stored. Whoever reads the sink says so through [`Stored`]; no
//!   word within the time limit is 503. An event may thus be stored and
//!   answered with 503: at least once, never lost in silence.
//! - Memory is bounded by the heads of all connections and 128 bodies; a room
//!   that is full makes way for who says something (`room.rs`). Tokens and
//!   secrets of a payload end here (see [`Delivery`]).

mod alarm;
mod delivery;
mod form;
mod health;
mod pace;
mod refusal;
mod room;
mod server;

use crate::error::{Code, Coded};
use crate::host::Clock;
use crate::secret::Secret;
use alarm::Alarms;
pub use alarm::{Alarm, AlarmKind};
pub use delivery::{Delivery, event_name};
pub use health::{Ailment, Health};
use pace::Pace;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

/// Connections that the system keeps until they are accepted. One that finds no
/// place there comes again after a second.
const BACKLOG: u32 = 1024;

/// How to receive.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub address: IpAddr,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// The only path that is served; any when there is none.
    pub path: Option<String>,
    /// The application tokens that are right: more than one while a token is
    /// being replaced.
    pub application_tokens: Vec<Secret>,
    /// Largest body in bytes.
    pub body_limit: usize,
    /// Events per second; 0 is no limit.
    pub rate_per_s: f64,
    /// Events that may come at once; 0 is no limit.
    pub burst: u32,
    /// Connections at a time; when there are more, the silent ones end.
    pub max_connections: usize,
    /// How long the storing of an event may take; a head, and a body until it
    /// begins, have three seconds at most.
    pub time_limit: Duration,
    /// The clock that the pace is measured with.
    pub clock: Arc<dyn Clock>,
    /// What `/healthz` says.
    pub health: Health,
}

impl Options {
    /// Returns what is usual: any free port of this machine, bodies up to
    /// 1 MiB, 10 seconds, no limit on the pace.
    #[must_use]
    pub fn new(application_tokens: Vec<Secret>, clock: Arc<dyn Clock>) -> Options {
        Options {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            path: None,
            application_tokens,
            body_limit: 1024 * 1024,
            rate_per_s: 0.0,
            burst: 0,
            max_connections: 512,
            time_limit: Duration::from_secs(10),
            clock,
            health: Health::default(),
        }
    }
}

/// What comes out of a receiver.
#[derive(Debug)]
pub enum Received {
    /// An event whose token was right.
    Delivery {
        /// The event.
        delivery: Box<Delivery>,
        /// Where to say that it is stored.
        stored: Stored,
    },
    /// A request was turned away.
    Alarm(Alarm),
}

/// The word that the portal's answer waits for. Dropped without a word, it
/// means that the event was not stored.
#[derive(Debug)]
#[must_use = "say whether the event is stored"]
pub struct Stored(oneshot::Sender<bool>);

impl Stored {
    /// Says that the event is on disk: the portal is answered 200. Returns
    /// whether somebody was still waiting for it.
    #[expect(clippy::must_use_candidate, reason = "who has stored it need not care who still waits")]
    pub fn confirm(self) -> bool {
        self.0.send(true).is_ok()
    }

    /// Says that the event could not be stored: the portal is answered 503.
    pub fn refuse(self) {
        drop(self.0);
    }
}

/// How many requests ended how, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Stored and answered with 200.
    pub accepted: u64,
    /// Without the right token.
    pub refused_token: u64,
    /// With a body that is too large.
    pub refused_size: u64,
    /// Above the pace.
    pub refused_rate: u64,
    /// No event, or not complete in time.
    pub malformed: u64,
    /// Right, but not stored.
    pub unavailable: u64,
}

/// Why there is no receiver.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Without a token nobody could be told from anybody.
    #[error("no application token is given, or an empty one")]
    NoToken,
    /// The port cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The server thread cannot run.
    #[error("cannot start the receiver: {0}")]
    Thread(io::Error),
}

impl Coded for ReceiveError {
    fn code(&self) -> Code {
        match self {
            ReceiveError::NoToken | ReceiveError::Bind { .. } => Code::Usage,
            ReceiveError::Thread(_) => Code::LocalState,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ReceiveError::NoToken => Some("Take the application token that the portal sends in auth[application_token]".to_owned()),
            ReceiveError::Bind { .. } => Some("Choose another port, or 0 for any free one".to_owned()),
            ReceiveError::Thread(_) => None,
        }
    }
}

/// A running receiver; ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    options: Options,
    pace: Option<Pace>,
    alarms: Alarms,
    counts: [AtomicU64; 6],
    sink: SyncSender<Received>,
}

impl Receiver {
    /// Starts to receive, on a thread of its own. The sink is never waited
    /// for: it should have room for `max_connections` entries, and when it has
    /// none, events are answered with 503 and alarms are counted only.
    pub fn start(options: Options, sink: SyncSender<Received>) -> Result<Receiver, ReceiveError> {
        if options.application_tokens.is_empty() || options.application_tokens.iter().any(|token| token.matches("")) {
            return Err(ReceiveError::NoToken);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ReceiveError::Thread)?;
        let (listener, address) = {
            let _context = runtime.enter();
            bind(&options)?
        };
        let (stop, stopped) = watch::channel(false);
        let pace = Pace::new(options.rate_per_s, options.burst);
        let shared = Arc::new(Shared { options, pace, alarms: Alarms::new(), counts: Default::default(), sink });
        let thread = spawn((runtime, listener), shared.clone(), stopped)?;
        Ok(Receiver { address, shared, stop, thread: Some(thread) })
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many requests ended how.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let [accepted, refused_token, refused_size, refused_rate, malformed, unavailable] =
            self.shared.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        Counters { accepted, refused_token, refused_size, refused_rate, malformed, unavailable }
    }

    /// Returns whether it still receives: its thread has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops to accept connections; requests under way get two seconds.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the server thread has been reported by the thread.
            let _ = thread.join();
        }
    }
}

/// Reads the body of a delivery as the receiver does once its token was right.
#[must_use]
pub fn read_delivery(content_type: &str, body: &[u8]) -> Option<Delivery> {
    Delivery::from_payload(form::decode(form::Media::of(content_type)?, body)?)
}

fn bind(options: &Options) -> Result<(TcpListener, SocketAddr), ReceiveError> {
    let address = SocketAddr::new(options.address, options.port);
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    open().map_err(|source| ReceiveError::Bind { address, source })
}

fn spawn(
    (runtime, listener): (Runtime, TcpListener),
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, ReceiveError> {
    let run = move || {
        runtime.block_on(server::serve(listener, shared, stop));
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name("receiver".to_owned()).spawn(run).map_err(ReceiveError::Thread)
}

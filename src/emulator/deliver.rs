//! Online events on their way to their handlers.
//!
//! Documented (`api-reference/events/index.md`): an event is a POST of a form
//! and leaves once; a handler that does not answer has lost it. Here events to
//! one handler leave in order and one at a time, those to different handlers
//! side by side. The emulator calls loopback only, without a proxy, without
//! looking a name up, and follows no redirect.

use super::exchange::Shared;
use super::php;
use super::raise::OnlineEvent;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use url::{Host, Url};

/// Handlers that are called at the same time.
const AT_ONCE: usize = 8;

/// How long a handler has for its answer.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How long a server that ends waits for deliveries.
const FAREWELL: Duration = Duration::from_secs(5);

/// Older deliveries are forgotten.
const KEPT: usize = 10_000;

/// What is read of a handler's answer.
const LARGEST_ANSWER: usize = 64 * 1024;

/// One event that was sent to a handler, or could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The handler's address.
    pub handler: String,
    /// The event's name.
    pub event: String,
    /// What the handler answered.
    pub status: Option<u16>,
    /// Why there is no answer.
    pub error: Option<String>,
}

/// An address that the emulator calls.
pub(super) struct Target {
    url: Url,
    addresses: Vec<IpAddr>,
}

/// Why an address is not called.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error("Unsupported event handler protocol")]
    Scheme,
    #[error("Wrong handler URL")]
    Shape,
    #[error("Wrong handler URL: the emulator calls loopback only (http://127.0.0.1, http://[::1] or http://localhost), not `{0}`")]
    Away(String),
}

impl TargetError {
    /// Returns the portal's code for it.
    pub(super) fn code(&self) -> &'static str {
        match self {
            TargetError::Scheme => "ERROR_UNSUPPORTED_PROTOCOL",
            TargetError::Shape | TargetError::Away(_) => "ERROR_WRONG_HANDLER_URL",
        }
    }
}

impl Target {
    pub(super) fn parse(handler: &str) -> Result<Target, TargetError> {
        let url = Url::parse(handler).map_err(|_| TargetError::Shape)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TargetError::Scheme);
        }
        let addresses = match url.host() {
            Some(Host::Ipv4(address)) if address.is_loopback() => vec![address.into()],
            Some(Host::Ipv6(address)) if address.is_loopback() => vec![address.into()],
            Some(Host::Domain("localhost")) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Some(other) => return Err(TargetError::Away(other.to_string())),
            None => return Err(TargetError::Shape),
        };
        Ok(Target { url, addresses })
    }
}

/// The deliveries of one server.
#[derive(Default)]
pub(super) struct Deliveries {
    book: Mutex<Book>,
    /// Something came in or came to an end.
    changed: Notify,
    idle: Notify,
}

#[derive(Default)]
struct Book {
    waiting: VecDeque<Order>,
    busy: HashSet<String>,
    past: VecDeque<Delivery>,
}

struct Order {
    handler: String,
    event: String,
    form: String,
}

impl Deliveries {
    /// Takes events in the order in which they happened.
    pub(super) fn take(&self, events: Vec<OnlineEvent>, origin: &str) {
        if events.is_empty() {
            return;
        }
        let orders = events.into_iter().map(|event| {
            let form = php::build_query(&event.parameters(origin));
            Order { handler: event.handler, event: event.event, form }
        });
        self.book().waiting.extend(orders);
        self.changed.notify_one();
    }

    /// Returns what came to an end, the oldest first.
    pub(super) fn past(&self) -> Vec<Delivery> {
        self.book().past.iter().cloned().collect()
    }

    /// Returns the next order for a handler that is not being called.
    fn begin(&self) -> Option<Order> {
        let mut book = self.book();
        if book.busy.len() >= AT_ONCE {
            return None;
        }
        let position = book.waiting.iter().position(|order| !book.busy.contains(&order.handler))?;
        let order = book.waiting.remove(position)?;
        book.busy.insert(order.handler.clone());
        Some(order)
    }

    fn end(&self, order: Order, outcome: Result<u16, String>) {
        let mut book = self.book();
        book.busy.remove(&order.handler);
        book.keep(order, outcome);
        drop(book);
        self.changed.notify_one();
        self.idle.notify_waiters();
    }

    fn give_up(&self) {
        let mut book = self.book();
        while let Some(order) = book.waiting.pop_front() {
            book.keep(order, Err("the emulator ended".to_owned()));
        }
    }

    async fn until_idle(&self) {
        loop {
            let ended = self.idle.notified();
            tokio::pin!(ended);
            // Registers before the look, so that no end is missed between.
            ended.as_mut().enable();
            let is_idle = {
                let book = self.book();
                book.waiting.is_empty() && book.busy.is_empty()
            };
            if is_idle {
                return;
            }
            ended.await;
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn keep(&mut self, order: Order, outcome: Result<u16, String>) {
        let (status, error) = match outcome {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error)),
        };
        self.past.push_back(Delivery { handler: order.handler, event: order.event, status, error });
        if self.past.len() > KEPT {
            self.past.pop_front();
        }
    }
}

/// Delivers until the runtime ends.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        while let Some(order) = shared.deliveries.begin() {
            let shared = shared.clone();
            tokio::spawn(async move {
                let sent = tokio::time::timeout(TIME_LIMIT, post(&order)).await;
                let outcome = sent.unwrap_or_else(|_| Err(format!("no answer within {} s", TIME_LIMIT.as_secs())));
                shared.deliveries.end(order, outcome);
            });
        }
        shared.deliveries.changed.notified().await;
    }
}

/// Waits for deliveries when a server ends, but not for long.
pub(super) async fn finish(shared: &Arc<Shared>) {
    let working = shared.clone();
    // Whoever holds the portal may still raise events.
    let _ = tokio::task::spawn_blocking(move || drop(working.portal.lock().unwrap_or_else(PoisonError::into_inner))).await;
    let _ = tokio::time::timeout(FAREWELL, shared.deliveries.until_idle()).await;
    shared.deliveries.give_up();
}

async fn post(order: &Order) -> Result<u16, String> {
    let target = Target::parse(&order.handler).map_err(|error| error.to_string())?;
    if target.url.scheme() != "http" {
        return Err("the emulator delivers over http only".to_owned());
    }
    let stream = connect(&target).await.map_err(|error| format!("cannot connect: {error}"))?;
    let failed = |error: hyper::Error| format!("no answer: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = tokio::spawn(connection);
    let path = target.url.query().map_or_else(|| target.url.path().to_owned(), |query| format!("{}?{query}", target.url.path()));
    let authority = &target.url[url::Position::BeforeHost..url::Position::AfterPort];
    let request = Request::post(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(order.form.clone())))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status().as_u16();
    // Lets the handler finish; what it says is of no interest.
    let _ = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
    connection.abort();
    Ok(status)
}

async fn connect(target: &Target) -> std::io::Result<TcpStream> {
    let port = target.url.port_or_known_default().unwrap_or(80);
    let mut outcome = Err(std::io::Error::from(std::io::ErrorKind::AddrNotAvailable));
    for address in &target.addresses {
        outcome = TcpStream::connect((*address, port)).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_called() {
        for handler in
            ["http://127.0.0.1:8080/x?y=1", "http://127.1.2.3/", "http://[::1]:1/", "https://LocalHost/handler", "http://2130706433/"]
        {
            assert!(Target::parse(handler).is_ok(), "{handler}");
        }
        for (handler, code) in [
            ("http://example.com/", "ERROR_WRONG_HANDLER_URL"),
            ("http://127.0.0.1.example.com/", "ERROR_WRONG_HANDLER_URL"),
            ("http://localhost@10.0.0.1/", "ERROR_WRONG_HANDLER_URL"),
            ("http://0.0.0.0/", "ERROR_WRONG_HANDLER_URL"),
            ("handler.php", "ERROR_WRONG_HANDLER_URL"),
            ("ftp://localhost/", "ERROR_UNSUPPORTED_PROTOCOL"),
        ] {
            assert_eq!(Target::parse(handler).err().map(|error| error.code()), Some(code), "{handler}");
        }
    }
}

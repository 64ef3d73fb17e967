//! The connections of a receiver: HTTP/1.1, bounded in number, size and time.

use super::delivery::Delivery;
use super::form::{self, Media};
use super::refusal::{Claim, Refusal};
use super::room::{Room, Ticket};
use super::{Ailment, Alarm, AlarmKind, Options, Received, Shared, Stored};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value};
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Pause after a connection could not be accepted (no file handles left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What requests under way get when the receiver stops.
const GRACE: Duration = Duration::from_secs(2);

/// After this a connection is asked to end, so that nobody can hold one for
/// good.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// Longest time for the head of a request, and for a body before its first
/// byte: a portal sends both at once.
const FIRST_BYTES: Duration = Duration::from_secs(3);

/// A body that comes slower than this is not waited for, in bytes a second.
const SLOWEST: u32 = 64 * 1024;

/// Largest head of a request in bytes; hyper takes a hundred headers at most.
const LARGEST_HEAD: usize = 16 * 1024;

/// What a body gets before its first byte has come.
const FIRST_RESERVE: usize = 16 * 1024;

/// What all bodies may have together, in bodies of the largest size.
const BODIES: usize = 128;

/// Serves until the sender says stop or is gone.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let room = Room::new(shared.options.max_connections, shared.options.body_limit.saturating_mul(BODIES));
    loop {
        if let Err(wait) = room.make_way() {
            tokio::select! {
                () = sleep(wait) => continue,
                _ = stop.changed() => break,
            }
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let ticket = room.enter(peer.ip());
                    let number = ticket.number();
                    let task = tokio::spawn(connection((stream, peer.ip()), shared.clone(), stop.clone(), ticket));
                    room.seat(number, task.abort_handle());
                }
                Err(_) => {
                    room.thin_out();
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    room.close();
    let until = Instant::now() + GRACE;
    while !room.is_empty() && Instant::now() < until {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Serves one request. There is no second one on a connection: one that is
/// kept would have to be ended some time, and a request that is on its way at
/// that moment is not repeated by a portal.
async fn connection(from: (TcpStream, IpAddr), shared: Arc<Shared>, mut stop: watch::Receiver<bool>, ticket: Ticket) {
    let (stream, peer) = from;
    // Without it an answer waits for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let limit = shared.options.time_limit;
    let ticket = Arc::new(ticket);
    let service = service_fn(move |request| answer(shared.clone(), peer, request, ticket.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit.min(FIRST_BYTES))
        .max_buf_size(LARGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // An error ends this connection only.
        _ = connection.as_mut() => return,
        _ = stop.changed() => {}
        () = sleep(CONNECTION_LIFE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(limit.saturating_mul(3), connection).await;
}

async fn answer(
    shared: Arc<Shared>,
    peer: IpAddr,
    request: Request<Incoming>,
    ticket: Arc<Ticket>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    ticket.speaks();
    if request.method() == Method::GET && request.uri().path() == "/healthz" {
        return Ok(match shared.options.health.worst() {
            None => response(200, None),
            Some(ailment) => with_text(503, ailment.text()),
        });
    }
    match receive(&shared, request, &ticket).await {
        Ok(()) => {
            shared.counts[0].fetch_add(1, Ordering::Relaxed);
            Ok(response(200, None))
        }
        Err(refusal) => {
            shared.refused(&refusal, peer);
            Ok(response(refusal.status(), refusal.header()))
        }
    }
}

/// Takes one request through all checks to the sink.
async fn receive(shared: &Shared, request: Request<Incoming>, ticket: &Ticket) -> Result<(), Refusal> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return Err(Refusal::WrongVerb);
    }
    if shared.options.path.as_ref().is_some_and(|path| path != head.uri.path()) {
        return Err(Refusal::NotFound);
    }
    let media = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(Media::of).ok_or(Refusal::WrongMedia)?;
    let body = read(body, &shared.options, ticket).await?;
    let payload = form::decode(media, &body).ok_or(Refusal::Malformed(Claim::default()))?;
    drop(body);
    ticket.gives_back();
    let claim = Claim::of(&payload);
    shared.check_token(&payload, &claim)?;
    ticket.is_heard();
    let delivery = Delivery::from_payload(payload).ok_or_else(|| Refusal::Malformed(claim.clone()))?;
    if let Some(Err(wait)) = shared.pace.as_ref().map(|pace| pace.take(shared.options.clock.boot_ns())) {
        return Err(Refusal::TooFast(claim, wait));
    }
    store(shared, delivery).await.ok_or(Refusal::Unavailable(claim))
}

/// Reads a body. What announces that it is too large is not read at all; what
/// does not is read up to the limit. It has a moment to begin, and then as long
/// as its bytes need at the slowest pace.
async fn read(mut body: Incoming, options: &Options, ticket: &Ticket) -> Result<Vec<u8>, Refusal> {
    let (limit, begin) = (options.body_limit, Instant::now() + options.time_limit.min(FIRST_BYTES));
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(Refusal::TooLarge);
    }
    let mut bytes = Vec::with_capacity(announced.min(FIRST_RESERVE));
    loop {
        let until = begin + Duration::from_secs(bytes.len() as u64) / SLOWEST;
        let Some(frame) = timeout_at(until, body.frame()).await.map_err(|_| Refusal::TooSlow)? else { break };
        let frame = frame.map_err(|_| Refusal::Malformed(Claim::default()))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(Refusal::TooLarge);
        }
        if !ticket.takes(data.len()) {
            return Err(Refusal::Unavailable(Claim::default()));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Hands a delivery to the sink and waits until it is stored; `None` when it
/// is not.
async fn store(shared: &Shared, delivery: Delivery) -> Option<()> {
    let (stored, is_stored) = oneshot::channel();
    shared.sink.try_send(Received::Delivery { delivery: Box::new(delivery), stored: Stored(stored) }).ok()?;
    let is_stored = matches!(timeout(shared.options.time_limit, is_stored).await, Ok(Ok(true)));
    let health = &shared.options.health;
    match is_stored {
        true => health.recovers(Ailment::NotStored),
        false => health.ails(Ailment::NotStored),
    }
    is_stored.then_some(())
}

impl Shared {
    /// Compares the application token with every right one, so that the time
    /// does not tell which it is.
    fn check_token(&self, payload: &Map<String, Value>, claim: &Claim) -> Result<(), Refusal> {
        let given = payload.get("auth").map_or(&Value::Null, |auth| &auth["application_token"]);
        let text = match given {
            Value::Null => return Err(Refusal::MissingToken(claim.clone())),
            Value::String(text) if text.is_empty() => return Err(Refusal::MissingToken(claim.clone())),
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => return Err(Refusal::WrongToken(claim.clone())),
        };
        let right = self.options.application_tokens.iter().filter(|token| token.matches(text)).count();
        if right > 0 { Ok(()) } else { Err(Refusal::WrongToken(claim.clone())) }
    }

    /// Counts a refusal and tells the owner.
    fn refused(&self, refusal: &Refusal, peer: IpAddr) {
        let Some((kind, claim)) = refusal.alarm() else { return };
        let counter = match kind {
            AlarmKind::MissingToken | AlarmKind::WrongToken => 1,
            AlarmKind::TooLarge => 2,
            AlarmKind::TooFast => 3,
            AlarmKind::Malformed => 4,
            AlarmKind::Unavailable => 5,
        };
        self.counts[counter].fetch_add(1, Ordering::Relaxed);
        let alarm = Alarm { kind, event: claim.event, domain: claim.domain, peer, suppressed: 0 };
        self.alarms.raise(alarm, self.options.clock.boot_ns(), |alarm| self.sink.try_send(Received::Alarm(alarm)).is_ok());
    }
}

fn response(status: u16, header: Option<(&'static str, String)>) -> Response<Full<Bytes>> {
    let mut response = with_text(status, if status == 200 { "ok" } else { "" });
    if let Some((name, value)) = header
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}

fn with_text(status: u16, text: &str) -> Response<Full<Bytes>> {
    let text = if text.is_empty() { String::new() } else { format!("{text}\n") };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

//! HTTP/1.1 on loopback.

use super::exchange::{Announced, Answered, Shared, exchange};
use super::execute::Reply;
use super::request::Incoming;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming as RequestBody, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Largest request body.
const LARGEST_BODY: usize = 64 * 1024 * 1024;

/// Pause after a connection could not be accepted (no file handles left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves until the sender says stop or is gone.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(connection(stream, shared.clone(), stop.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            _ = stop.changed() => return,
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    // Without it an answer waits for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(shared.clone(), request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // An error ends this connection only: the client left, or was dropped
        // on purpose.
        _ = connection => {}
        _ = stop.changed() => {}
    }
}

async fn answer(shared: Arc<Shared>, request: Request<RequestBody>) -> Result<Response<AnswerBody>, Dropped> {
    let (head, body) = request.into_parts();
    if body.size_hint().lower() > LARGEST_BODY as u64 {
        return response(too_large(), Cut::No);
    }
    let body = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return response(too_large(), Cut::No),
        // The client left in the middle of its request.
        Err(_) => return Err(Dropped),
    };
    let incoming = Incoming {
        verb: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
    };
    match exchange(shared, incoming).await {
        Answered::Whole(reply) => response(reply, Cut::No),
        Answered::Truncated(reply) => response(reply, Cut::InTheMiddle),
        Answered::Padded(mut reply, padding, announced) => {
            let body = AnswerBody::padded(std::mem::take(&mut reply.body).into(), padding, announced);
            response(reply, Cut::No).map(|answer| answer.map(|_| body))
        }
        Answered::Dropped => Err(Dropped),
    }
}

fn too_large() -> Reply {
    Reply::json(413, &json!({"error": "REQUEST_TOO_LARGE", "error_description": "The request body is too large"}))
}

fn response(reply: Reply, cut: Cut) -> Result<Response<AnswerBody>, Dropped> {
    let mut response = Response::new(AnswerBody::new(Bytes::from(reply.body), cut));
    *response.status_mut() = StatusCode::from_u16(reply.status).map_err(|_| Dropped)?;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    for (name, value) in &reply.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Dropped)?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Dropped)?;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// Tells hyper to close the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is dropped")]
struct Dropped;

/// Whether a body is sent as a whole.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    No,
    InTheMiddle,
}

/// A body that can break off half-way, behind a header that announced all.
struct AnswerBody {
    length: Option<u64>,
    /// How many bytes of white space are still to come before the content.
    padding: u64,
    stage: Stage,
}

/// How much white space is sent at a time.
static WHITE: [u8; 64 * 1024] = [b' '; 64 * 1024];

enum Stage {
    Whole(Bytes),
    Half(Bytes),
    /// One turn of nothing, in which hyper flushes the first half.
    Flush,
    Break,
    Done,
}

impl AnswerBody {
    fn new(content: Bytes, cut: Cut) -> AnswerBody {
        let length = content.len() as u64;
        let stage = match cut {
            Cut::InTheMiddle => Stage::Half(content.slice(..content.len() / 2)),
            Cut::No if content.is_empty() => Stage::Done,
            Cut::No => Stage::Whole(content),
        };
        AnswerBody { length: Some(length), padding: 0, stage }
    }

    /// A JSON document may begin with white space, of any length.
    fn padded(content: Bytes, padding: u64, announced: Announced) -> AnswerBody {
        let length = (announced == Announced::Yes).then(|| content.len() as u64 + padding);
        AnswerBody { length, padding, stage: Stage::Whole(content) }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        if self.padding > 0 {
            let part = usize::try_from(self.padding).unwrap_or(usize::MAX).min(WHITE.len());
            self.padding -= part as u64;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&WHITE[..part])))));
        }
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Whole(content) => Poll::Ready(Some(Ok(Frame::data(content)))),
            Stage::Half(content) => {
                self.stage = Stage::Flush;
                Poll::Ready(Some(Ok(Frame::data(content))))
            }
            Stage::Flush => {
                self.stage = Stage::Break;
                task.waker().wake_by_ref();
                Poll::Pending
            }
            Stage::Break => Poll::Ready(Some(Err(Dropped))),
            Stage::Done => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

//! The HTTP client and the only conversion of its errors.
//!
//! `reqwest::Error` prints the address, and with it the webhook's secret; it
//! never leaves this file. Redirects are never followed and never repeated by
//! the library; a write always gets a fresh connection; no `Referer` carries
//! an address on.
//!
//! The client runs on the calling thread: one call needs no second thread, and
//! the time limit covers the whole attempt, not each part of an answer anew.

use super::answer::Answer;
use crate::ids::Portal;
use crate::store::given::{LONGEST_VALUE, read_given_file};
use reqwest::{Client, ClientBuilder, Response};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{self, Runtime};

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// No byte of the request left: no address, no connection, no TLS.
    NotSent(String),
    /// The request may have been executed.
    Maybe(String),
    /// The answer is larger than what is taken; only its head was read.
    TooLarge(Box<Answer>),
}

/// The largest answer that is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Most(pub(super) u64);

/// A client of one server.
pub(super) struct Http {
    client: Client,
    /// There until the drop.
    runtime: Option<Runtime>,
    most: Most,
}

impl Drop for Http {
    /// A name that is still being looked up would hold up the end of the
    /// program beyond every time limit.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Builds a client for one server.
pub(super) fn build(server: &Portal, timeout: Duration, most: Most, ca_file: Option<&Path>) -> Result<Http, String> {
    let builder = plain(timeout);
    let builder = if server.is_loopback() { without_tls(builder)? } else { with_tls(builder.https_only(true), ca_file)? };
    Ok(Http { client: builder.build().map_err(describe)?, runtime: Some(runtime()?), most })
}

/// Returns what all clients have in common.
pub(super) fn plain(timeout: Duration) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("b24/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        // Below the whole limit, or a write that found no connection could
        // run out of time there and would count as sent.
        .connect_timeout(timeout.mul_f64(0.8).min(Duration::from_secs(10)))
        .tcp_user_timeout(Duration::from_secs(20))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .http1_only()
        .pool_max_idle_per_host(0)
}

/// Returns what runs a client on the calling thread.
pub(super) fn runtime() -> Result<Runtime, String> {
    runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}

/// Loopback needs neither a proxy nor certificate authorities, whose loading
/// costs more than the call; `https` to loopback works with `B24_CA_FILE` only
/// on other hosts and is refused here by an empty set.
pub(super) fn without_tls(builder: ClientBuilder) -> Result<ClientBuilder, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(builder.no_proxy().tls_backend_preconfigured(config))
}

/// Takes the system's certificate authorities, and further ones of a file.
pub(super) fn with_tls(builder: ClientBuilder, ca_file: Option<&Path>) -> Result<ClientBuilder, String> {
    // Fails only when it was installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = builder.tls_version_min(reqwest::tls::Version::TLS_1_2);
    let Some(path) = ca_file else { return Ok(builder) };
    let pem = read_given_file(path, LONGEST_VALUE).map_err(|error| error.to_string())?.into_bytes();
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(describe)?;
    Ok(builder.tls_certs_merge(certificates))
}

/// Sends one POST and reads the whole answer, if it is not too large.
pub(super) fn post(http: &Http, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Answer, Failed> {
    let mut request = http.client.post(url).header("Accept", "application/json").body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let Some(runtime) = &http.runtime else { return Err(Failed::NotSent("the client has ended".to_owned())) };
    runtime.block_on(async {
        let response = request.send().await.map_err(|error| {
            let not_sent = error.is_connect() || error.is_builder();
            let why = describe(error);
            if not_sent { Failed::NotSent(why) } else { Failed::Maybe(why) }
        })?;
        let answer = read(response, http.most).await;
        match answer.map_err(|error| Failed::Maybe(format!("the answer was cut short: {}", describe(error))))? {
            (answer, Kept::Whole) => Ok(answer),
            (answer, Kept::Head) => Err(Failed::TooLarge(Box::new(answer))),
        }
    })
}

/// How much of an answer was taken.
enum Kept {
    Whole,
    Head,
}

/// Reads an answer until its end or until it is too large; what is over the
/// bound is never in memory, whether the length was announced, announced
/// falsely, or not at all. A compressed body is not asked for and not unpacked.
async fn read(mut response: Response, most: Most) -> Result<(Answer, Kept), reqwest::Error> {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let status = response.status().as_u16();
    let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let location =
        header("location").map(|text| url::Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default());
    let replayed_by_portal = header("idempotent-replayed").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let mut answer = Answer { status, body: Vec::new(), retry_after, location, replayed_by_portal };
    let announced = response.content_length().unwrap_or(0);
    if announced <= most.0 {
        // A hint: memory that is not written to costs nothing.
        answer.body.reserve_exact(usize::try_from(announced).unwrap_or(0));
    }
    while let Some(chunk) = response.chunk().await? {
        let room = usize::try_from(most.0).unwrap_or(usize::MAX).saturating_sub(answer.body.len());
        answer.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if announced > most.0 || chunk.len() > room {
            return Ok((answer, Kept::Head));
        }
    }
    Ok((answer, Kept::Whole))
}

/// Returns what went wrong without the address.
pub(super) fn describe(error: reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_builder() {
        "the request could not be built"
    } else {
        "the connection broke"
    };
    let error = error.without_url();
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    let mut deepest = None;
    while let Some(cause) = source {
        deepest = Some(cause.to_string());
        source = cause.source();
    }
    match deepest {
        Some(cause) => format!("{kind} ({cause})"),
        None => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers one request byte by byte, over two seconds or more.
    fn trickle(listener: &TcpListener) -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut request = Vec::new();
        while !request.ends_with(b"{}") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            request.extend(byte);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n")?;
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        for _ in 0..40 {
            // Nothing comes any more: the wait for it is the pause.
            let _ = stream.read(&mut [0]);
            stream.write_all(b" ")?;
        }
        Ok(())
    }

    #[test]
    fn an_answer_that_trickles_does_not_outlast_the_time_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Portal::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let trickling = std::thread::spawn(move || trickle(&listener));
        let http = build(&server, Duration::from_millis(400), Most(1024), None).unwrap();
        let failed = post(&http, &format!("{}/canary-1234", server.origin()), &[], b"{}".to_vec()).unwrap_err();
        assert!(matches!(&failed, Failed::Maybe(why) if why.contains("no answer in time") && !why.contains("canary")), "{failed:?}");
        drop(http);
        // It ends with the connection, which the client has given up.
        let _ = trickling.join().unwrap();
    }

    #[test]
    fn a_name_that_is_still_looked_up_does_not_hold_up_the_end() {
        let server = Portal::parse("http://127.0.0.1:1").unwrap();
        let http = build(&server, Duration::from_secs(1), Most(1024), None).unwrap();
        let (found, waits) = std::sync::mpsc::channel::<()>();
        http.runtime.as_ref().unwrap().spawn_blocking(move || waits.recv());
        drop(http);
        // Only now may the lookup end; a drop that waits for it never comes here.
        drop(found);
    }
}

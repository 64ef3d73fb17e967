//! A portal for one test, and a client that hides nothing.

use b24::emulator::{Change, Emulator, Limits, Options, changes};
use b24::host::{Clock, SystemClock, SystemRandom};
use chrono::{DateTime, Utc};
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

/// A clock that moves when a test says so; its waits take no time.
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn new() -> Arc<ManualClock> {
        Arc::new(ManualClock(AtomicU64::new(1_790_000_000_000)))
    }

    pub(crate) fn advance(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.ms().cast_signed()).unwrap()
    }

    fn boot_ns(&self) -> u64 {
        self.ms() * 1_000_000
    }

    fn boot_id(&self) -> String {
        "manual".to_owned()
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

/// Returns options for a folder, on the machine's clock.
pub(crate) fn options(data: &Path) -> Options {
    Options {
        data: data.to_owned(),
        port: 0,
        limits: Limits::none(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        announce: false,
    }
}

/// A running portal in a folder of its own.
pub(crate) struct World {
    pub(crate) emulator: Emulator,
    pub(crate) data: PathBuf,
    pub(crate) client: Client,
    _folder: Option<tempfile::TempDir>,
}

/// A response, read.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> World {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut options = options(&data);
        change(&mut options);
        World { emulator: Emulator::start(options).unwrap(), data, client: client(), _folder: Some(folder) }
    }

    /// Starts one more server on a folder of somebody else.
    pub(crate) fn in_folder(data: &Path) -> World {
        World { emulator: Emulator::start(options(data)).unwrap(), data: data.to_owned(), client: client(), _folder: None }
    }

    /// Returns the administrator's address of a method.
    pub(crate) fn url(&self, method: &str) -> String {
        format!("{}{method}", self.emulator.access().admin().url.expose())
    }

    /// Returns the same for the third generation.
    pub(crate) fn url_v3(&self, method: &str) -> String {
        self.url(method).replace("/rest/", "/rest/api/")
    }

    pub(crate) fn post(&self, method: &str, body: &Value) -> Got {
        get(self.client.post(self.url(method)).json_body(body))
    }

    pub(crate) fn post_v3(&self, method: &str, body: &Value) -> Got {
        get(self.client.post(self.url_v3(method)).json_body(body))
    }

    /// Calls a method that must succeed and returns its result.
    pub(crate) fn result(&self, method: &str, body: &Value) -> Value {
        let got = self.post(method, body);
        assert_eq!(got.status, 200, "{}", got.body);
        got.body["result"].clone()
    }

    pub(crate) fn result_v3(&self, method: &str, body: &Value) -> Value {
        let got = self.post_v3(method, body);
        assert_eq!(got.status, 200, "{}", got.body);
        got.body["result"].clone()
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        changes(&self.data).unwrap()
    }

    pub(crate) fn fault(&self, text: &str) {
        self.emulator.add_fault(text.parse().unwrap());
    }
}

pub(crate) trait JsonBody {
    fn json_body(self, body: &Value) -> Self;
}

impl JsonBody for RequestBuilder {
    fn json_body(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json").body(body.to_string())
    }
}

/// Returns a client without proxies, redirects and retries.
pub(crate) fn client() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).retry(reqwest::retry::never()).build().unwrap()
}

/// Sends a request that must get a JSON answer.
pub(crate) fn get(request: RequestBuilder) -> Got {
    let response = request.send().unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().unwrap();
    Got { status, headers, body: serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")) }
}

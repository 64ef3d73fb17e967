//! Handlers of online events, and calls in the name of the application.

use crate::support::{Got, JsonBody, World, get};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// An answer of a handler that took the event.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A server that takes events down.
pub(crate) struct Handler {
    pub(crate) url: String,
    calls: Receiver<Event>,
}

/// One call of a handler: head and fields, with PHP's brackets in the names.
pub(crate) struct Event {
    pub(crate) head: String,
    pub(crate) fields: BTreeMap<String, String>,
}

impl Event {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

impl Handler {
    pub(crate) fn new() -> Handler {
        Handler::answering(OK)
    }

    /// Starts a handler that answers every event in the same way; with nothing
    /// when the answer is empty.
    pub(crate) fn answering(answer: &'static str) -> Handler {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/handler.php?app=1", listener.local_addr().unwrap());
        let (sender, calls) = channel();
        std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                unanswered.extend(take(stream, answer, &sender));
            }
        });
        Handler { url, calls }
    }

    /// Waits for the next event.
    pub(crate) fn next(&self) -> Event {
        self.calls.recv_timeout(Duration::from_secs(20)).expect("an event comes")
    }

    /// Returns the events that have come, without waiting.
    pub(crate) fn come(&self) -> Vec<Event> {
        self.calls.try_iter().collect()
    }
}

fn take(stream: TcpStream, answer: &str, sender: &Sender<Event>) -> Option<TcpStream> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).unwrap();
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let fields = url::form_urlencoded::parse(&body).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let _ = sender.send(Event { head, fields });
    if answer.is_empty() {
        return Some(stream);
    }
    (&stream).write_all(answer.as_bytes()).unwrap();
    None
}

impl World {
    /// Calls a method with an access token.
    pub(crate) fn call_with(&self, token: &str, method: &str, body: &Value) -> Got {
        get(self.client.post(format!("{}/rest/{method}", self.emulator.origin())).bearer_auth(token).json_body(body))
    }

    /// Calls a method in the name of the application and the administrator.
    pub(crate) fn call(&self, method: &str, body: &Value) -> Got {
        self.call_with(self.emulator.access().access_token.expose(), method, body)
    }

    /// Does the same with a call that must succeed, and returns its result.
    pub(crate) fn app(&self, method: &str, body: &Value) -> Value {
        let got = self.call(method, body);
        assert_eq!(got.status, 200, "{method}: {}", got.body);
        got.body["result"].clone()
    }

    /// Binds the offline queue to an event.
    pub(crate) fn bind_offline(&self, event: &str) {
        assert_eq!(self.app("event.bind", &json!({"event": event, "event_type": "offline"})), true);
    }

    /// Returns an application's token of an employee without rights, as an
    /// event brings it.
    pub(crate) fn token_of(&self, user: usize) -> String {
        let handler = Handler::new();
        let binding = json!({"event": "ONCRMCOMPANYADD", "handler": handler.url});
        self.app("event.bind", &binding);
        let webhook = self.emulator.access().webhooks[user - 1].url.expose().to_owned();
        get(self.client.post(format!("{webhook}crm.company.add")).json_body(&json!({"fields": {}})));
        let token = handler.next().field("auth[access_token]").to_owned();
        self.app("event.unbind", &binding);
        token
    }
}

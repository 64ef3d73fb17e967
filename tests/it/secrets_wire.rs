//! Portals that are not there, and portals that repeat what they were sent:
//! no secret comes back out of b24.

use crate::canary::Canaries;
use crate::world::World;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

const CODE: &str = "canary7f3e9b21c4";
const ACCESS: &str = "access5d0c44e19a.token";
const REFRESH: &str = "refresh91ab37c2ff";
const CLIENT: &str = "client0e8d6b53aa/secret";

fn canaries() -> Canaries {
    Canaries::new([CODE, ACCESS, REFRESH, CLIENT])
}

fn by_webhook(world: &World, origin: &str, args: &[&str]) -> Command {
    let mut command = world.command(args);
    command.env("B24_WEBHOOK_URL", format!("{origin}/rest/1/{CODE}/"));
    command
}

fn by_oauth(world: &World, origin: &str, args: &[&str]) -> Command {
    let mut command = world.command(args);
    command
        .env_remove("B24_WEBHOOK_URL")
        .env("B24_DOMAIN", origin)
        .env("B24_AUTH_MODE", "oauth")
        .env("B24_OAUTH_URL", origin)
        .env("B24_CLIENT_ID", "app.1")
        .env("B24_CLIENT_SECRET", CLIENT)
        .env("B24_ACCESS_TOKEN", ACCESS)
        .env("B24_REFRESH_TOKEN", REFRESH);
    command
}

const CALLS: [&[&str]; 5] = [
    &["crm.lead.list"],
    &["crm.lead.add", "fields[TITLE]=x", "--confirm-write"],
    &["crm.lead.add", "fields[TITLE]=y", "--confirm-write", "--error-format", "text"],
    &["batch", "--params", r#"{"cmd":["crm.lead.list",["crm.lead.add",{"fields":{"TITLE":"z"}}]]}"#, "--confirm-write"],
    &["tasks.task.get", "--api", "v3", "id=1", "--meta"],
];

/// Makes every kind of call at one place, then looks back.
fn call_everywhere(world: &World, name: &str, origin: &str) {
    let canaries = canaries();
    for call in CALLS
        .iter()
        .chain([&["profile"][..], &["crm.lead.add", "--plan-only"], &["crm.lead.add", "--dry-run"], &["crm.lead.add", "--curl"]].iter())
    {
        let args = [call, &["--retry", "none", "--max-wait", "1", "--timeout", "5"][..]].concat();
        let _ = canaries.run(world, name, &mut by_webhook(world, origin, &args));
        let _ = canaries.run(world, name, &mut by_oauth(world, origin, &args));
    }
    for args in [&["audit", "tail", "-n", "500"][..], &["ledger", "list", "--all"], &["limits"]] {
        let _ = canaries.run(world, name, &mut by_webhook(world, origin, args));
    }
}

#[test]
fn a_portal_that_is_not_there_learns_and_tells_nothing() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("http://{closed}");
    // A label of 64 characters has no address, and no server is asked for one.
    let unknown = format!("https://{}.example", "a".repeat(64));
    for (name, origin) in [("connection refused", refused), ("no such host", unknown)] {
        let world = World::new();
        let args = ["crm.lead.add", "fields[TITLE]=x", "--confirm-write", "--retry", "none"];
        for mut command in [by_webhook(&world, &origin, &args), by_oauth(&world, &origin, &args)] {
            assert_eq!(canaries().run(&world, name, &mut command).error(7)["kind"], "offline");
        }
        call_everywhere(&world, name, &origin);
    }
}

#[test]
fn a_portal_without_tls_tells_nothing() {
    let server = Server::start(|_| b"220 not TLS at all canary\r\n".to_vec(), Reads::Nothing);
    let world = World::new();
    let args = ["crm.lead.list", "--retry", "none"];
    let error = canaries().run(&world, "TLS", &mut by_webhook(&world, &format!("https://{}", server.0), &args)).error(7);
    assert_eq!(error["kind"], "offline");
    call_everywhere(&world, "TLS", &format!("https://{}", server.0));
}

/// A request as a portal sees it.
struct Seen {
    path: String,
    body: String,
}

impl Seen {
    /// Returns the secrets that the request carried.
    fn secrets(&self) -> impl Iterator<Item = &'static str> {
        let all = format!("{} {} {}", self.path, self.body, self.form());
        [CODE, ACCESS, REFRESH, CLIENT].into_iter().filter(move |secret| all.contains(secret))
    }

    fn form(&self) -> String {
        url::form_urlencoded::parse(self.body.as_bytes())
            .flat_map(|(name, value)| [" ".to_owned(), name.into_owned(), " ".to_owned(), value.into_owned()])
            .collect()
    }

    /// Returns everything in which a secret came, in several spellings.
    fn echo(&self) -> String {
        let encoded = |secret: &str| format!(" {} {}", BASE64_STANDARD.encode(secret), secret.replace('.', "%2E").replace('/', "%2F"));
        let encoded: String = self.secrets().map(encoded).collect();
        format!("{} {}{}{encoded}", self.path, self.body, self.form())
    }

    /// Returns a host name that is as long as a message is cut.
    fn host(&self) -> String {
        let labels: String =
            self.secrets().filter(|secret| !secret.contains('/')).flat_map(|secret| [secret.to_string(), ".".to_owned()]).collect();
        format!("{}.{labels}{}.example", "x".repeat(45), "x".repeat(40))
    }
}

type Answers = fn(&Seen) -> Vec<u8>;

/// Whether a server reads what it is sent.
#[derive(Clone, Copy, PartialEq)]
enum Reads {
    Request,
    Nothing,
}

/// A portal made of one function.
struct Server(SocketAddr);

impl Server {
    /// Starts one; its thread ends with the test program.
    fn start(answers: Answers, reads: Reads) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                // A client that leaves early is one of the cases.
                let _ = serve(stream, answers, reads);
            }
        });
        Server(address)
    }
}

fn serve(mut stream: TcpStream, answers: Answers, reads: Reads) -> std::io::Result<()> {
    let mut seen = Seen { path: String::new(), body: String::new() };
    if reads == Reads::Request {
        let mut reader = BufReader::new(stream.try_clone()?);
        let (mut line, mut length) = (String::new(), 0);
        reader.read_line(&mut line)?;
        line.split(' ').nth(1).unwrap_or_default().clone_into(&mut seen.path);
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        seen.body = String::from_utf8_lossy(&body).into_owned();
    }
    stream.write_all(&answers(&seen))
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

fn json_answer(status: &str, body: &serde_json::Value) -> Vec<u8> {
    http(status, "Content-Type: application/json\r\n", &body.to_string())
}

/// What a hostile, broken or careless portal may answer.
const ECHOES: &[(&str, Answers)] = &[
    ("error text", |seen| json_answer("400 Bad", &json!({"error": "ERROR_CORE", "error_description": seen.echo()}))),
    ("error code", |seen| json_answer("400 Bad", &json!({"error": seen.echo(), "error_description": ""}))),
    ("error code where it is cut", |seen| json_answer("400 Bad", &json!({"error": format!("{}{}", "x".repeat(45), seen.path)}))),
    ("error code where the audit cuts", |seen| json_answer("400 Bad", &json!({"error": format!("{}{}", "x".repeat(185), seen.path)}))),
    ("error object", |seen| {
        json_answer("400 Bad", &json!({"error": {"code": seen.echo(), "message": seen.echo(), "validation": [seen.echo()]}}))
    }),
    ("result", |seen| {
        json_answer("200 OK", &json!({"result": {"ID": seen.echo(), "list": [seen.echo()]}, "next": seen.echo(), "total": 1}))
    }),
    ("key of the result", |seen| json_answer("200 OK", &json!({"result": {seen.echo(): 1}, "time": {"operating": seen.echo()}}))),
    ("result of a batch", |seen| {
        json_answer(
            "200 OK",
            &json!({"result": {"result": [[], seen.echo()], "result_error": {"1": {"error": seen.echo(), "error_description": seen.echo()}}}}),
        )
    }),
    ("user", |seen| json_answer("200 OK", &json!({"result": {"ID": seen.body}}))),
    ("page", |seen| http("502 Bad Gateway", "Content-Type: text/html\r\n", &format!("<html>{}</html>", seen.echo()))),
    ("garbage", |seen| http("200 OK", "", &seen.echo())),
    ("cut JSON", |seen| http("200 OK", "", &format!("{{\"result\":\"{}", seen.path))),
    ("not found", |seen| json_answer("404 Not Found", &json!({"error": "ERROR_METHOD_NOT_FOUND", "error_description": seen.echo()}))),
    ("access denied", |seen| json_answer("403 Forbidden", &json!({"error": "ACCESS_DENIED", "error_description": seen.echo()}))),
    ("expired token", |seen| json_answer("401 Unauthorized", &json!({"error": "expired_token", "error_description": seen.echo()}))),
    ("query limit", |seen| json_answer("503 Unavailable", &json!({"error": "QUERY_LIMIT_EXCEEDED", "error_description": seen.echo()}))),
    ("internal error", |seen| json_answer("500 Error", &json!({"error": "INTERNAL_SERVER_ERROR", "error_description": seen.echo()}))),
    ("redirect", |seen| http("302 Found", &format!("Location: https://moved.example{}?auth={CODE}\r\n", seen.path), "")),
    ("redirect to a host", |seen| http("301 Moved", &format!("Location: https://{}/\r\n", seen.host()), "")),
    ("redirect without a scheme", |seen| http("307 Temporary", &format!("Location: {}\r\n", seen.path), "")),
    ("headers", |seen| http("400 Bad", &format!("Retry-After: {CODE}\r\nX-Path: {}\r\nContent-Type: {CODE}\r\n", seen.path), "{}")),
    ("reason", |seen| http(&format!("418 {CODE}{}", seen.path), "", "{}")),
    ("no HTTP", |seen| seen.echo().into_bytes()),
    ("broken header", |seen| format!("HTTP/1.1 200 OK\r\n{}\r\n\r\n", seen.echo()).into_bytes()),
    ("refusal of a refresh", |seen| {
        let error = if seen.path.contains("oauth") { seen.echo() } else { "expired_token".to_owned() };
        json_answer("401 Unauthorized", &json!({"error": error, "error_description": seen.echo()}))
    }),
    ("tokens that stay", |seen| {
        let tokens = json!({"access_token": ACCESS, "refresh_token": REFRESH, "user_id": ACCESS, "member_id": REFRESH});
        let expired = json!({"error": "expired_token", "error_description": seen.echo()});
        if seen.path.contains("oauth") { json_answer("200 OK", &tokens) } else { json_answer("401 Unauthorized", &expired) }
    }),
];

#[test]
fn a_portal_that_repeats_secrets_does_not_get_them_printed_or_kept() {
    for (name, answers) in ECHOES {
        let server = Server::start(*answers, Reads::Request);
        let world = World::new();
        call_everywhere(&world, name, &format!("http://{}", server.0));
    }
}

#[test]
fn the_echo_is_one() {
    let server = Server::start(ECHOES[0].1, Reads::Request);
    let mut stream = TcpStream::connect(server.0).unwrap();
    write!(stream, "POST /rest/1/{CODE}/x HTTP/1.1\r\nContent-Length: {}\r\n\r\n{ACCESS}", ACCESS.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    for needle in [CODE, ACCESS, &BASE64_STANDARD.encode(CODE)] {
        assert!(answer.contains(needle), "{answer}");
    }
}

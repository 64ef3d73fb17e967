//! The harness: a temporary home, an emulator in this process, and the real
//! binary run against it with an environment of nothing else.

use crate::home::{can_live_elsewhere, living_in, testers_configuration};
use b24::emulator::{Change, Emulator, EmulatorError, Limits, Options, SeenRequest, changes};
use b24::host::{SystemClock, SystemRandom};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A portal and a user of it.
pub(crate) struct World {
    pub(crate) home: tempfile::TempDir,
    pub(crate) emulator: Emulator,
    data: PathBuf,
}

/// What a run left behind.
#[must_use]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// A portal without limits, called by webhook.
    pub(crate) fn new() -> World {
        World::with(Limits::none())
    }

    /// A portal whose user keeps everything in memory, where there is such a
    /// place: for tests that make thousands of state folders.
    pub(crate) fn in_memory() -> World {
        World::again_and_again(&Limits::none())
    }

    /// The same with a first access token that is over; its successors last.
    pub(crate) fn in_memory_with_expired_token() -> World {
        let mut world = World::again_and_again(&Limits { token_ttl_s: 0, ..Limits::none() });
        world.stop();
        world.restart();
        world
    }

    /// A portal with limits of its own.
    pub(crate) fn with(limits: Limits) -> World {
        World::at(tempfile::tempdir().unwrap(), limits)
    }

    /// A portal that is restarted many times: at a port that the system gives
    /// to nobody else meanwhile.
    fn again_and_again(limits: &Limits) -> World {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let home = memory();
        let data = home.path().join("portal");
        let first = 12_000 + u16::try_from(std::process::id() % 18_000).unwrap();
        let emulator = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed))
            .take(1_000)
            .find_map(|port| Emulator::start(options(&data, limits.clone(), port)).ok())
            .unwrap();
        World { home, emulator, data }
    }

    fn at(home: tempfile::TempDir, limits: Limits) -> World {
        let data = home.path().join("portal");
        let emulator = start(&data, limits);
        World { home, emulator, data }
    }

    /// A portal whose first access token is over; its successors last.
    pub(crate) fn with_expired_token() -> World {
        let mut world = World::with(Limits { token_ttl_s: 0, ..Limits::none() });
        world.emulator = start(&world.data, Limits::none());
        world
    }

    /// A portal that takes the token for expired at the first lead that is added.
    pub(crate) fn with_token_that_expires_at_the_add() -> World {
        let world = World::new();
        world.fault("crm.lead.add:expired-token:times=1");
        world
    }

    /// The state folder of the user.
    pub(crate) fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// The webhook of the user with this id (1 to 3).
    pub(crate) fn webhook(&self, user: u64) -> String {
        let webhook = self.emulator.access().webhooks.iter().find(|webhook| webhook.user == user).unwrap();
        webhook.url.expose().to_owned()
    }

    /// The binary with a clean environment and the webhook of user 1.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_b24"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .env("B24_STATE_DIR", self.state())
            .env("B24_WEBHOOK_URL", self.webhook(1))
            .env("B24_RATE_LIMITER_RATE", "50")
            .env("B24_RATE_LIMITER_BURST", "250")
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        // The tester's own configuration must not govern the tests.
        if testers_configuration().is_some() && can_live_elsewhere() {
            let home = self.home.path().join("nobody");
            command = living_in(&home, &command);
            command.stdin(Stdio::null());
        }
        command
    }

    /// Replaces the webhook in a command's environment by the OAuth tokens of
    /// the emulator's application.
    pub(crate) fn with_oauth(&self, command: &mut Command) {
        let access = self.emulator.access();
        command
            .env_remove("B24_WEBHOOK_URL")
            .env("B24_DOMAIN", self.emulator.origin())
            .env("B24_AUTH_MODE", "oauth")
            .env("B24_OAUTH_URL", self.emulator.origin())
            .env("B24_CLIENT_ID", &access.client_id)
            .env("B24_CLIENT_SECRET", access.client_secret.expose())
            .env("B24_ACCESS_TOKEN", access.access_token.expose())
            .env("B24_REFRESH_TOKEN", access.refresh_token.expose());
    }

    /// The binary with a clean environment and the tokens of the application.
    pub(crate) fn oauth_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        self.with_oauth(&mut command);
        command
    }

    /// Runs the binary.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(args))
    }

    /// Arms a fault, written as for `--fault`.
    pub(crate) fn fault(&self, rule: &str) {
        self.emulator.add_fault(rule.parse().unwrap());
    }

    /// Ends the portal's server; its data stays.
    pub(crate) fn stop(&self) {
        self.emulator.stop();
    }

    /// Serves the portal again, at the same address.
    pub(crate) fn restart(&mut self) {
        let port = self.emulator.address().port();
        self.emulator = serve(&self.data, Limits::none(), port);
    }

    /// Everything that the portal remembers.
    pub(crate) fn memory(&self) -> Vec<u8> {
        std::fs::read(self.data.join("journal.jsonl")).unwrap()
    }

    /// Serves the portal with what it remembered then, at the same address.
    pub(crate) fn remember(&mut self, memory: &[u8]) {
        self.stop();
        std::fs::write(self.data.join("journal.jsonl"), memory).unwrap();
        self.restart();
    }

    /// What changed on the portal.
    pub(crate) fn changes(&self) -> Vec<Change> {
        changes(&self.data).unwrap()
    }

    /// The requests that the portal saw.
    pub(crate) fn requests(&self) -> Vec<SeenRequest> {
        self.emulator.requests()
    }

    /// Lets the portal work on what was sent so far, which a killed process may
    /// have left unread: a call that comes later waits for its turn.
    pub(crate) fn let_it_finish(&self) {
        let webhook = self.webhook(1);
        let path = webhook.trim_start_matches(&self.emulator.origin());
        let mut stream = std::net::TcpStream::connect(self.emulator.address()).unwrap();
        let request = format!("GET {path}server.time HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new()).unwrap();
    }

    /// The records of the audit, oldest first.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.state().join("audit/audit.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["b"].clone()).collect()
    }
}

impl World {
    /// The letters of the lines of every ledger record, one text a record.
    pub(crate) fn ledger_lines(&self) -> Vec<String> {
        let portals = std::fs::read_dir(self.state().join("portals")).unwrap().map(|entry| entry.unwrap().path().join("ledger"));
        let shards = portals.filter_map(|ledger| std::fs::read_dir(ledger).ok()).flatten();
        let files = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap());
        let records = files.filter(|file| file.as_ref().unwrap().file_name().len() == 62);
        let letter = |line: &str| serde_json::from_str::<Value>(line.split_once(' ').unwrap().1).unwrap()["t"].as_str().unwrap().to_owned();
        records.map(|record| std::fs::read_to_string(record.unwrap().path()).unwrap().lines().map(letter).collect()).collect()
    }
}

impl Outcome {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Outcome {
        let output = command.output().unwrap();
        Outcome {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command with a text on its standard input.
    pub(crate) fn with_stdin(command: &mut Command, text: &[u8]) -> Outcome {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let text = text.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&text));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join().unwrap();
        Outcome {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks that a trick was refused: the exit status, an error object that
    /// says so, nothing on standard output, and no request at the portal.
    pub(crate) fn refused(&self, world: &World, trick: &str, status: i32) -> Result<(), String> {
        let error: Value = serde_json::from_str(self.stderr.lines().last().unwrap_or_default()).unwrap_or_default();
        let requests = world.requests();
        let is_refused = self.status == status && error["outcome"] == "not_sent" && self.stdout.is_empty() && requests.is_empty();
        is_refused
            .then_some(())
            .ok_or_else(|| format!("{trick}: {} instead of {status}\n{}{}{requests:?}", self.status, self.stdout, self.stderr))
    }

    /// Asserts the exit status and returns the body that was printed.
    #[track_caller]
    pub(crate) fn body(self, status: i32) -> Value {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// Asserts the exit status and returns the error object: the last line of
    /// standard error.
    #[track_caller]
    pub(crate) fn error(self, status: i32) -> Value {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        let line = self.stderr.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {}", self.stderr));
        assert_eq!(error["schema"], "b24.error/1");
        assert_eq!(error["exit"], status);
        error
    }
}

fn memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let home = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    home.or_else(|_| tempfile::tempdir()).unwrap()
}

/// Starts an emulator on a data folder.
pub(crate) fn start(data: &Path, limits: Limits) -> Emulator {
    serve(data, limits, 0)
}

fn serve(data: &Path, limits: Limits, port: u16) -> Emulator {
    // An address that is taken again may be somebody else's for a moment.
    let deadline = Instant::now() + Duration::from_secs(60);
    let options = options(data, limits, port);
    loop {
        match Emulator::start(options.clone()) {
            Err(EmulatorError::Bind { .. }) if port != 0 && Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            started => return started.unwrap(),
        }
    }
}

fn options(data: &Path, limits: Limits, port: u16) -> Options {
    Options { data: data.to_owned(), port, limits, clock: Arc::new(SystemClock), random: Arc::new(SystemRandom), announce: true }
}

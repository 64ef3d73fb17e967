//! The table of locks: every guard, every way to loosen it, every way to reach
//! or to avoid the profile that locks it. Guards and ways come from
//! [`Guard`]; a way without a sample here ends the test.

use crate::home::can_live_elsewhere;
use crate::person::{Person, WRITE};
use crate::world::Outcome;
use b24::store::guard::Guard;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One attempt to loosen a guard.
struct Attempt {
    guard: Guard,
    name: String,
    args: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

/// What is run when nothing else is needed to see the guard at work.
fn usual() -> Vec<String> {
    WRITE.iter().map(|arg| (*arg).to_owned()).collect()
}

/// Every attempt, with each spelling that the program accepts.
fn attempts(person: &Person) -> Vec<Attempt> {
    let mut all = Vec::new();
    for guard in Guard::ALL {
        let mut add = |name: String, args: Vec<String>, variables: Vec<(&'static str, String)>| {
            all.push(Attempt { guard: *guard, name, args, variables });
        };
        for option in guard.options() {
            for base in commands_with(option) {
                let args = base.into_iter().chain(sample_option(option, person)).collect::<Vec<String>>();
                add(args.join(" "), args, needed(*guard));
            }
        }
        for variable in guard.variables() {
            for value in sample_values(variable, *guard, person) {
                let mut variables = needed(*guard);
                if (*guard, *variable) == (Guard::StateDir, "HOME") {
                    variables.push(("B24_CONFIG", person.config().display().to_string()));
                }
                variables.push((variable, value.clone()));
                add(format!("{variable}={value}"), usual(), variables);
            }
        }
        for command in guard.commands() {
            let args = match *command {
                "ledger forget" => vec!["ledger", "forget", "k", "--confirm-destructive"],
                "limits reset" => vec!["limits", "reset", "--confirm-write"],
                other => panic!("{other} has no sample"),
            };
            add((*command).to_owned(), args.into_iter().map(str::to_owned).collect(), Vec::new());
        }
    }
    all
}

/// A proxy is asked for portals elsewhere only; the OAuth server matters to an
/// application.
fn needed(guard: Guard) -> Vec<(&'static str, String)> {
    match guard {
        Guard::Proxy => vec![("B24_PROFILE", "far".to_owned()), ("B24_WEBHOOK_URL", "https://acme.example/rest/1/canary1234/".to_owned())],
        Guard::OauthUrl => vec![("OAUTH", String::new())],
        Guard::StateFile => vec![("OAUTH", String::new()), ("B24_OAUTH_URL", String::new())],
        _ => Vec::new(),
    }
}

fn commands_with(option: &str) -> Vec<Vec<String>> {
    let owned = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<String>>();
    let work = ["queue", "work", "--once", "--jsonl"];
    match option {
        "--packs" | "--method-allowlist" => {
            vec![usual(), owned(&["policy", "check", "user.current"]), owned(&["queue", "events"]), owned(&work)]
        }
        "--audit-file" => vec![usual(), owned(&work)],
        "--allow-unlisted" => vec![usual(), owned(&["policy", "check", "user.current"])],
        "--state-file" | "--dlq-file" => vec![owned(&work), owned(&["queue", "status"]), owned(&["queue", "dlq", "list"])],
        _ => vec![usual()],
    }
}

fn sample_option(option: &str, person: &Person) -> Vec<String> {
    let away = |name: &str| person.world.home.path().join(name).display().to_string();
    let value = match option {
        "--again"
        | "--allow-unknown-params"
        | "--allow-unlisted"
        | "--auto-key"
        | "--no-audit"
        | "--no-idempotency"
        | "--no-mask-secrets" => {
            return vec![option.to_owned()];
        }
        "--audit-file" | "--idempotency-file" | "--plan-file" | "--state-file" | "--dlq-file" => away("away-file"),
        "--config" => person.mine().display().to_string(),
        "--method-allowlist" => "*".to_owned(),
        "--packs" => "core,content".to_owned(),
        "--plan-ttl-sec" => "86400".to_owned(),
        other => panic!("{other} has no sample"),
    };
    vec![option.to_owned(), value]
}

fn sample_values(variable: &str, guard: Guard, person: &Person) -> Vec<String> {
    let home = person.world.home.path();
    let base = home.join("base-mine");
    let away = |name: &str| vec![home.join(name).display().to_string()];
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match (variable, guard) {
        ("B24_AUDIT_FILE", Guard::NoAudit) => words(&["", "  "]),
        ("B24_AUDIT_FILE" | "B24_IDEMPOTENCY_FILE" | "B24_PLAN_FILE" | "B24_RATE_LIMITER_FILE", _) => away("away-file"),
        ("B24_AUTO_KEY", _) => words(&["1", "true", "YES", " on "]),
        ("B24_CA_FILE" | "SSL_CERT_FILE" | "SSL_CERT_DIR", _) => words(&["/etc/ssl/certs/other.pem"]),
        ("B24_CONFIG", _) => vec![person.mine().display().to_string(), "mine".to_owned()],
        ("XDG_CONFIG_HOME", _) | ("HOME", Guard::Config) => vec![base.display().to_string()],
        ("HOME" | "XDG_STATE_HOME" | "B24_STATE_DIR", _) => away("away-state"),
        ("B24_METHOD_ALLOWLIST", _) => words(&["*", "disk.*"]),
        ("B24_PACKS", _) => words(&["core,content", "CONTENT"]),
        ("B24_OAUTH_URL", _) => vec!["https://evil.example".to_owned(), person.world.emulator.origin()],
        ("B24_PLAN_TTL_SEC", _) => words(&["86400", "1801"]),
        ("HTTPS_PROXY" | "https_proxy" | "ALL_PROXY" | "all_proxy", _) => words(&["http://127.0.0.1:9"]),
        ("B24_RATE_LIMITER", _) => words(&["off", "none", "noop", "OFF"]),
        ("B24_RATE_LIMITER_RATE", _) => words(&["50"]),
        ("B24_RATE_LIMITER_BURST", _) => words(&["250"]),
        (other, _) => panic!("{other} has no sample"),
    }
}

/// How the agent comes to its settings: what it calls, and whether that alone
/// leads to another configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carriage {
    /// As it is meant.
    Straight,
    /// The profile by its option.
    ProfileOption,
    /// The credential in the environment.
    EnvironmentCredential,
    /// The same, and no profile.
    NoProfile,
    /// Variables from a file.
    EnvFile,
    /// Another folder, with a profile of the same name.
    ConfigOption,
    ConfigVariable,
    ConfigXdg,
    ConfigHome,
    /// Another folder, whose credentials are the person's.
    Linked,
    HardLinked,
    Copied,
}

const CARRIAGES: &[Carriage] = &[
    Carriage::Straight,
    Carriage::ProfileOption,
    Carriage::EnvironmentCredential,
    Carriage::NoProfile,
    Carriage::EnvFile,
    Carriage::ConfigOption,
    Carriage::ConfigVariable,
    Carriage::ConfigXdg,
    Carriage::ConfigHome,
    Carriage::Linked,
    Carriage::HardLinked,
    Carriage::Copied,
];

impl Carriage {
    fn leads_elsewhere(self) -> bool {
        !matches!(
            self,
            Carriage::Straight | Carriage::ProfileOption | Carriage::EnvironmentCredential | Carriage::NoProfile | Carriage::EnvFile
        )
    }

    /// Returns the command, or nothing where way and carriage are the same.
    fn command(self, attempt: &Attempt, person: &Person) -> Option<Command> {
        if self.leads_elsewhere() && (attempt.guard == Guard::Config || attempt.variables.iter().any(|(name, _)| *name == "HOME")) {
            return None;
        }
        let mut args: Vec<&str> = attempt.args.iter().map(String::as_str).collect();
        let env_file = person.world.home.path().join("env");
        let in_file: Vec<&(&str, String)> = attempt.variables.iter().filter(|(name, _)| name.starts_with("B24_")).collect();
        if self == Carriage::EnvFile {
            if in_file.is_empty() {
                return None;
            }
            let lines: Vec<String> = in_file.iter().map(|(name, value)| format!("{name}={value}")).collect();
            crate::person::private(&env_file, &lines.join("\n"));
            args.extend(["--env-file", "env"]);
        }
        let mut command = person.command(&args);
        let takes_env = matches!(self, Carriage::EnvironmentCredential | Carriage::NoProfile)
            || (self.leads_elsewhere() && !matches!(self, Carriage::Linked | Carriage::HardLinked | Carriage::Copied));
        if takes_env {
            command.env("B24_WEBHOOK_URL", person.world.webhook(1));
        }
        self.lead(&mut command, person);
        let profile = attempt.variables.iter().any(|(name, _)| *name == "B24_PROFILE");
        for (name, value) in &attempt.variables {
            match *name {
                "OAUTH" => {
                    person.world.with_oauth(&mut command);
                    command.env_remove("B24_OAUTH_URL");
                }
                _ if self == Carriage::EnvFile && name.starts_with("B24_") => {}
                _ => drop(command.env(name, value).get_args()),
            }
        }
        match self {
            Carriage::NoProfile => drop(command.env_remove("B24_PROFILE").get_args()),
            Carriage::ProfileOption if !profile => drop(command.env_remove("B24_PROFILE").args(["--profile", "ag"]).get_args()),
            Carriage::EnvFile if profile => drop(command.env_remove("B24_PROFILE").get_args()),
            _ => {}
        }
        Some(command)
    }

    fn lead(self, command: &mut Command, person: &Person) {
        let way = match self {
            Carriage::ConfigOption | Carriage::Linked | Carriage::HardLinked | Carriage::Copied => 0,
            Carriage::ConfigVariable => 1,
            Carriage::ConfigXdg => 2,
            Carriage::ConfigHome => 3,
            _ => return,
        };
        let (mine, file) = (person.mine(), person.config().join("credentials.toml"));
        let own = mine.join("credentials.toml");
        let _ = std::fs::remove_file(&own);
        match self {
            Carriage::Linked => symlink(file, own).unwrap(),
            Carriage::HardLinked => std::fs::hard_link(file, own).unwrap(),
            Carriage::Copied => drop(std::fs::copy(file, own).unwrap()),
            _ => {}
        }
        person.ways_to(&mine)[way].1(command);
    }
}

/// A person whose profiles lock what is named; beside it the agent's folder
/// with the same profiles and no lock.
fn person(locks: &[Guard]) -> Person {
    let names: Vec<String> = locks.iter().map(|guard| format!("'{}'", guard.name())).collect();
    let person = Person::new("", "");
    for (folder, locks) in [(person.config(), names.join(",")), (person.mine(), String::new())] {
        person.write_profile(
            &folder,
            "ag",
            &format!("locked = [{locks}]\n[profiles.far]\nportal = 'acme.example'\nuser = 1\nlocked = [{locks}]"),
        );
    }
    person.ways_to(&person.mine());
    person
}

/// Every audit record of a world, wherever it was written.
fn audited(folder: &Path) -> Vec<Value> {
    let mut records = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let lines = text.lines().filter(|line| line.starts_with("{\"h\":"));
                records.extend(lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()).map(|line| line["b"].clone()));
            }
        }
    }
    records
}

/// What must not be there when a lock of a place holds.
fn places_elsewhere(person: &Person) -> Vec<PathBuf> {
    let home = person.world.home.path();
    ["away-state", "away-file", "away-file.d"].map(|name| home.join(name)).into_iter().filter(|path| path.exists()).collect()
}

#[test]
fn no_cell_of_the_table_is_looser_than_its_lock() {
    if !can_live_elsewhere() {
        return;
    }
    let all = person(Guard::ALL);
    // Under another folder everything would be refused because of the folder.
    let rest: Vec<Guard> = Guard::ALL.iter().copied().filter(|guard| *guard != Guard::Config).collect();
    let rest = person(&rest);
    let (mut refused, mut ignored, mut wrong) = (0, 0, Vec::new());
    for carriage in CARRIAGES {
        let person = if carriage.leads_elsewhere() { &rest } else { &all };
        for attempt in attempts(person) {
            let Some(command) = carriage.command(&attempt, person) else { continue };
            let cell = format!("{}: {} by {carriage:?}", attempt.guard, attempt.name);
            let before = person.world.requests().len();
            let outcome = person.run(&command);
            let sent = person.world.requests().len() - before;
            let away = places_elsewhere(person);
            // A folder that only the system's variables name is not followed.
            let is_ignored = attempt.guard == Guard::StateDir && !attempt.name.starts_with("B24_");
            let locks = format!("locks {}: ", attempt.guard);
            match outcome.status {
                3 if sent == 0 && away.is_empty() && (outcome.stderr.contains(&locks) || is_ignored) => refused += 1,
                0 | 9 if is_ignored && away.is_empty() => ignored += 1,
                status => wrong.push(format!("{cell}: {status}, {sent} sent, {away:?}\n{}{}", outcome.stdout, outcome.stderr)),
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells\n{}", wrong.len(), wrong.join("\n"));
    println!("{} cells: {refused} refused, {ignored} not followed", refused + ignored);
    assert!(refused + ignored > 500);
}

#[test]
fn what_is_looser_without_its_lock_is_named_in_the_audit() {
    if !can_live_elsewhere() {
        return;
    }
    let (mut count, mut wrong) = (0, Vec::new());
    let samples = attempts(&person(&[])).len();
    for index in 0..samples {
        let person = person(&[]);
        let attempt = attempts(&person).swap_remove(index);
        // These ask and change nothing, so there is nothing to audit.
        let is_question = ["policy check", "queue status", "queue dlq list"].iter().any(|start| attempt.name.starts_with(start));
        if is_question {
            continue;
        }
        if attempt.guard.commands().contains(&attempt.name.as_str()) {
            let key = ["--idempotency-key", "k"];
            assert_eq!(person.run(person.command(&WRITE).args(key)).status, 0);
        }
        // In the agent's folder there is no credential.
        let carriage = if attempt.guard == Guard::Config { Carriage::EnvironmentCredential } else { Carriage::Straight };
        let Some(mut command) = carriage.command(&attempt, &person) else { continue };
        if attempt.name.starts_with("queue") {
            person.world.with_oauth(&mut command);
        }
        let outcome = person.run(&command);
        let is_named =
            |record: &Value| record["loosened"].as_array().is_some_and(|names| names.contains(&Value::from(attempt.guard.name())));
        let records = audited(person.world.home.path());
        if records.iter().any(is_named) {
            count += 1;
        } else {
            let records: Vec<String> = records.iter().map(Value::to_string).collect();
            wrong.push(format!("{}: {}: {} {}\n{}", attempt.guard, attempt.name, outcome.status, outcome.stderr, records.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{count} ways are named in the audit");
}

/// Options that loosen nothing, and why.
const HARMLESS_OPTIONS: &[(&str, &str)] = &[
    ("--params", "what is asked for passes the gate"),
    ("--api", "what is asked for passes the gate"),
    ("--rest-v3", "what is asked for passes the gate"),
    ("--auth-connector", "a label of the change, which is part of it"),
    ("--dry-run", "sends nothing"),
    ("--curl", "sends nothing"),
    ("--meta", "says more"),
    ("--max-answer", "bounds the memory of this run; what is refused is not sent again"),
    ("--quiet", "says less to people; the audit and the exit stay"),
    ("--confirm-write", "consent itself"),
    ("--confirm-destructive", "consent itself"),
    ("--plan-only", "sends nothing"),
    ("--execute-plan", "a plan passes the gate again"),
    ("--require-plan", "tightens"),
    ("--list-packs", "asks"),
    ("--mask-secrets", "tightens"),
    ("--idempotency-key", "names the write; what is unknown blocks under every key"),
    ("--idempotency-ttl-sec", "says how long, where --auto-key is allowed"),
    ("--retry-failed", "what the portal refused was not executed"),
    ("--wait", "waits"),
    ("--timeout", "gives up sooner or later"),
    ("--max-wait", "gives up sooner or later"),
    ("--max-attempts", "can only lower"),
    ("--retry", "can only lower"),
    ("--rate", "can only lower; of listen and the emulator: a bound of their own"),
    ("--auto-refresh", "without effect"),
    ("--profile", "chooses; the rules of the others are in src/settings/rules.rs"),
    ("--env-file", "variables, which are judged each by itself"),
    ("--error-format", "form"),
    ("--help", "asks"),
    ("--exec", "the handler is the caller's own program"),
    ("--serve", "the handler is the caller's own program"),
    ("--jsonl", "the handler is the caller"),
    ("--concurrency", "of the handler"),
    ("--handler-timeout", "of the handler"),
    ("--max-retries", "of the handler"),
    ("--retry-delay", "of the handler"),
    ("--metrics-file", "numbers"),
    ("--source", "chooses an inbox of the same state"),
    ("--once", "ends sooner"),
    ("--until-empty", "ends sooner"),
    ("--sleep", "asks more or less often, under the rate limit"),
    ("--batch", "takes more or fewer at once"),
    ("--adopt-after", "takes over what nobody works on; handed over at least once in any case"),
    ("--mark-failed", "tightens: the portal keeps the event"),
    ("--application-token", "lets events in by another token, which the caller must know"),
    ("--port", "where to listen"),
    ("--address", "where to listen; events prove themselves by the token"),
    ("--path", "tightens"),
    ("--body-limit", "a bound of the receiver"),
    ("--burst", "a bound of the receiver"),
    ("--forward-to", "a handler on this machine, unless the caller allows its host"),
    ("--allow-host", "the handler is the caller's own; portals are refused"),
    ("--forward-token", "to this machine only"),
    ("--to", "a handler, never a portal"),
    ("--count", "of events to a handler"),
    ("--unlisted", "of events to a handler"),
    ("--handler", "a parameter of event.bind, which passes the gate"),
    ("--offline", "a parameter of event.bind, which passes the gate"),
    ("--auth-type", "a parameter of event.bind, which passes the gate"),
    ("--min-timeout", "a parameter of event.bind, which passes the gate"),
    ("--all", "which ones"),
    ("--reason", "a text for the audit"),
    ("--as", "for a person"),
    ("--lines", "asks"),
    ("--full", "asks"),
    ("--detailed-exitcode", "asks"),
];

/// Variables that loosen nothing, and why.
const HARMLESS_VARIABLES: &[(&str, &str)] = &[
    ("B24_PROFILE", "chooses; the rules of the others are in src/settings/rules.rs"),
    ("B24_REQUIRE_PLAN", "tightens"),
    ("B24_READ_ONLY", "tightens"),
    ("B24_IDEMPOTENCY_TTL_SEC", "says how long, where B24_AUTO_KEY is allowed"),
    ("B24_RATE_LIMITER_TTL_SEC", "without effect"),
    ("B24_TIMEOUT", "gives up sooner or later"),
    ("B24_MAX_WAIT", "gives up sooner or later"),
    ("B24_ERROR_FORMAT", "form"),
    ("B24_MAX_ANSWER", "bounds the memory of this run; what is refused is not sent again"),
    ("B24_EXIT_CODES", "form"),
    ("B24_AUTH_CONNECTOR", "a label of the change, which is part of it"),
    ("B24_ACTOR", "a name in the audit, beside the number of the user"),
    ("B24_APPLICATION_TOKEN", "lets events in by another token, which the caller must know"),
    ("CI", "form"),
    ("NO_COLOR", "form"),
    ("USER", "a name in the audit, beside the number of the user"),
];

/// The credential itself, and what betrays an agent.
fn is_harmless_by_kind(variable: &str) -> bool {
    const CREDENTIAL: &[&str] =
        &["B24_DOMAIN", "B24_AUTH_MODE", "B24_CLIENT_ID", "B24_WEBHOOK_", "B24_ACCESS_TOKEN", "B24_REFRESH_TOKEN", "B24_CLIENT_SECRET"];
    const AGENT: &[&str] = &["AGENT", "AI_AGENT", "CLAUDECODE", "CODEX_", "GEMINI_CLI", "CURSOR_AGENT", "OPENCODE", "OPENCLAW_SHELL"];
    CREDENTIAL.iter().chain(AGENT).any(|start| variable.starts_with(start))
}

#[test]
fn whatever_can_be_set_is_a_way_of_a_guard_or_harmless() {
    let variables: BTreeSet<&str> = Guard::ALL.iter().flat_map(|guard| guard.variables()).copied().collect();
    for name in b24::env::VARIABLES.iter().map(|variable| variable.name).chain(b24::env::FOREIGN.iter().copied()) {
        let is_harmless = HARMLESS_VARIABLES.iter().any(|(harmless, _)| *harmless == name) || is_harmless_by_kind(name);
        assert!(variables.contains(name) != is_harmless, "{name} is no way of a guard, or both");
    }
    let options: BTreeSet<&str> = Guard::ALL.iter().flat_map(|guard| guard.options()).copied().collect();
    let home = tempfile::tempdir().unwrap();
    let help = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_b24"));
        Outcome::of(command.args(args).arg("--help").env_clear().env("HOME", home.path())).stdout
    };
    let mut found = BTreeSet::new();
    for command in [
        &["call"][..],
        &["plan", "list"],
        &["plan", "execute"],
        &["plan", "cancel"],
        &["plan", "prune"],
        &["ledger", "list"],
        &["ledger", "resolve"],
        &["ledger", "forget"],
        &["audit", "tail"],
        &["audit", "verify"],
        &["limits"],
        &["policy", "check"],
        &["catalog", "diff"],
        &["queue", "work"],
        &["queue", "status"],
        &["queue", "dlq", "retry"],
        &["queue", "dlq", "drop"],
        &["queue", "bind"],
        &["queue", "unbind"],
        &["queue", "events"],
        &["listen"],
        &["trigger"],
    ] {
        let text = help(command);
        assert!(text.contains("--profile"), "{command:?}");
        found.extend(text.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2).map(|word| {
            word.trim_end_matches(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).split('=').next().unwrap_or_default().to_owned()
        }));
    }
    for option in &found {
        let is_harmless = HARMLESS_OPTIONS.iter().any(|(harmless, _)| harmless == option);
        assert!(options.contains(option.as_str()) != is_harmless, "{option} is no way of a guard, or both");
    }
    for option in &options {
        assert!(found.contains(*option), "{option} is an option of no command");
    }
    println!("{} options and {} variables looked at", found.len(), b24::env::VARIABLES.len() + b24::env::FOREIGN.len());
}

//! Files and variables that a user names: ours are never data (H13), only
//! regular ones of a fitting size are read (H14), none that others could change
//! is trusted (H16), and what is not text is not passed over (H17).

use crate::person::{Person, private};
use crate::world::{Outcome, World};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A portal, a profile `ag` with the credential of user 1 in its row, another
/// row, and the state in the home of the tests.
fn person() -> Person {
    let person = Person::new("", "[other]\nwebhook_code = 'canary-of-another-profile'");
    private(&person.config().join("app.env"), "B24_ACTOR=ann\n");
    person
}

fn command(person: &Person, args: &[&str]) -> Command {
    let mut command = person.command(args);
    command.env("B24_STATE_DIR", person.world.state());
    command
}

#[track_caller]
fn refused(person: &Person, trick: &str, kind: &str, command: &mut Command) {
    let before = person.world.requests().len();
    let outcome = Outcome::of(command);
    assert_eq!(person.world.requests().len(), before, "{trick}");
    assert!(outcome.stdout.is_empty(), "{trick}: {}", outcome.stdout);
    assert!(outcome.stderr.contains(&format!("\"kind\":\"{kind}\"")), "{trick}: {} {}", outcome.status, outcome.stderr);
}

/// The same file by every name that the system gives it.
fn names(person: &Person, file: &Path, number: usize) -> Vec<String> {
    let home = person.world.home.path();
    let (link, hard, folder) =
        (home.join(format!("link{number}")), home.join(format!("hard{number}")), home.join(format!("folder{number}")));
    symlink(file, &link).unwrap();
    std::fs::hard_link(file, &hard).unwrap();
    symlink(file.parent().unwrap(), &folder).unwrap();
    let relative = file.strip_prefix(home).unwrap();
    let parts = [file.parent().unwrap(), Path::new("."), Path::new(".."), file.parent().unwrap().file_name().unwrap().as_ref()];
    let winding: PathBuf = parts.iter().chain(&[file.file_name().unwrap().as_ref()]).collect();
    vec![
        file.display().to_string(),
        relative.display().to_string(),
        format!("./{}", relative.display()),
        winding.display().to_string(),
        link.display().to_string(),
        hard.display().to_string(),
        folder.join(file.file_name().unwrap()).display().to_string(),
        format!("/proc/self/cwd/{}", relative.display()),
        format!("/proc/self/root{}", file.display()),
    ]
}

/// Files of ours of every kind, made as far as they are not there.
fn files_of_ours(person: &Person) -> Vec<PathBuf> {
    // Makes state: a key, a record, a limit, a plan.
    assert_eq!(Outcome::of(&mut command(person, &["crm.lead.add", "fields[TITLE]=t", "--confirm-write"])).status, 0);
    assert_eq!(Outcome::of(&mut command(person, &["crm.lead.add", "fields[TITLE]=u", "--plan-only"])).status, 0);
    let state = person.world.state();
    let tokens = state.join("tokens");
    std::fs::create_dir_all(&tokens).unwrap();
    private(&tokens.join("00.json"), "{}");
    let secret = person.world.home.path().join("secret/code");
    std::fs::create_dir(secret.parent().unwrap()).unwrap();
    private(&secret, "word");
    let variables = person.world.home.path().join("secret/env");
    private(&variables, "B24_ACTOR=ann\n");
    let portal = person.world.home.path().join("portal");
    vec![
        person.config().join("config.toml"),
        person.config().join("credentials.toml"),
        person.config().join("app.env"),
        state.join("install.key"),
        state.join("audit/audit.jsonl"),
        tokens.join("00.json"),
        portal.join("webhook-url"),
        portal.join("oauth.json"),
        secret,
        variables,
    ]
}

#[test]
fn files_of_ours_are_never_values() {
    let person = person();
    let files = files_of_ours(&person);
    let portal = person.world.home.path().join("portal");
    let mut count = 0;
    for (number, file) in files.iter().enumerate() {
        assert!(file.exists(), "{}", file.display());
        for name in names(&person, file, number) {
            // What lies outside of our folders is told by its number alone,
            // where a variable names it; another name of the built-in portal's
            // files is any file.
            if file.starts_with(&portal) && name.contains("/hard") {
                continue;
            }
            for args in [
                vec!["crm.lead.list".to_owned(), format!("filter[TITLE]@{name}")],
                vec!["crm.lead.list".to_owned(), format!("filter:=@{name}")],
                vec!["crm.lead.list".to_owned(), "--params".to_owned(), format!("@{name}")],
                vec!["crm.lead.list".to_owned(), "--dry-run".to_owned(), format!("filter[TITLE]@{name}")],
                vec![
                    "trigger".to_owned(),
                    "ONCRMLEADADD".to_owned(),
                    format!("data[X]@{name}"),
                    "--to".to_owned(),
                    "http://127.0.0.1:9/".to_owned(),
                ],
            ] {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let mut command = command(&person, &args);
                command.env("B24_ACCESS_TOKEN_FILE", "secret/code").args(["--env-file", "secret/env"]);
                let before = person.world.requests().len();
                let outcome = Outcome::of(&mut command);
                let is_refused = outcome.status == 2 && outcome.stderr.contains("belongs to b24 or to the system");
                assert!(is_refused && outcome.stdout.is_empty(), "{args:?}: {} {}{}", outcome.status, outcome.stdout, outcome.stderr);
                assert_eq!(person.world.requests().len(), before, "{args:?}");
                count += 1;
            }
        }
    }
    for name in ["/proc/self/environ", "/proc/self/cmdline", "/proc/self/maps", "/sys/kernel/mm/transparent_hugepage/enabled"] {
        if Path::new(name).exists() {
            refused(&person, name, "credential_in_params", &mut command(&person, &["crm.lead.list", &format!("filter[TITLE]@{name}")]));
        }
    }
    // A file of one's own is a value, beside all that.
    std::fs::write(person.world.home.path().join("note.txt"), "note").unwrap();
    assert_eq!(Outcome::of(&mut command(&person, &["crm.lead.list", "filter[TITLE]@note.txt"])).status, 0);
    println!("{count} names of our files");
}

#[test]
fn the_secrets_of_every_profile_are_known() {
    let person = person();
    let tokens = person.world.state().join("tokens");
    std::fs::create_dir_all(&tokens).unwrap();
    let row = r#"{"v":1,"oauth":"o","client_id":"c","access_token":"canary-access","refresh_token":"canary-refresh","user_id":null,"member_id":null,"ancestors":[]}"#;
    private(&tokens.join("00.json"), row);
    for secret in ["canary-of-another-profile", "canary-access", "canary-refresh"] {
        for args in [
            vec!["crm.lead.list", "filter[TITLE]=SECRET"],
            vec!["crm.lead.add", "fields[TITLE]=SECRET", "--confirm-write"],
            vec!["crm.lead.list", "filter[TITLE]=SECRET", "--dry-run"],
            vec!["crm.lead.add", "fields[TITLE]=x", "--confirm-write", "--idempotency-key", "SECRET"],
        ] {
            let args: Vec<String> = args.into_iter().map(|arg| arg.replace("SECRET", secret)).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            refused(&person, &format!("{args:?}"), "credential_in_params", &mut command(&person, &args));
        }
    }
    // Nor is a code an application token that a handler elsewhere would get.
    private(&person.world.home.path().join("token"), &person.code());
    let args = ["trigger", "ONCRMLEADADD", "--to", "http://127.0.0.1:9/", "--application-token", "@token"];
    refused(&person, "a code as application token", "credential_in_params", &mut command(&person, &args));
}

/// Things that are no regular file; none of them may be waited for.
fn odd_files(home: &Path) -> Vec<String> {
    let pipe = home.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
    let socket = home.join("socket");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let folder = home.join("a-folder");
    std::fs::create_dir(&folder).unwrap();
    symlink(&pipe, home.join("link-to-pipe")).unwrap();
    let paths = [pipe, socket, folder, home.join("link-to-pipe")].map(|path| path.display().to_string());
    paths.into_iter().chain(["/dev/zero", "/dev/null", "/dev/tty", "/dev/stdin"].map(str::to_owned)).collect()
}

#[test]
fn pipes_devices_and_folders_are_refused_at_once() {
    let person = person();
    let mut count = 0;
    for (number, odd) in odd_files(person.world.home.path()).into_iter().enumerate() {
        let mut check = |what: &str, status: i32, args: &[&str], variables: &[(&str, &str)]| {
            let mut command = command(&person, args);
            command.envs(variables.iter().copied()).args(["--max-wait", "5"]);
            if what == "plain" {
                command.env_remove("B24_PROFILE");
            }
            let before = person.world.requests().len();
            let outcome = Outcome::of(&mut command);
            assert_eq!(outcome.status, status, "{what} {odd}: {}{}", outcome.stdout, outcome.stderr);
            assert_eq!(person.world.requests().len(), before, "{what} {odd}");
            count += 1;
        };
        check("value", 2, &["crm.lead.list", &format!("filter[TITLE]@{odd}")], &[]);
        check("json value", 2, &["crm.lead.list", &format!("filter:=@{odd}")], &[]);
        check("--params", 2, &["crm.lead.list", "--params", &format!("@{odd}")], &[]);
        check("--env-file", 12, &["crm.lead.list", "--env-file", &odd], &[]);
        check("plain", 12, &["crm.lead.list"], &[("B24_WEBHOOK_URL_FILE", &odd)]);
        let parts = [("B24_DOMAIN", "acme.example"), ("B24_WEBHOOK_USER_ID", "1"), ("B24_WEBHOOK_CODE_FILE", odd.as_str())];
        check("plain", 12, &["crm.lead.list"], &parts);
        check("--audit-file", 12, &["crm.lead.add", "fields[TITLE]=x", "--confirm-write", "--audit-file", &odd], &[]);
        check("B24_AUDIT_FILE", 12, &["crm.lead.add", "fields[TITLE]=x", "--confirm-write"], &[("B24_AUDIT_FILE", &odd)]);
        for name in ["config.toml", "credentials.toml"] {
            let folder = person.world.home.path().join(format!("odd-{number}-{name}"));
            person.write_profile(&folder, "ag", "");
            person.write_credentials(&folder, "");
            std::fs::remove_file(folder.join(name)).unwrap();
            symlink(&odd, folder.join(name)).unwrap();
            check(name, 12, &["crm.lead.list", "--config", &folder.display().to_string()], &[]);
        }
    }
    for odd in ["pipe", "a-folder", "socket"] {
        let odd = person.world.home.path().join(odd).display().to_string();
        let outcome = Outcome::of(&mut command(&person, &["queue", "dlq", "list", "--dlq-file", &odd]));
        assert_eq!(outcome.status, 12, "{odd}: {}{}", outcome.stdout, outcome.stderr);
        let mut token =
            command(&person, &["trigger", "ONCRMLEADADD", "--to", "http://127.0.0.1:9/", "--application-token", &format!("@{odd}")]);
        assert_eq!(Outcome::of(&mut token).status, 12, "{odd}");
        count += 2;
    }
    println!("{count} places of odd files");
}

#[test]
fn files_and_standard_input_have_a_limit() {
    let person = person();
    let large = person.world.home.path().join("large");
    // Holes cost nothing, and reading stops at the limit.
    std::fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    std::fs::set_permissions(&large, PermissionsExt::from_mode(0o600)).unwrap();
    let name = large.display().to_string();
    for (what, status, args) in [
        ("value", 2, vec!["crm.lead.list".to_owned(), format!("filter[TITLE]@{name}")]),
        ("params", 2, vec!["crm.lead.list".to_owned(), "--params".to_owned(), format!("@{name}")]),
        ("variables", 12, vec!["crm.lead.list".to_owned(), "--env-file".to_owned(), name.clone()]),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let error = Outcome::of(&mut command(&person, &args)).error(status);
        assert!(error["message"].as_str().unwrap().contains("larger than"), "{what}: {error}");
    }
    let endless = std::fs::File::open("/dev/zero").unwrap();
    let error = Outcome::of(command(&person, &["crm.lead.list", "--params", "-"]).stdin(endless)).error(2);
    assert!(error["message"].as_str().unwrap().contains("standard input is larger than"), "{error}");
    std::fs::copy(person.config().join("config.toml"), person.world.home.path().join("kept")).unwrap();
    std::fs::remove_file(person.config().join("config.toml")).unwrap();
    symlink(&large, person.config().join("config.toml")).unwrap();
    assert_eq!(Outcome::of(&mut command(&person, &["crm.lead.list"])).status, 12);
    assert!(person.world.requests().is_empty());
}

/// Makes the command that reads a file.
type Case = fn(&Person) -> Command;

#[test]
fn what_others_can_change_is_not_trusted() {
    let person = person();
    let home = person.world.home.path().to_owned();
    let secrets = home.join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    private(&secrets.join("url"), &person.world.webhook(1));
    private(&secrets.join("env"), "B24_ACTOR=ann\n");
    let by_profile: Case = |person| command(person, &["crm.lead.list"]);
    let by_file: Case = |person| {
        let mut command = command(person, &["crm.lead.list"]);
        command.env("B24_WEBHOOK_URL_FILE", "secrets/url");
        command
    };
    let by_env_file: Case = |person| command(person, &["crm.lead.list", "--env-file", "secrets/env"]);
    let config = person.config();
    let cases: [(Case, Vec<PathBuf>); 3] = [
        (by_profile, vec![config.join("config.toml"), config.clone(), home.join("person/.config"), home.join("person"), home.clone()]),
        (by_file, vec![secrets.join("url"), secrets.clone(), home.clone()]),
        (by_env_file, vec![secrets.join("env"), secrets.clone(), home.clone()]),
    ];
    let mut count = 0;
    for (command, paths) in cases {
        for path in &paths {
            let before = std::fs::metadata(path).unwrap().permissions();
            for open in [0o020, 0o002, 0o022] {
                std::fs::set_permissions(path, PermissionsExt::from_mode(before.mode() & 0o7777 | open)).unwrap();
                let error = Outcome::of(&mut command(&person)).error(12);
                let message = error["message"].as_str().unwrap();
                assert!(message.contains(&format!("{} can be", path.display())), "{open:o}: {message}");
                count += 1;
            }
            std::fs::set_permissions(path, before).unwrap();
            assert_eq!(Outcome::of(&mut command(&person)).status, 0);
        }
    }
    // A folder that keeps names in place by the sticky bit is no danger.
    std::fs::set_permissions(home.join("person"), PermissionsExt::from_mode(0o1777)).unwrap();
    assert_eq!(Outcome::of(&mut by_profile(&person)).status, 0);
    std::fs::set_permissions(home.join("person"), PermissionsExt::from_mode(0o755)).unwrap();
    // Through a link, both sides count.
    let away = home.join("away");
    std::fs::rename(person.config(), &away).unwrap();
    symlink(&away, person.config()).unwrap();
    std::fs::set_permissions(&away, PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(Outcome::of(&mut by_profile(&person)).status, 12);
    println!("{count} places that others could change");
}

#[test]
fn a_file_of_another_owner_is_not_trusted() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only the superuser gives files away");
        return;
    }
    let person = person();
    let config = person.config().join("config.toml");
    for path in [config.clone(), person.config(), person.config().join("credentials.toml")] {
        if std::os::unix::fs::chown(&path, Some(1234), None).is_err() {
            println!("skipped: this user namespace knows one user only");
            return;
        }
        assert_eq!(Outcome::of(&mut command(&person, &["crm.lead.list"])).status, 12, "{}", path.display());
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    }
    assert_eq!(Outcome::of(&mut command(&person, &["crm.lead.list"])).status, 0);
}

#[test]
fn what_is_not_utf8_is_not_passed_over() {
    let person = person();
    let world = &person.world;
    let bytes = OsStr::from_bytes(b"1\xff");
    let mut count = 0;
    let names = b24::env::VARIABLES.iter().map(|variable| variable.name);
    for name in names.chain(["HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "B24_UNHEARD_OF", "b24_read_only"]) {
        for args in [&["crm.lead.add", "fields[TITLE]=x", "--confirm-write"][..], &["crm.lead.list"], &["help", "env"]] {
            let error = Outcome::of(command(&person, args).env(name, bytes)).error(2);
            assert!(error["message"].as_str().unwrap().contains(name), "{error}");
            count += 1;
        }
    }
    // A shell, through which a run in another home goes, drops such a name.
    if crate::home::testers_configuration().is_none() {
        let odd_name = OsStr::from_bytes(b"B24_READ_ONLY\xff");
        assert_eq!(Outcome::of(command(&person, &["crm.lead.list"]).env(odd_name, "1")).status, 2);
    }
    // Others' variables are theirs; what betrays an agent is seen all the same.
    assert_eq!(Outcome::of(command(&person, &["crm.lead.list"]).env("LESS", bytes)).status, 0);
    for args in [
        &[b"crm.lead.list".as_slice(), b"filter[TITLE]=\xff"][..],
        &[b"crm.lead.list", b"--params", b"\xff"],
        &[b"crm.lead.list", b"--packs", b"core\xff"],
        &[b"--config", b"\xff", b"crm.lead.list"],
        &[b"crm.lead.add\xff"],
    ] {
        let before = world.requests().len();
        let mut command = command(&person, &[]);
        assert_eq!(Outcome::of(command.args(args.iter().map(|arg| OsStr::from_bytes(arg)))).error(2)["kind"], "usage");
        assert_eq!(world.requests().len(), before);
        count += 1;
    }
    println!("{count} values that are not UTF-8");
}

#[test]
fn a_folder_that_shares_nothing_needs_no_home() {
    // Without HOME the password database says where the user lives.
    let world = World::new();
    let mut command = world.command(&["crm.lead.list"]);
    command.env_remove("HOME");
    assert_eq!(Outcome::of(&mut command).status, 0);
}

//! No secret leaves b24 but in the request that needs it.

use crate::canary::{Canaries, assert_private};
use crate::world::{Outcome, World};
use b24::emulator::fault_kinds;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A secret that b24 does not know.
const FOREIGN: &str = "canary7f3e9b21c4";

fn config(world: &World, name: &str, text: &str) {
    let folder = world.home.path().join(".config/b24");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
    std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o600)).unwrap();
}

fn oauth(world: &World, args: &[&str]) -> Command {
    let mut command = world.command(args);
    world.with_oauth(&mut command);
    command
}

/// Looks at everything that b24 prints about its past.
fn look_back(canaries: &Canaries, world: &World) {
    for args in [
        &["audit", "tail", "-n", "500"][..],
        &["audit", "verify"],
        &["ledger", "list", "--all"],
        &["plan", "list"],
        &["limits"],
        &["help", "env"],
    ] {
        let outcome = canaries.run(world, &args.join(" "), &mut world.command(args));
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    }
    let records = world.run(&["ledger", "list", "--all"]).body(0);
    for record in records["records"].as_array().unwrap() {
        let _ = canaries.run(world, "ledger show", &mut world.command(&["ledger", "show", record["record"].as_str().unwrap()]));
    }
}

#[test]
fn success_prints_and_keeps_no_secret() {
    let world = World::new();
    let canaries = Canaries::of(&world);
    let batch = r#"{"cmd":["crm.lead.list",["crm.lead.add",{"fields":{"TITLE":"batch"}}]]}"#;
    for (number, extra) in [&[][..], &["--meta"], &["--error-format", "text"], &["--no-mask-secrets"], &["--quiet"]].iter().enumerate() {
        let title = format!("fields[TITLE]={number}");
        for args in [
            &["crm.lead.add", title.as_str(), "--confirm-write"][..],
            &["crm.lead.list"],
            &["batch", "--params", batch, "--confirm-write", "--again"],
            &["crm.lead.add", &title, "--plan-only"],
            &["crm.lead.add", &title, "--dry-run"],
            &["crm.lead.add", &title, "--curl"],
            &["tasks.task.list", "--api", "v3", "--dry-run"],
        ] {
            let args = [args, extra].concat();
            let _ = canaries.run(&world, &args.join(" "), &mut world.command(&args));
            let _ = canaries.run(&world, &format!("{} by OAuth", args.join(" ")), &mut oauth(&world, &args));
        }
    }
    look_back(&canaries, &world);
    assert!(world.requests().len() > 20);
}

#[test]
fn no_fault_of_the_portal_brings_a_secret_out() {
    // One of the two after which no answer comes is enough: each takes its time.
    let kinds = fault_kinds().iter().filter(|(kind, _)| *kind != "held-before").map(|(kind, _)| match *kind {
        kind @ ("slow" | "slow-before") => format!("{kind}:ms=1"),
        kind => kind.to_owned(),
    });
    for kind in kinds {
        let world = World::new();
        let canaries = Canaries::of(&world);
        let access = world.emulator.access();
        for (is_oauth, secret) in [(false, access.admin().code.expose()), (true, access.access_token.expose())] {
            // The echo stands where messages are cut, too.
            let echo = |padding| if kind == "error" { format!(":code={}{secret}", "x".repeat(padding)) } else { String::new() };
            for padding in [0, 50, 190] {
                world.emulator.clear_faults();
                world.fault(&format!("crm.lead.*:{kind}{}", echo(padding)));
                let title = format!("fields[TITLE]={is_oauth}{padding}");
                for args in [&["crm.lead.list"][..], &["crm.lead.add", &title, "--confirm-write"]] {
                    let timeout = if kind == "held" { "1" } else { "90" };
                    let args = [args, &["--retry", "none", "--max-wait", "0", "--timeout", timeout]].concat();
                    let mut command = if is_oauth { oauth(&world, &args) } else { world.command(&args) };
                    let _ = canaries.run(&world, &kind, &mut command);
                }
                if kind != "error" {
                    break;
                }
            }
        }
        look_back(&canaries, &world);
    }
}

#[test]
fn no_fault_of_the_authorization_server_brings_a_secret_out() {
    for (kind, _) in fault_kinds().iter().filter(|(kind, _)| *kind != "held-before") {
        let world = World::new();
        let canaries = Canaries::of(&world);
        world.fault("crm.lead.list:expired-token:times=1");
        let setting = if kind.starts_with("slow") { ":ms=1" } else { "" };
        let secret = world.emulator.access().client_secret.expose().to_owned();
        let echo = if *kind == "error" { format!(":code={}{secret}", "x".repeat(50)) } else { String::new() };
        world.fault(&format!("oauth.token:{kind}{setting}{echo}"));
        let timeout = if *kind == "held" { "1" } else { "90" };
        let _ = canaries.run(&world, kind, &mut oauth(&world, &["crm.lead.list", "--retry", "none", "--timeout", timeout]));
        look_back(&canaries, &world);
    }
}

#[test]
fn renewed_tokens_stay_in_the_token_store() {
    let world = World::new();
    world.fault("crm.lead.add:expired-token:times=1");
    let outcome = Outcome::of(&mut oauth(&world, &["crm.lead.add", "fields[TITLE]=x", "--confirm-write"]));
    assert_eq!(outcome.body(0)["result"], 1);
    let store = std::fs::read_dir(world.state().join("tokens")).unwrap().filter_map(Result::ok).map(|entry| entry.path());
    let file = store.filter(|path| path.extension().is_some_and(|kind| kind == "json")).collect::<Vec<_>>().pop().unwrap();
    let row: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let renewed = ["access_token", "refresh_token"].map(|name| row[name].as_str().unwrap().to_owned());
    assert_ne!(renewed[0], world.emulator.access().access_token.expose());
    let canaries = Canaries::new(renewed.iter().map(String::as_str));
    let _ = canaries.run(&world, "with renewed tokens", &mut oauth(&world, &["crm.lead.list"]));
    look_back(&canaries, &world);
    assert!(assert_private(&world.state()) > 5);
}

#[test]
fn a_secret_of_ours_is_not_repeated_wherever_it_is_typed() {
    let world = World::new();
    let code = world.emulator.access().admin().code.expose().to_owned();
    let canaries = Canaries::new([code.as_str()]);
    let (key, value, url) = (format!("fields[{code}]=x"), format!("fields[TITLE]={code}"), world.webhook(1) + "crm.lead.list");
    let command = format!(r#"{{"cmd":{{"{code}":"crm.lead.add?fields[TITLE]={code}"}}}}"#);
    let (auth, method, params) = (format!("auth={code}"), format!("crm.{code}.list"), format!("{{\"{code}\":1,\"{code}\":2}}"));
    let write = ["crm.lead.add", "--confirm-write"];
    for args in [
        &[code.as_str()][..],
        &[&method],
        &[&method, "--allow-unlisted", "--confirm-destructive"],
        &[&url],
        &["call", &code],
        &["crm.lead.list", &code],
        &["crm.lead.list", &auth],
        &["crm.lead.list", "--params", &code],
        &["crm.lead.list", "--params", &params],
        &["crm.lead.list", &value],
        &["crm.lead.list", &value, "--dry-run"],
        &["crm.lead.list", &key, "--curl"],
        &[&write[..], &[&value]].concat(),
        &[&write[..], &[&key]].concat(),
        &[&write[..], &["--idempotency-key", &code]].concat(),
        &["crm.lead.add", &value, "--plan-only"],
        &["batch", "--params", &command, "--confirm-write"],
        &["batch", "--params", &command, "--plan-only"],
        &["--execute-plan", &code],
        &["--profile", &code, "crm.lead.list"],
        &["crm.lead.list", "--packs", &code],
        &["crm.lead.list", "--method-allowlist", &code],
        &["plan", "show", &code],
        &["ledger", "show", &code],
        &["ledger", "forget", &code, "--confirm-destructive"],
        &["help", &code],
        &["packs", "show", &code],
        &["emulator", "serve", "--fault", &code],
    ] {
        let _ = canaries.run(&world, &args[0].replace(&code, "***"), &mut world.command(args));
    }
    let sent = world.requests().into_iter().find(|request| format!("{}{}", request.method, request.params).contains(&code));
    assert!(world.changes().is_empty() && sent.is_none(), "{sent:?}");
    look_back(&canaries, &world);
}

#[test]
fn a_secret_of_the_profile_is_not_taken_as_data() {
    let world = World::new();
    let code = world.emulator.access().admin().code.expose().to_owned();
    config(&world, "config.toml", &format!("[profiles.acme]\nportal = '{}'\nuser = 1\n", world.emulator.origin()));
    config(&world, "credentials.toml", &format!("[acme]\nwebhook_code = '{code}'\n"));
    let canaries = Canaries::new([code.as_str()]);
    let value = format!("fields[TITLE]=my code is {code}!");
    for extra in [&[][..], &["--plan-only"], &["--dry-run"], &["--curl"]] {
        let mut command = world.command(&[&["crm.lead.add", &value, "--confirm-write"], extra].concat());
        let outcome = canaries.run(&world, "profile", command.env_remove("B24_WEBHOOK_URL").env("B24_PROFILE", "acme"));
        assert_eq!(outcome.error(2)["kind"], "credential_in_params", "{extra:?}");
    }
    assert!(world.requests().is_empty());
}

#[test]
fn what_stands_in_the_place_of_a_secret_is_not_quoted() {
    let world = World::new();
    let canaries = Canaries::new([FOREIGN]);
    let (with_equals, url) = (format!("--webhook-code={FOREIGN}"), format!("https://acme.example/rest/1/{FOREIGN}/crm.lead.list"));
    let without_dots = format!("http://localhost/rest/1/{FOREIGN}/");
    let command = format!(r#"{{"cmd":{{"a":"{url}"}}}}"#);
    for args in [
        &["--webhook-code", FOREIGN, "crm.lead.list"][..],
        &[&with_equals, "crm.lead.list"],
        &["crm.lead.list", "--webhook-code", FOREIGN],
        &["crm.lead.list", &with_equals],
        &["--token", FOREIGN],
        &["-p", FOREIGN, "crm.lead.list"],
        &["crm.lead.list", "-p", FOREIGN],
        &[&url],
        &["call", &url],
        &[&without_dots],
        &["crm.lead.list", &url],
        &["crm.lead.list", FOREIGN],
        &["crm.lead.list", "--rate", FOREIGN],
        &["crm.lead.list", "--timeout", FOREIGN],
        &["crm.lead.list", "--api", FOREIGN],
        &["crm.lead.list", "--confirm-write=canary7f3e9b21c4"],
        &["crm.lead.list", "--params", FOREIGN],
        &["batch", "--params", &command],
        &["plan", FOREIGN],
        &["plan", "list", FOREIGN],
        &["ledger", FOREIGN],
        &["limits", FOREIGN],
    ] {
        for form in ["json", "text"] {
            let mut command = world.command(args);
            let outcome = canaries.run(&world, &args.join(" "), command.env("B24_ERROR_FORMAT", form));
            assert_eq!(outcome.status, 2, "{args:?}: {}", outcome.stderr);
        }
    }
    assert!(world.requests().is_empty());
}

#[test]
fn a_broken_configuration_is_not_quoted() {
    let world = World::new();
    let canaries = Canaries::new([FOREIGN]);
    let good = "[profiles.acme]\nportal = 'acme.example'\nuser = 1\n";
    for (settings, secrets) in [
        (good, "[acme]\nwebhook_code = canary7f3e9b21c4"),
        (good, "[acme]\ncanary7f3e9b21c4 = 1"),
        (good, "acme = 'canary7f3e9b21c4'"),
        (good, "[acme]\nwebhook_code = ['canary7f3e9b21c4']"),
        (good, "[acme]\nwebhook_code = 'canary7f3e9b21c4"),
        (good, "[acme]\nwebhook_code = 'canary7f3e9b21c4'\nwebhook_code = 'canary7f3e9b21c4'"),
        (good, "[acme]\nwebhook_code = 'canary7f3e9b21c4 x'"),
        ("[profiles.acme]\nuser = 'canary7f3e9b21c4'", ""),
        ("[profiles.acme]\nwebhook-code = 'canary7f3e9b21c4'", ""),
        ("[profiles.acme]\ncanary7f3e9b21c4 = 1", ""),
        ("profiles = 'canary7f3e9b21c4'", ""),
        ("[profiles.acme]\nportal = 'https://x:canary7f3e9b21c4@acme.example'", "[acme]\nwebhook_code = 'abcdefgh'"),
    ] {
        config(&world, "config.toml", settings);
        config(&world, "credentials.toml", secrets);
        let mut command = world.command(&["crm.lead.list", "--retry", "none", "--timeout", "1"]);
        let outcome = canaries.run(&world, secrets, command.env_remove("B24_WEBHOOK_URL").env("B24_PROFILE", "acme"));
        // A code that is none, a portal with a user in its address; all else is no configuration.
        let status = if secrets.ends_with(" x'") { 7 } else { 12 };
        let status = if settings.contains("https://x:") { 4 } else { status };
        assert_eq!(outcome.status, status, "{settings} {secrets}: {}", outcome.stderr);
    }
    config(&world, "env", "B24_WEBHOOK_CODE canary7f3e9b21c4");
    let outcome = canaries.run(&world, "--env-file", &mut world.command(&["crm.lead.list", "--env-file", ".config/b24/env"]));
    assert_eq!(outcome.status, 12);
}

#[test]
fn a_panic_says_nothing_of_what_was_in_memory() {
    for point in ["pipeline.after_intent", "ledger.after_claim", "ledger.after_dispatch", "transport.before_send", "transport.after_answer"]
    {
        let world = World::new();
        let canaries = Canaries::of(&world);
        for mut command in [world.command(&[]), oauth(&world, &[])] {
            let command = command.args(["crm.lead.add", "fields[TITLE]=x", "--confirm-write"]).env("B24_PANIC_POINT", point);
            let outcome = canaries.run(&world, point, command);
            assert!(outcome.stderr.contains("ran into a bug") || outcome.status == 8, "{point}: {}", outcome.stderr);
        }
        look_back(&canaries, &world);
    }
}

#[test]
fn the_process_list_shows_no_secret_and_the_state_is_private() {
    let world = World::new();
    world.fault("crm.lead.list:slow-before:ms=60000");
    let mut child = world.command(&["crm.lead.list"]).spawn().unwrap();
    while world.requests().is_empty() {
        std::thread::yield_now();
    }
    let line = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(String::from_utf8_lossy(&line).contains("crm.lead.list"));
    let code = world.emulator.access().admin().code.expose().to_owned();
    assert!(!String::from_utf8_lossy(&line).contains(&code));
    assert_private(&world.state());
}

//! What makes two writes the same: portal, user and key, not the spelling of
//! an address, the folder or the profile.

use crate::kept::{is_replay, made};
use crate::world::{Outcome, World};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const ARGS: [&str; 5] = ["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", "order-1"];

fn code(world: &World, user: u64) -> String {
    world.webhook(user).trim_end_matches('/').rsplit('/').next().unwrap().to_owned()
}

fn by_webhook(world: &World, url: &str) -> Command {
    let mut command = world.command(&ARGS);
    command.env("B24_WEBHOOK_URL", url);
    command
}

fn by_parts(world: &World, domain: &str, user: u64) -> Command {
    let mut command = world.command(&ARGS);
    command.env_remove("B24_WEBHOOK_URL").env("B24_DOMAIN", domain);
    command.env("B24_WEBHOOK_USER_ID", user.to_string()).env("B24_WEBHOOK_CODE", code(world, user));
    command
}

fn by_profile(world: &World, name: &str) -> Command {
    let mut command = world.command(&ARGS);
    command.env_remove("B24_WEBHOOK_URL").args(["--profile", name, "--config"]).arg(world.home.path().join("config"));
    command
}

/// Two profiles of user 1.
fn write_profiles(world: &World) {
    let folder = world.home.path().join("config");
    std::fs::create_dir(&folder).unwrap();
    let profile = |name: &str| format!("[profiles.{name}]\nportal = \"{}\"\nuser = 1\n", world.emulator.origin());
    std::fs::write(folder.join("config.toml"), profile("work") + &profile("spare")).unwrap();
    let secret = |name: &str| format!("[{name}]\nwebhook_code = \"{}\"\n", code(world, 1));
    let path = folder.join("credentials.toml");
    std::fs::write(&path, secret("work") + &secret("spare")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn one_user_of_one_portal_is_one_however_it_is_spelled() {
    let world = World::new();
    write_profiles(&world);
    let (port, code) = (world.emulator.address().port(), code(&world, 1));
    let mut elsewhere = by_webhook(&world, &world.webhook(1));
    elsewhere.current_dir("/");
    let commands = [
        by_webhook(&world, &world.webhook(1)),
        by_webhook(&world, &format!("http://127.0.0.1:{port}/rest/1/{code}")),
        by_webhook(&world, &format!("HTTP://127.0.0.1:{port}//rest/1/{code}")),
        by_webhook(&world, &format!("http://0x7f.1:{port}/rest/1/{code}/")),
        by_webhook(&world, &format!(" http://2130706433:0{port}/rest/1/{code}/crm.lead.add.json ")),
        by_parts(&world, &format!("http://127.0.0.1:{port}"), 1),
        by_parts(&world, &format!("http://127.1:{port}/"), 1),
        elsewhere,
        by_profile(&world, "work"),
        by_profile(&world, "spare"),
    ];
    let count = commands.len();
    for (number, mut command) in commands.into_iter().enumerate() {
        let outcome = Outcome::of(&mut command);
        assert_eq!(outcome.status, 0, "{number}: {}", outcome.stderr);
        assert_eq!(is_replay(&outcome), number > 0, "{number}");
    }
    assert_eq!(made(&world, "t"), 1);
    println!("{count} spellings are one identity");
}

#[test]
fn two_users_and_two_portals_are_two() {
    let (world, other) = (World::new(), World::new());
    let mut foreign = world.command(&ARGS);
    foreign.env("B24_WEBHOOK_URL", other.webhook(1));
    for mut command in [by_webhook(&world, &world.webhook(1)), by_webhook(&world, &world.webhook(2)), foreign] {
        let outcome = Outcome::of(&mut command);
        assert_eq!((outcome.status, is_replay(&outcome)), (0, false), "{}", outcome.stderr);
    }
    assert_eq!((made(&world, "t"), made(&other, "t")), (2, 1));
}

#[test]
fn an_unknown_outcome_of_one_user_does_not_stop_another() {
    let world = World::new();
    world.fault("crm.lead.add:execute-then-drop:times=1");
    assert_eq!(Outcome::of(&mut by_webhook(&world, &world.webhook(1))).status, 8);
    assert_eq!(Outcome::of(&mut by_webhook(&world, &world.webhook(2))).status, 0);
    assert_eq!(Outcome::of(&mut by_parts(&world, &world.emulator.origin(), 1)).status, 8);
    assert_eq!(made(&world, "t"), 2);
}

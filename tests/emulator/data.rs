//! The data folder: secrets, restarts, torn lines, several servers.

use crate::support::{JsonBody, World, client, get, options};
use b24::emulator::{ChangeKind, Emulator, changes};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn add(emulator: &Emulator, title: &str) -> Value {
    let url = format!("{}crm.lead.add", emulator.access().admin().url.expose());
    get(client().post(url).json_body(&json!({"fields": {"TITLE": title}}))).body["result"].clone()
}

fn title(emulator: &Emulator, id: u64) -> Value {
    let url = format!("{}crm.lead.get?id={id}", emulator.access().admin().url.expose());
    get(client().get(url)).body["result"]["TITLE"].clone()
}

#[test]
fn secrets_are_readable_by_their_owner_only() {
    let world = World::with(|options| options.announce = true);
    assert_eq!(mode(&world.data), 0o700);
    for name in ["journal.jsonl", "webhook-url", "oauth.json"] {
        assert_eq!(mode(&world.data.join(name)), 0o600, "{name}");
    }
    let url = std::fs::read_to_string(world.data.join("webhook-url")).unwrap();
    assert_eq!(url.trim(), world.emulator.access().admin().url.expose());
    let application: Value = serde_json::from_slice(&std::fs::read(world.data.join("oauth.json")).unwrap()).unwrap();
    assert_eq!(application["refresh_token"], world.emulator.access().refresh_token.expose());
    assert_eq!(std::fs::read_dir(&world.data).unwrap().count(), 3);
}

#[test]
fn without_announcing_there_is_only_the_journal() {
    let world = World::new();
    assert_eq!(std::fs::read_dir(&world.data).unwrap().count(), 1);
}

#[test]
fn a_restart_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let first = Emulator::start(options(folder.path())).unwrap();
    add(&first, "kept");
    let (id, url) = (first.data_id().to_owned(), first.access().admin().code.expose().to_owned());
    drop(first);
    let second = Emulator::start(options(folder.path())).unwrap();
    assert_eq!((second.data_id(), second.access().admin().code.expose()), (id.as_str(), url.as_str()));
    assert_eq!(title(&second, 1), "kept");
    assert_eq!(add(&second, "next"), 2);
}

#[test]
fn ids_of_deleted_objects_do_not_return() {
    let world = World::new();
    world.result("crm.lead.add", &json!({"fields": {}}));
    world.result("crm.lead.delete", &json!({"id": 1}));
    assert_eq!(world.result("crm.lead.add", &json!({"fields": {}})), 2);
}

#[test]
fn a_torn_line_is_cut_and_ignored() {
    let folder = tempfile::tempdir().unwrap();
    drop(Emulator::start(options(folder.path())).unwrap());
    let journal = folder.path().join("journal.jsonl");
    let tear = || std::fs::OpenOptions::new().append(true).open(&journal).unwrap().write_all(b"{\"change\":{\"seq\":1,\"at\"").unwrap();
    tear();
    let emulator = Emulator::start(options(folder.path())).unwrap();
    assert_eq!(add(&emulator, "one"), 1);
    tear();
    assert_eq!(changes(folder.path()).unwrap().len(), 1);
    assert_eq!(add(&emulator, "two"), 2);
    assert_eq!(changes(folder.path()).unwrap().len(), 2);
}

#[test]
fn two_servers_on_one_folder_are_one_portal() {
    let folder = tempfile::tempdir().unwrap();
    let servers: Vec<Emulator> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| Emulator::start(options(folder.path())).unwrap())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(servers.iter().all(|server| server.data_id() == servers[0].data_id()));
    assert_eq!(add(&servers[0], "seen by the other"), 1);
    assert_eq!(title(&servers[1], 1), "seen by the other");
    std::thread::scope(|scope| {
        for server in &servers {
            scope.spawn(move || (0..10).for_each(|_| assert!(add(server, "x").is_number())));
        }
    });
    let changes = changes(folder.path()).unwrap();
    assert_eq!(changes.iter().map(|change| change.id).collect::<Vec<_>>(), (1..=81).collect::<Vec<_>>());
    assert_eq!(changes.iter().map(|change| change.seq).collect::<Vec<_>>(), (1..=81).collect::<Vec<_>>());
}

#[test]
fn the_log_tells_every_change() {
    let world = World::new();
    get(world.client.post(world.url("crm.deal.add")).header("X-Request-ID", "r-1").json_body(&json!({"fields": {"TITLE": "a"}})));
    world.result("crm.deal.update", &json!({"id": 1, "fields": {"TITLE": "b"}}));
    world.result("crm.item.delete", &json!({"entityTypeId": 2, "id": 1}));
    let log = world.changes();
    let facts: Vec<_> =
        log.iter().map(|change| (change.kind, change.method.as_str(), change.entity.as_str(), change.id, change.user)).collect();
    assert_eq!(
        facts,
        [
            (ChangeKind::Add, "crm.deal.add", "deal", 1, 1),
            (ChangeKind::Update, "crm.deal.update", "deal", 1, 1),
            (ChangeKind::Delete, "crm.item.delete", "deal", 1, 1),
        ]
    );
    assert_eq!(log[0].request_id.as_deref(), Some("r-1"));
    assert_eq!((&log[0].fields["TITLE"], &log[1].fields["TITLE"]), (&json!("a"), &json!("b")));
    assert!(log[1].fields.get("STAGE_ID").is_none());
}

#[test]
fn a_read_writes_nothing() {
    let world = World::new();
    world.result("crm.lead.add", &json!({"fields": {}}));
    let length = || std::fs::metadata(world.data.join("journal.jsonl")).unwrap().len();
    let before = length();
    world.result("crm.lead.list", &json!({}));
    world.result("profile", &json!({}));
    assert_eq!(length(), before);
}

#[test]
fn every_user_acts_under_his_own_name() {
    let world = World::new();
    for webhook in &world.emulator.access().webhooks {
        get(world.client.post(format!("{}crm.lead.add", webhook.url.expose())).json_body(&json!({"fields": {}})));
    }
    let users: Vec<_> = world.changes().iter().map(|change| (change.user, change.fields["CREATED_BY_ID"].clone())).collect();
    assert_eq!(users, [(1, json!("1")), (2, json!("2")), (3, json!("3"))]);
}

#[test]
fn after_the_stop_nothing_is_executed() {
    let world = World::new();
    world.emulator.stop();
    world.emulator.wait();
    assert!(world.client.post(world.url("crm.lead.add")).json_body(&json!({"fields": {}})).send().is_err());
    assert!(world.changes().is_empty());
}

/// The folder that this test binary serves when it is started as a child.
const SERVED: &str = "B24_TEST_SERVED_FOLDER";

/// Nothing by itself: the other process of the next test.
#[test]
#[expect(clippy::disallowed_methods, reason = "the parent names the folder in the environment")]
fn child_that_serves_a_folder() {
    let Some(folder) = std::env::var_os(SERVED) else { return };
    let mut options = options(Path::new(&folder));
    options.announce = true;
    Emulator::start(options).unwrap().wait();
}

#[test]
fn what_a_killed_server_answered_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("webhook-url");
    for round in 1..=3 {
        let _ = std::fs::remove_file(&url);
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["data::child_that_serves_a_folder", "--exact"])
            .env(SERVED, folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while !url.exists() {
            std::thread::yield_now();
        }
        // This process serves the same folder at the same time.
        let here = Emulator::start(options(folder.path())).unwrap();
        let there = std::fs::read_to_string(&url).unwrap();
        let answered: Vec<u64> = std::thread::scope(|scope| {
            let adders: Vec<_> = (0..4).map(|_| scope.spawn(|| add_until_it_fails(there.trim()))).collect();
            while changes(folder.path()).unwrap().len() < round * 50 {
                add(&here, "here");
            }
            child.kill().unwrap();
            adders.into_iter().flat_map(|adder| adder.join().unwrap()).collect()
        });
        child.wait().unwrap();
        let last = add(&here, "after the kill").as_u64().unwrap();
        let logged: Vec<u64> = changes(folder.path()).unwrap().iter().map(|change| change.id).collect();
        assert_eq!(logged, (1..=last).collect::<Vec<_>>());
        assert!(answered.iter().all(|id| logged.contains(id)));
    }
}

fn add_until_it_fails(webhook: &str) -> Vec<u64> {
    let client = client();
    let request = || client.post(format!("{webhook}crm.lead.add")).json_body(&json!({"fields": {"TITLE": "there"}}));
    std::iter::from_fn(|| request().send().ok()?.text().ok())
        .map(|text| serde_json::from_str::<Value>(&text).unwrap()["result"].as_u64().unwrap())
        .collect()
}

//! Tokens and their rotation.

use crate::support::{Got, ManualClock, World, get};
use serde_json::json;
use std::time::Duration;

fn form(world: &World, changes: &[(&str, &str)]) -> String {
    let access = world.emulator.access();
    let mut fields = vec![
        ("grant_type", "refresh_token"),
        ("client_id", access.client_id.as_str()),
        ("client_secret", access.client_secret.expose()),
        ("refresh_token", access.refresh_token.expose()),
    ];
    for (name, value) in changes {
        fields.retain(|(known, _)| known != name);
        fields.push((name, value));
    }
    fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn refresh(world: &World, changes: &[(&str, &str)]) -> Got {
    let request = world.client.post(format!("{}/oauth/token/", world.emulator.origin()));
    get(request.header("Content-Type", "application/x-www-form-urlencoded").body(form(world, changes)))
}

fn profile(world: &World, token: &str) -> Got {
    get(world.client.get(format!("{}/rest/profile?auth={token}", world.emulator.origin())))
}

#[test]
fn a_token_works_in_query_body_and_header() {
    let world = World::new();
    let token = world.emulator.access().access_token.expose();
    let url = format!("{}/rest//profile", world.emulator.origin());
    assert_eq!(profile(&world, token).status, 200);
    assert_eq!(
        get(world.client.post(&url).header("Content-Type", "application/json").body(json!({"auth": token}).to_string())).status,
        200
    );
    assert_eq!(get(world.client.get(&url).bearer_auth(token)).status, 200);
    let v3 = format!("{}/rest/api/tasks.task.list", world.emulator.origin());
    assert_eq!(get(world.client.post(&v3).body(json!({"auth": token}).to_string())).status, 200);
    assert_eq!(get(world.client.get(&v3).bearer_auth(token)).status, 200);
}

#[test]
fn a_refresh_rotates_and_the_old_pair_is_dead() {
    let world = World::new();
    let old = world.emulator.access().access_token.expose();
    let got = refresh(&world, &[]);
    assert_eq!(got.status, 200);
    for name in ["expires", "expires_in", "scope", "client_endpoint", "server_endpoint", "domain", "member_id", "status", "user_id"] {
        assert!(got.body.get(name).is_some(), "{name}");
    }
    assert_eq!(got.body["client_endpoint"], format!("{}/rest/", world.emulator.origin()));
    assert_eq!(profile(&world, got.body["access_token"].as_str().unwrap()).status, 200);
    let dead = profile(&world, old);
    assert_eq!((dead.status, dead.body["error"].as_str()), (401, Some("expired_token")));
    let again = refresh(&world, &[]);
    assert_eq!((again.status, again.body["error"].as_str()), (400, Some("invalid_grant")));
    assert_eq!(refresh(&world, &[("refresh_token", got.body["refresh_token"].as_str().unwrap())]).status, 200);
}

#[test]
fn a_refresh_token_works_once_for_sixteen_at_a_time() {
    let world = World::new();
    let won = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| refresh(&world, &[]).status)).collect();
        threads.into_iter().filter_map(|thread| (thread.join().unwrap() == 200).then_some(())).count()
    });
    assert_eq!(won, 1);
}

#[test]
fn a_lenient_portal_lets_old_tokens_live() {
    let world = World::with(|options| options.limits.lenient_refresh = true);
    assert_eq!((refresh(&world, &[]).status, refresh(&world, &[]).status), (200, 200));
    assert_eq!(profile(&world, world.emulator.access().access_token.expose()).status, 200);
}

#[test]
fn an_access_token_expires() {
    let clock = ManualClock::new();
    let world = World::with(|options| {
        options.clock = clock.clone();
        options.limits.token_ttl_s = 60;
    });
    let token = world.emulator.access().access_token.expose();
    clock.advance(Duration::from_secs(59));
    assert_eq!(profile(&world, token).status, 200);
    clock.advance(Duration::from_secs(1));
    let got = profile(&world, token);
    assert_eq!((got.status, got.body["error"].as_str()), (401, Some("expired_token")));
    assert_eq!(refresh(&world, &[]).body["expires_in"], 60);
}

#[test]
fn wrong_refreshes_are_refused_as_documented() {
    let world = World::new();
    for (changes, status, error) in [
        ([("client_id", "app.unknown")], 200, "wrong_client"),
        ([("client_secret", "wrong")], 400, "invalid_client"),
        ([("refresh_token", "")], 400, "invalid_request"),
        ([("refresh_token", "unknown")], 400, "invalid_grant"),
        ([("grant_type", "password")], 400, "invalid_request"),
        ([("grant_type", "authorization_code")], 400, "invalid_grant"),
    ] {
        let got = refresh(&world, &changes);
        assert_eq!((got.status, got.body["error"].as_str()), (status, Some(error)));
    }
    assert_eq!(get(world.client.get(format!("{}/oauth/token/?{}", world.emulator.origin(), form(&world, &[])))).status, 200);
}

#[test]
fn a_fault_can_lose_the_answer_of_a_refresh() {
    let world = World::new();
    let send = || {
        let request = world.client.post(format!("{}/oauth/token/", world.emulator.origin()));
        request.header("Content-Type", "application/x-www-form-urlencoded").body(form(&world, &[])).send()
    };
    world.fault("oauth.token:drop-before-executing:times=1");
    assert!(send().is_err());
    world.fault("oauth.token:execute-then-drop:times=1");
    assert!(send().is_err());
    assert_eq!(refresh(&world, &[]).body["error"], "invalid_grant");
    world.fault("oauth.token:error:status=500:code=internal:times=1");
    assert_eq!(refresh(&world, &[]).status, 500);
    assert!(world.emulator.requests().iter().all(|request| request.method == "oauth.token" && request.params.is_null()));
}

#[test]
fn a_start_hands_out_a_pair_that_works() {
    let world = World::new();
    refresh(&world, &[]);
    let again = b24::emulator::Emulator::start(crate::support::options(&world.data)).unwrap();
    assert_ne!(again.access().refresh_token.expose(), world.emulator.access().refresh_token.expose());
    let got = refresh(&world, &[("refresh_token", again.access().refresh_token.expose())]);
    assert_eq!(got.status, 200);
}

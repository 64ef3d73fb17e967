//! The leaky bucket and the operating time, on a clock that stands still.

use crate::support::{ManualClock, World, options};
use b24::emulator::{Bucket, Emulator, Limits, Operating};
use serde_json::json;
use std::time::Duration;

#[test]
fn a_full_bucket_refuses_and_leaks() {
    let clock = ManualClock::new();
    let world = World::with(|options| {
        options.clock = clock.clone();
        options.limits.bucket = Some(Bucket { rate_per_s: 2.0, threshold: 3.0 });
    });
    let add = || world.post("crm.lead.add", &json!({"fields": {}}));
    let statuses: Vec<u16> = (0..5).map(|_| add().status).collect();
    assert_eq!(statuses, [200, 200, 200, 503, 503]);
    assert_eq!(add().body["error"], "QUERY_LIMIT_EXCEEDED");
    assert_eq!(world.changes().len(), 3);
    clock.advance(Duration::from_millis(500));
    assert_eq!((add().status, add().status), (200, 503));
}

#[test]
fn two_servers_share_the_bucket() {
    let clock = ManualClock::new();
    let world = World::with(|options| {
        options.clock = clock.clone();
        options.limits.bucket = Some(Bucket { rate_per_s: 2.0, threshold: 2.0 });
    });
    let mut other = options(&world.data);
    other.limits.bucket = Some(Bucket { rate_per_s: 2.0, threshold: 2.0 });
    other.clock = clock;
    let other = Emulator::start(other).unwrap();
    assert_eq!(world.post("profile", &json!({})).status, 200);
    let get = || world.client.get(format!("{}profile", other.access().admin().url.expose())).send().unwrap().status().as_u16();
    assert_eq!((get(), get()), (200, 503));
}

fn operating_world(clock: &std::sync::Arc<ManualClock>) -> World {
    World::with(|options| {
        options.clock = clock.clone();
        options.limits.operating = Some(Operating { limit_s: 0.3 });
    })
}

#[test]
fn used_up_operating_time_blocks_the_method_until_its_minute_is_released() {
    let clock = ManualClock::new();
    let world = operating_world(&clock);
    let first = world.post("profile", &json!({}));
    assert!((first.body["time"]["operating"].as_f64().unwrap() - 0.1).abs() < 1e-9);
    let reset_at = first.body["time"]["operating_reset_at"].as_i64().unwrap();
    assert_eq!(reset_at, 1_790_000_000 + 600);
    clock.advance(Duration::from_secs(120));
    let statuses: Vec<u16> = (0..3).map(|_| world.post("profile", &json!({})).status).collect();
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(world.post("profile", &json!({})).body["error"], "OPERATION_TIME_LIMIT");
    assert_eq!(world.post("server.time", &json!({})).status, 200);
    clock.advance(Duration::from_secs(480));
    assert_eq!(world.post("profile", &json!({})).status, 200);
}

#[test]
fn the_commands_of_a_batch_are_counted_and_the_batch_is_not() {
    let clock = ManualClock::new();
    let world = operating_world(&clock);
    let commands: Vec<&str> = vec!["profile"; 4];
    let got = world.post("batch", &json!({"cmd": commands}));
    assert!(got.body["time"].get("operating").is_none());
    assert_eq!(got.body["result"]["result_error"]["3"]["error"], "OPERATION_TIME_LIMIT");
    assert!((got.body["result"]["result_time"][2]["operating"].as_f64().unwrap() - 0.3).abs() < 1e-9);
    assert_eq!(world.post("batch", &json!({"cmd": ["server.time"]})).status, 200);
}

#[test]
fn the_cloud_has_both_limits() {
    let limits = Limits::cloud();
    assert!(limits.bucket.is_some_and(|bucket| bucket.threshold > 49.0));
    assert!(limits.operating.is_some_and(|operating| operating.limit_s > 479.0));
}

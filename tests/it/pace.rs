//! The rate that all processes of a machine share, judged by what arrives at
//! the portal.

use crate::world::{Outcome, World};
use b24::emulator::{Bucket, Limits, SeenRequest, SeenStatus};
use serde_json::{Value, json};
use std::process::Command;

/// How late a slot may still be used, in seconds.
const USE_BY_S: f64 = 0.25;

/// Workers that each make their calls one after the other, every call a
/// process.
#[derive(Clone, Copy)]
struct Crowd {
    workers: u32,
    calls: u32,
    rate: f64,
    burst: u32,
}

impl Crowd {
    /// A portal that refuses whoever breaks the promise of the limiter.
    fn portal(self) -> World {
        let threshold = f64::from(self.burst) + self.rate * USE_BY_S;
        World::with(Limits { bucket: Some(Bucket { rate_per_s: self.rate, threshold }), ..Limits::none() })
    }

    fn command(self, world: &World, args: &[&str]) -> Command {
        let mut command = world.command(args);
        command.env("B24_RATE_LIMITER_RATE", self.rate.to_string()).env("B24_RATE_LIMITER_BURST", self.burst.to_string());
        command
    }

    fn limits(self, world: &World) -> Value {
        Outcome::of(&mut self.command(world, &["limits"])).body(0)["rate_limit"].clone()
    }

    /// Rests until the whole burst may leave at once.
    fn rest(self, world: &World) {
        let _ = Outcome::of(&mut self.command(world, &["limits", "reset", "--confirm-write"])).body(0);
        while self.limits(world)["tokens"] != json!(self.burst) {}
    }

    fn run(self, world: &World) {
        std::thread::scope(|scope| {
            for worker in 0..self.workers {
                scope.spawn(move || {
                    for _ in 0..self.calls {
                        let _ = Outcome::of(&mut self.command(world, &["crm.lead.list", &format!("filter[ID]={worker}")])).body(0);
                    }
                });
            }
        });
    }

    /// Asserts that in no window more arrived than the promise allows.
    fn assert_bound(self, world: &World) {
        let arrivals = arrivals(world);
        assert_eq!(arrivals.len(), (self.workers * self.calls) as usize);
        for (first, &from) in arrivals.iter().enumerate() {
            for (count, &to) in (1_u32..).zip(&arrivals[first..]) {
                let allowed = f64::from(self.burst) + self.rate * (seconds(from, to) + USE_BY_S);
                assert!(f64::from(count) <= allowed, "{count} requests within {:.3} s", seconds(from, to));
            }
        }
        assert!(world.requests().iter().all(|request| request.status == SeenStatus::Answered(200)));
    }

    /// Prints how long it took, beside the time that the rate makes necessary.
    #[expect(clippy::print_stdout, reason = "a figure that depends on the machine is told, not judged")]
    fn report(self, world: &World, at_once: u32) {
        let arrivals = arrivals(world);
        let ideal = f64::from(self.workers * self.calls - at_once) / self.rate;
        let took = seconds(arrivals[0], arrivals[arrivals.len() - 1]);
        let over = (took / ideal - 1.0) * 100.0;
        let Crowd { workers, calls, rate, burst } = self;
        println!("{workers} x {calls} calls at {rate}/s, burst {burst}: {took:.2} s, ideal {ideal:.2} s, {over:+.1} %");
    }

    /// The calls that each worker had made when the first one had made all of
    /// its own: the most and the least.
    fn spread(self, world: &World) -> (u32, u32) {
        let mut made = vec![0; self.workers as usize];
        for request in sorted(world) {
            let worker: usize = request.params["filter"]["ID"].as_str().unwrap().parse().unwrap();
            made[worker] += 1;
            if made[worker] == self.calls {
                break;
            }
        }
        (made.iter().copied().max().unwrap(), made.iter().copied().min().unwrap())
    }
}

fn sorted(world: &World) -> Vec<SeenRequest> {
    let mut requests = world.requests();
    requests.sort_by_key(|request| request.boot_ns);
    requests
}

/// The instants of arrival in order.
fn arrivals(world: &World) -> Vec<u64> {
    sorted(world).iter().map(|request| request.boot_ns).collect()
}

fn seconds(from: u64, to: u64) -> f64 {
    std::time::Duration::from_nanos(to - from).as_secs_f64()
}

#[expect(clippy::disallowed_methods, reason = "the switch of the long tests is an environment variable")]
fn is_long() -> bool {
    std::env::var_os("B24_LONG_TESTS").is_some()
}

#[test]
fn sixteen_processes_share_the_rate_of_a_small_plan() {
    let crowd = Crowd { workers: 16, calls: if is_long() { 10 } else { 2 }, rate: 2.0, burst: 10 };
    let world = crowd.portal();
    crowd.run(&world);
    crowd.assert_bound(&world);
    // An unknown bucket counts as empty: one request leaves at once.
    crowd.report(&world, 1);
    let (most, least) = crowd.spread(&world);
    println!("slots of a worker: {least} to {most}");
    if is_long() {
        assert!(f64::from(most) <= 1.2 * f64::from(least), "{least} to {most}");
    }
}

#[test]
fn sixteen_processes_share_a_burst_and_the_fastest_rate() {
    let crowd = Crowd { workers: 16, calls: 10, rate: 50.0, burst: 10 };
    let world = crowd.portal();
    crowd.rest(&world);
    crowd.run(&world);
    crowd.assert_bound(&world);
    crowd.report(&world, crowd.burst);
}

#[test]
fn a_write_that_the_portal_is_too_busy_for_is_sent_again_and_exists_once() {
    let world = World::new();
    world.fault("crm.lead.add:query-limit:times=1");
    let _ = world.run(&["crm.lead.add", "fields[TITLE]=Acme", "--confirm-write"]).body(0);
    assert_eq!((world.changes().len(), world.ledger_lines()), (1, vec!["CDNDS".to_owned()]));
    let arrivals = arrivals(&world);
    assert_eq!(arrivals.len(), 2);
    assert!(seconds(arrivals[0], arrivals[1]) >= 1.0, "the penalty did not hold the second attempt back");
    let limits = world.run(&["limits"]).body(0)["rate_limit"].clone();
    assert_eq!((&limits["penalties"], &limits["effective_rate"]), (&json!(1), &json!(40.0)));
}

#[test]
fn a_portal_that_stays_too_busy_ends_the_attempts() {
    let world = World::new();
    world.fault("crm.lead.add:query-limit");
    let error = world.run(&["crm.lead.add", "fields[TITLE]=Acme", "--confirm-write", "--max-attempts", "2"]).error(7);
    assert_eq!((&error["kind"], &error["outcome"]), (&json!("rate_limited"), &json!("not_applied")));
    assert_eq!((world.requests().len(), world.ledger_lines()), (2, vec!["CDNDN".to_owned()]));
}

#[test]
fn without_patience_nothing_is_sent_and_the_wait_is_told() {
    let slow = Crowd { workers: 1, calls: 1, rate: 0.01, burst: 1 };
    let world = World::new();
    let _ = Outcome::of(&mut slow.command(&world, &["user.current"])).body(0);
    for args in [&["user.current", "--max-wait", "0"][..], &["crm.lead.add", "fields[TITLE]=Acme", "--confirm-write", "--max-wait", "0"]] {
        let error = Outcome::of(&mut slow.command(&world, args)).error(7);
        assert_eq!((&error["kind"], &error["sent"], &error["retry"]["safe"]), (&json!("rate_limited"), &json!(false), &json!(true)));
        assert!((1..=100_000).contains(&error["retry"]["after_ms"].as_u64().unwrap()), "{error}");
    }
    assert_eq!((world.requests().len(), world.ledger_lines()), (1, vec!["CN".to_owned()]));
}

#[test]
fn a_switched_off_limiter_is_named_in_the_audit() {
    let slow = Crowd { workers: 1, calls: 1, rate: 0.01, burst: 1 };
    let world = World::new();
    for _ in 0..3 {
        let _ = Outcome::of(slow.command(&world, &["user.current", "--max-wait", "0"]).env("B24_RATE_LIMITER", "off")).body(0);
    }
    let is_named = |record: &Value| record["loosened"].as_array().is_some_and(|names| names.contains(&json!("rate-limiter")));
    assert!(world.audit().iter().all(is_named), "{:?}", world.audit());
    let limits = Outcome::of(world.command(&["limits"]).env("B24_RATE_LIMITER", "off")).body(0);
    assert_eq!(limits["rate_limit"], Value::Null);
}

#[test]
fn limits_are_shown_and_a_reset_forgets_penalties_but_grants_no_burst() {
    let crowd = Crowd { workers: 1, calls: 1, rate: 0.01, burst: 10 };
    let world = World::new();
    let fresh = crowd.limits(&world);
    assert_eq!((&fresh["rate"], &fresh["burst"], &fresh["penalties"]), (&json!(0.01), &json!(10), &json!(0)));
    world.fault("user.current:query-limit:times=1");
    let _ = Outcome::of(&mut crowd.command(&world, &["user.current", "--max-attempts", "1"])).error(7);
    let punished = crowd.limits(&world);
    assert_eq!((&punished["penalties"], &punished["tokens"]), (&json!(1), &json!(0)));
    assert!(punished["next_free_ms"].as_u64().unwrap() > 0);
    let reset = Outcome::of(&mut crowd.command(&world, &["limits", "reset", "--confirm-write"])).body(0)["rate_limit"].clone();
    assert_eq!((&reset["penalties"], &reset["effective_rate"]), (&json!(0), &reset["rate"]));
    assert!(reset["tokens"].as_u64().unwrap() <= 1, "{reset}");
    assert_eq!(world.requests().len(), 1);
}

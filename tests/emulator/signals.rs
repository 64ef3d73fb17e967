//! How a handler hears that the offline queue has rows.

use crate::handler::Handler;
use crate::support::{ManualClock, World};
use b24::emulator::Raised;
use serde_json::{Value, json};
use std::time::Duration;

const UPDATE: &str = "ONCRMDEALUPDATE";

fn deal(id: u64) -> Value {
    json!({"FIELDS": {"ID": id.to_string()}})
}

#[test]
fn a_handler_hears_that_the_queue_has_rows() {
    let clock = ManualClock::new();
    let world = World::with(|options| options.clock = clock.clone());
    let (patient, eager, other) = (Handler::new(), Handler::new(), Handler::new());
    let bind = |handler: &Handler, more: Value| {
        let mut body = json!({"event": "onOfflineEvent", "handler": handler.url});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.app("event.bind", &body);
    };
    bind(&patient, json!({"options": {"minTimeout": 60}}));
    bind(&eager, json!({"options": {"minTimeout": "0"}}));
    bind(&other, json!({"auth_connector": "elsewhere"}));
    world.bind_offline(UPDATE);
    assert_eq!(world.emulator.raise(UPDATE, deal(1)).unwrap(), Raised { queued: 1, deliveries: 2 });
    assert_eq!(world.emulator.raise(UPDATE, deal(1)).unwrap(), Raised { queued: 1, deliveries: 1 });
    clock.advance(Duration::from_secs(60));
    assert_eq!(world.emulator.raise(UPDATE, deal(2)).unwrap(), Raised { queued: 1, deliveries: 2 });
    assert_eq!(world.emulator.raise("ONCRMLEADADD", deal(2)).unwrap(), Raised { queued: 0, deliveries: 0 });
    let event = patient.next();
    assert_eq!((event.field("event"), event.field("event_handler_id")), ("ONOFFLINEEVENT", "1"));
    assert!(!event.fields.keys().any(|name| name.starts_with("data")));
    assert!(event.field("auth[refresh_token]").len() > 20);
    assert_eq!(world.call_with(event.field("auth[access_token]"), "event.offline.list", &json!({})).body["total"], 2);
    // Its refresh token is not that of the client.
    let access = world.emulator.access();
    assert_ne!(event.field("auth[refresh_token]"), access.refresh_token.expose());
    world.emulator.stop();
    assert_eq!((patient.come().len(), eager.come().len(), other.come().len()), (1, 3, 0));
}

#[test]
fn one_request_is_one_signal() {
    let world = World::new();
    let eager = Handler::new();
    world.app("event.bind", &json!({"event": "ONOFFLINEEVENT", "handler": eager.url, "options": {"minTimeout": 0}}));
    world.bind_offline("ONCRMLEADADD");
    world.result("batch", &json!({"cmd": ["crm.lead.add?fields[TITLE]=a", "crm.lead.add?fields[TITLE]=b"]}));
    world.emulator.stop();
    assert_eq!(eager.come().len(), 1);
}

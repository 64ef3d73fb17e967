//! The emulated portal, through real HTTP.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

#[path = "emulator/batch.rs"]
mod batch;
#[path = "emulator/data.rs"]
mod data;
#[path = "emulator/events.rs"]
mod events;
#[path = "emulator/faults.rs"]
mod faults;
#[path = "emulator/handler.rs"]
mod handler;
#[path = "emulator/http.rs"]
mod http;
#[path = "emulator/limits.rs"]
mod limits;
#[path = "emulator/lists.rs"]
mod lists;
#[path = "emulator/methods.rs"]
mod methods;
#[path = "emulator/oauth.rs"]
mod oauth;
#[path = "emulator/offline.rs"]
mod offline;
#[path = "emulator/online.rs"]
mod online;
#[path = "emulator/signals.rs"]
mod signals;
#[path = "emulator/support.rs"]
mod support;
#[path = "emulator/v3.rs"]
mod v3;

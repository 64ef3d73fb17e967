//! Tests of the whole program against the emulator.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod bypass; // tricks against the gate, by the call itself
mod bypass_setup; // by profile, environment and files
mod call; // what one call does, for its user
mod canary; // looks for secrets where none may be
mod gate_property; // what holds for every method and spelling
mod plan_tricks; // tricks with saved plans
mod plans; // saved plans: what they say is sent, once
mod secrets; // no secret comes out
mod secrets_wire; // nor from portals that are not there or repeat it
mod world; // the harness

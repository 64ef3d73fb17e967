//! Tests of the whole program against the emulator.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod call; // what one call does, for its user
mod oauth; // one refresh for everybody, and no pair lost
mod pace; // the rate that all processes share
mod world; // the harness

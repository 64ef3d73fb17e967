//! Tests of the whole program against the emulator.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::disallowed_methods, reason = "tests read their own switches and measure their own waits")]

mod call; // what one call does, for its user
mod catalog; // the embedded facts are current
mod readme; // every command of the README runs
mod tidy; // rules about the source
mod world; // the harness

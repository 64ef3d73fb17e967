//! Tests of the whole program against the emulator.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::disallowed_methods, reason = "tests read their own switches and measure their own waits")]
#![allow(clippy::print_stdout, reason = "a campaign says what it counted")]

mod call; // what one call does, for its user
mod catalog; // the embedded facts are current
mod crashes; // kill -9 at every point and any moment
mod disk; // full, broken and foreign disks
mod faults; // every fault of the portal
mod identity; // what makes two writes the same
mod kept; // what must hold after everything
mod once; // many processes, one write
mod readme; // every command of the README runs
mod tidy; // rules about the source
mod world; // the harness

//! Tests of the whole program against the emulator.

mod call; // what one call does, for its user
mod world; // the harness

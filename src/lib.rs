//! The map.

pub mod call;
pub mod catalog;
pub mod cli;
pub mod crash;
pub mod credential;
pub mod emulator;
pub mod env;
pub mod error;
pub mod gate;
pub mod host;
pub mod ids;
pub mod interrupt;
pub mod json;
pub mod method;
pub mod output;
pub mod packs;
pub mod pipeline;
pub mod query_string;
pub mod risk;
pub mod secret;
pub mod session;
pub mod settings;
pub mod store;
pub mod wire;

use error::Failure;
use host::Host;
use std::ffi::OsString;

/// The whole program: runs one command and returns its exit status.
pub fn run(args: Vec<OsString>, host: &mut Host) -> u8 {
    cli::run(args, host)
}

/// Prints that b24 itself failed and returns the exit status.
pub fn report_bug(host: &mut Host, failure: &Failure) -> u8 {
    let failure = interrupt::with_under_way(failure.clone());
    output::fail(host, &failure, output::ErrorFormat::Json, &secret::Redactor::default())
}

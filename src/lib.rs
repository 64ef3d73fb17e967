//! The map.

pub mod crash;
pub mod emulator;
pub mod env;
pub mod error;
pub mod host;
pub mod ids;
pub mod json;
pub mod method;
pub mod secret;
pub mod store;

//! The map.

pub mod call;
pub mod catalog;
pub mod crash;
pub mod env;
pub mod error;
pub mod host;
pub mod ids;
pub mod json;
pub mod method;
pub mod packs;
pub mod query_string;
pub mod risk;
pub mod secret;
pub mod store;

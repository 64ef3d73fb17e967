//! The only HTTP that b24 speaks.

pub mod answer;
pub mod auth;
pub mod batch_answer;
mod client;
pub mod deliver;
pub mod judge;
pub mod retry;
pub mod target;
pub mod transport;

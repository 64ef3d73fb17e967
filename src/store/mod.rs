//! Durable state.

pub mod limiter;
pub mod locked;

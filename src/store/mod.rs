//! Durable state.

pub mod locked;

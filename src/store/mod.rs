//! Durable state.

pub mod audit;
pub mod limiter;
pub mod locked;
pub mod operating;
pub mod retry_budget;

//! The endpoints: they read requests, ask the broker, and answer.

pub mod access;
pub mod admin;
pub mod cors;
pub mod counts;
pub mod forwarded;
pub mod idempotency;
pub mod metrics;
pub mod page;
pub mod publish;
pub mod query;
pub mod reply;
pub mod routes;
pub mod stats;
pub mod subscribe;

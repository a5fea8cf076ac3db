//! Fanfare, a broker for Server-Sent Events.
pub mod app;
pub mod broker;
pub mod clock;
pub mod config;
pub mod event;
pub mod fanout;
pub mod frame;
pub mod http;
pub mod log;
pub mod server;

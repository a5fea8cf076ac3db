//! Fanfare, a broker for Server-Sent Events.
pub mod clock;
pub mod event;
pub mod fanout;
pub mod frame;
pub mod log;

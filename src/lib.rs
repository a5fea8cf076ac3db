//! Fanfare, a broker for Server-Sent Events: services publish by HTTP POST, browsers listen with `EventSource`.
//!
//! # The life of an event
//!
//! ```text
//! service ──POST──▶ http::publish ─▶ event ─▶ frame ─▶ log ────────▶ index           (tokio + hyper)
//!                   read, bounded   checked  encoded  numbered      topic → history
//!                                            once     in one order          and listeners
//!                                                       │ wakes a shard, at most once until it has read
//!                                       ┌───────────────┼───────────────┐
//!                                     shard 0         shard 1         shard n        (one thread each)
//!                                       │ reads the log from its own cursor, in order
//!                                       │ audience: streams that asked for the same thing
//!                                       ▼
//!                                  one write per stream: all that piled up for it
//! browser ──GET──▶ http::subscribe: read by hyper, then the socket moves to a shard
//! ```
//!
//! Follow it by opening the files in this order:
//!
//! | file | question it answers |
//! |---|---|
//! | `main.rs`, `app.rs`, `config.rs` | What runs, in which order does it start and stop, and what can be set? |
//! | `server/mod.rs`, `socket.rs` | How does a connection come in, and with which options? |
//! | `server/tls/mod.rs`, `certificate.rs`, `handshake.rs` | How does it come in encrypted, and as whom? |
//! | `server/service.rs` | Which endpoint does a request go to? |
//! | `http/cors.rs`, `client.rs` | Which pages may ask, and from which address does a request come? |
//! | `auth/mod.rs`, `auth/keys/mod.rs`, `limit/mod.rs` | Who asks, what may they do, and how much of it? |
//! | `http/publish.rs`, `event.rs` | What is an event, and what is refused? |
//! | `http/idempotency.rs` | How is it published once, however often it is sent? |
//! | `frame.rs` | What bytes does it become? |
//! | `auth/mod.rs`, `token.rs`, `signature.rs`, `claims.rs` | Who asks, how is it proved, and what may they do? |
//! | `auth/jwks.rs`, `fetch.rs` | How are an issuer's keys kept fresh? |
//! | `broker.rs` | What are the two things one can ask: publish, subscribe? |
//! | `log/mod.rs`, `order.rs`, `topic.rs` | What is kept, for how long, and how is it found again? |
//! | `http/subscribe.rs`, `server/connection.rs` | How does a request become a stream? |
//! | `fanout/mod.rs`, `latch.rs` | How does a shard learn that there is more to read? |
//! | `fanout/shard/mod.rs`, `audience.rs` | How does an event find those it reaches? |
//! | `fanout/shard/live.rs`, `replay.rs` | How is it written, to those who keep up and to those who do not? |
//! | `fanout/shard/timers.rs`, `wheel.rs`, `ending.rs` | What happens when nothing happens, and how does a stream end? |
//!
//! # Glossary
//!
//! - **topic**: a name that events go to and streams ask for; `all` asks for everything.
//! - **frame**: an event's bytes on the wire, encoded once, shared by every stream that gets it.
//! - **order**: the sequence of all events; each has a place in it, its *sequence number*.
//! - **epoch**: the name of one such sequence; an id is `<epoch>-<sequence>`.
//! - **cursor**: the sequence number up to which a reader has had everything it asked for.
//! - **interest**: what a stream asked for. **audience**: a shard's streams with the same interest and framing.
//! - **sweep**: writing to an audience's live members what is pending for it.
//! - **live**: a stream that gets what its audience gets. **replay**: one that reads the log by its own cursor.
//! - **stall**: a live stream's socket takes no more; it replays until it has caught up.
//! - **gap**: events of a stream's own topics after its cursor that are no longer kept; it is told.
//! - **seat**: a stream's share of the bound on how many there may be.
//!
//! A file uses only what stands below it in this order: app, config, server, http, auth, limit, broker, fanout, log,
//! pattern, event, frame, id, clock. Nothing below `http` knows HTTP.

pub mod app;
pub mod auth;
pub mod broker;
pub mod clock;
pub mod config;
pub mod event;
pub mod fanout;
pub mod frame;
pub mod http;
pub mod id;
pub mod limit;
pub mod log;
pub mod pattern;
pub mod server;

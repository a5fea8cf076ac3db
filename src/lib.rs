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
//! | `main.rs`, `cli/mod.rs`, `serve.rs` | What can be run, and how does the broker's process begin and end? |
//! | `app.rs`, `config/mod.rs`, `settings.rs` | Of which parts is it made, in which order do they start and stop, and what can be set? |
//! | `server/mod.rs`, `socket.rs`, `activation.rs`, `tls/current.rs`, `handshake.rs` | How does a connection come in, with which options, and encrypted as whom? |
//! | `server/service.rs`, `http/routes.rs` | Which endpoint does a request go to? |
//! | `http/cors.rs`, `forwarded.rs` | Which pages may ask, and from which address does a request come? |
//! | `http/access.rs`, `auth/mod.rs` | Who asks, and what may they do? |
//! | `auth/token.rs`, `signature.rs`, `claims.rs`, `jwks.rs`, `cache.rs`, `keys/mod.rs` | How is it proved? |
//! | `limit/mod.rs` | How much of it may they have? |
//! | `http/publish.rs`, `event.rs`, `name.rs`, `pattern.rs` | What is an event, whose is it, and what is refused? |
//! | `http/idempotency.rs` | How is it published once, however often it is sent? |
//! | `frame.rs` | What bytes does it become? |
//! | `broker.rs` | What are the two things one can ask: publish, subscribe? |
//! | `log/mod.rs`, `order.rs`, `topic.rs`, `index.rs`, `seek.rs` | What is kept, for how long, and how is it found again? |
//! | `log/interest.rs`, `listening.rs`, `evicted.rs` | What can one ask for, and how does one learn what is gone? |
//! | `http/subscribe.rs`, `server/connection.rs` | How does a request become a stream? |
//! | `fanout/mod.rs`, `latch.rs` | How does a shard learn that there is more to read? |
//! | `fanout/shard/mod.rs`, `arrivals.rs`, `audience.rs` | How does an event find those it reaches? |
//! | `fanout/shard/live.rs`, `replay.rs` | How is it written, to those who keep up and to those who do not? |
//! | `fanout/shard/timers.rs`, `wheel.rs`, `ending.rs` | What happens when nothing happens, and how does a stream end? |
//! | `server/resident.rs`, `fanout/pull/mod.rs`, `signals.rs` | And over TLS and HTTP/2, where somebody else does the writing? |
//! | `http/admin.rs`, `fanout/session.rs` | Who listens, and how is it told? |
//! | `http/stats/mod.rs`, `figures.rs`, `monitor.rs`, `http/metrics.rs` | How is it going, and how is that told? |
//! | `http/page.rs`, `page/` | And how does it look? |
//! | `cli/remote.rs`, `follow.rs`, `client.rs`, `sse.rs` | How do the commands ask a broker, and come back after a cut? |
//! | `cli/tail.rs`, `look.rs`, `stats/mod.rs`, `view.rs`, `publish.rs` | What do they show, and what do they send? |
//! | `publisher/mod.rs`, `builder.rs`, `handle.rs`, `encode.rs`, `queue.rs`, `sender.rs` | How does a service get its events here, and what if it cannot? |
//!
//! # Glossary
//!
//! - **topic**: a name that events go to and streams ask for; `all` asks for everything.
//! - **frame**: an event's bytes on the wire, encoded once, shared by every stream that gets it.
//! - **order**: the sequence of all events; each has a place in it, its *sequence number*.
//! - **epoch**: the name of one such sequence; an id is `<epoch>-<sequence>`.
//! - **cursor**: the sequence number up to which a reader has had everything it asked for.
//! - **interest**: what a stream asked for: topics, and a *filter* of whose events and which types. **audience**: a
//!   shard's streams with the same interest and framing.
//! - **owners**: the users an event belongs to; one that belongs to nobody is public.
//! - **identity**: who a token or a key proves somebody to be; **grant**: a topic pattern that they may use.
//! - **sweep**: writing to an audience's live members what is pending for it.
//! - **live**: a stream that gets what its audience gets. **replay**: one that reads the log by its own cursor.
//! - **stall**: a live stream's socket takes no more; it replays until it has caught up.
//! - **gap**: events of a stream's own topics after its cursor that are no longer kept; it is told.
//! - **puller**: a stream's body that reads the log when its carrier has room, instead of being written to by its shard.
//! - **session**: what is known of who listens. **seat**: a stream's share of the bound on how many there may be.
//!
//! A file uses only what stands below it in this order: cli, app, config, server, http, auth, broker, fanout, log, limit, tls,
//! pattern, event, frame, id, process, histogram, trace, publisher, client, sse, name, clock, sync. Nothing from `broker` to
//! `id` knows HTTP.

#[cfg(feature = "server")]
pub mod app;
#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
pub mod broker;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(any(feature = "publisher", feature = "server"))]
pub mod client;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod event;
#[cfg(feature = "server")]
pub mod fanout;
#[cfg(feature = "server")]
pub mod frame;
#[cfg(feature = "server")]
pub mod histogram;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod id;
#[cfg(feature = "server")]
pub mod limit;
#[cfg(feature = "server")]
pub mod log;
#[cfg(any(feature = "publisher", feature = "server"))]
pub mod name;
#[cfg(feature = "server")]
pub mod pattern;
#[cfg(feature = "server")]
pub mod process;
#[cfg(feature = "publisher")]
pub mod publisher;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(feature = "cli", feature = "load"))]
pub mod sse;
#[cfg(any(feature = "publisher", feature = "server"))]
mod sync;
#[cfg(feature = "server")]
pub mod tls;
#[cfg(feature = "server")]
pub mod trace;

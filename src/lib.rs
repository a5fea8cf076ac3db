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
//! | file | question it answers | its test in `tests/` |
//! |---|---|---|
//! | `main.rs`, `cli/mod.rs`, `serve.rs` | How does the broker's process begin and end? | `cli.rs` |
//! | `app.rs`, `config/mod.rs`, `settings.rs` | Which parts is it made of, in which order do they start and stop, and what can be set? | `config.rs`, `drain.rs` |
//! | `server/mod.rs`, `socket.rs`, `activation.rs`, `tls/current.rs`, `handshake.rs` | How does a connection come in, with which options and which certificate? | `budget.rs`, `systemd.rs`, `tls.rs` |
//! | `server/service.rs`, `http/routes.rs` | Which endpoint does a request go to? | `openapi.rs` |
//! | `http/cors.rs`, `forwarded.rs` | Which pages may ask, and which address does a request come from? | `cors.rs`, `access.rs` |
//! | `http/access.rs`, `auth/mod.rs` | Who asks, and what may they do? | `access.rs` |
//! | `auth/token.rs`, `signature.rs`, `claims.rs`, `jwks.rs`, `cache.rs`, `keys/mod.rs` | How is that proved? | `tokens.rs`, `jwks.rs`, `keys.rs` |
//! | `limit/mod.rs` | How much may one client have? | `limits.rs` |
//! | `http/publish.rs`, `event.rs`, `name.rs`, `pattern.rs` | What is an event, whose is it, and what is refused? | `wire.rs` |
//! | `http/idempotency.rs` | How is an event published once, however often it is sent? | `idempotency.rs` |
//! | `frame.rs` | Which bytes does an event become? | `frames.rs` |
//! | `broker.rs` | How are the log and the fan-out used: publish, subscribe? | `wire.rs` |
//! | `log/mod.rs`, `order.rs`, `topic.rs`, `index.rs`, `seek.rs` | Which events are kept, for how long, and how are they found again? | `resume.rs` |
//! | `log/interest.rs`, `listening.rs`, `evicted.rs` | What can a stream ask for, and how does it learn that events are gone? | `filter.rs`, `resume.rs` |
//! | `http/subscribe.rs`, `server/connection.rs` | How does a request become a stream? | `streams.rs` |
//! | `fanout/mod.rs`, `latch.rs` | How does a shard learn that there is more to read? | `loom.rs` |
//! | `fanout/shard/mod.rs`, `arrivals.rs`, `audience.rs` | How does an event find its streams? | `seam.rs` |
//! | `fanout/shard/live.rs`, `replay.rs` | How is an event written, to quick streams and to slow ones? | `slow.rs` |
//! | `fanout/shard/timers.rs`, `wheel.rs`, `ending.rs` | When is a heartbeat due, and how does a stream end? | `heartbeat.rs`, `wheel.rs`, `drain.rs` |
//! | `server/resident.rs`, `fanout/pull/mod.rs`, `signals.rs` | How do streams over TLS and HTTP/2 work, which a task of tokio writes? | `http2.rs`, `loom.rs` |
//! | `http/admin.rs`, `fanout/session.rs` | What is known of a listener, and how do operators ask for it? | `access.rs` |
//! | `http/stats/mod.rs`, `figures.rs`, `monitor.rs`, `http/metrics.rs` | Where do the figures come from, and who shows them? | `stats.rs`, `prometheus.rs` |
//! | `http/page.rs`, `page/` | What does the page show? | `page.rs` |
//! | `cli/remote.rs`, `follow.rs`, `client.rs`, `sse.rs` | How do the commands talk to a broker, and come back after a lost connection? | `cli.rs` |
//! | `cli/tail.rs`, `look.rs`, `stats/mod.rs`, `view.rs`, `publish.rs` | What do the commands show, and what do they send? | `cli.rs` |
//! | `publisher/mod.rs`, `builder.rs`, `handle.rs`, `encode.rs`, `queue.rs`, `sender.rs` | How does a service's event get here, and what happens if it cannot? | `publisher.rs` |
//!
//! # Glossary
//!
//! - **topic**: a name that events are published to and streams listen to; `all` stands for every topic.
//! - **frame**: an event's bytes on the wire, encoded once and shared by every stream that gets the event.
//! - **order**: the sequence of all events. Each event has a place in it, its *sequence number*.
//! - **epoch**: the name of one such sequence. An id is `<epoch>-<sequence>`.
//! - **cursor**: the sequence number up to which a reader has had every event it asked for.
//! - **interest**: the topics of a stream, and its *filter* of users and types. **audience**: a shard's streams with the same
//!   interest and framing.
//! - **owners**: the users that an event belongs to; an event without owners is public.
//! - **identity**: the user or the service that a token or a key proves; **grant**: a topic pattern that an identity may use.
//! - **sweep**: the writing of pending events to an audience's live streams.
//! - **live**: a stream is live while it gets its audience's events as they come. **replay**: a stream reads the log by its own
//!   cursor.
//! - **stall**: the socket of a live stream takes no more; the stream replays until it has caught up.
//! - **gap**: events of a stream's own topics that are no longer kept and that it has not had; the stream is told of it.
//! - **puller**: the body of a stream that a task of tokio writes. It reads the log whenever its connection has room.
//! - **session**: the data kept about a listener. **seat**: a stream's share of the bound on the number of streams.
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

//! The publisher: a service publishes events with it and never waits for the broker.
//!
//! ```text
//! caller ─▶ publish ─▶ encode ─▶ queue ────────▶ sender ─────▶ POST /api/v1/events/broadcast
//!           any thread  JSON,     bounded by       one thread,   one request at a time,
//!                       checked   events, bytes    own runtime   a batch each
//! ```
//!
//! [`Publisher::publish`] checks an event by the broker's own rules, encodes it in the caller's thread and puts it into
//! a queue. A caller waits for nothing else: no network, no runtime, no other caller's encoding. The publisher's own
//! thread takes batches from the queue and sends them over one kept connection.
//!
//! What can go wrong on the way, and what happens then:
//!
//! | | |
//! |---|---|
//! | the event breaks the rules | [`Rejected::Invalid`] or [`Rejected::TooLarge`] to the caller |
//! | the queue is full | [`Rejected::Full`] to the caller: the new event is dropped, those that wait keep their places |
//! | no connection, no answer in time, 408, 425, 429, 5xx | the same request again, after a wait that doubles (by chance shorter; no earlier than `Retry-After`), with the same idempotency key: nothing is published twice where only the answer was lost |
//! | that, for longer than [`Builder::give_up_after`] | the event is dropped as `expired` |
//! | 400, 413 | the batch is halved until what the broker refuses stands alone; that is dropped as `refused`, the rest is accepted |
//! | 403 | the batch is halved until it shows which topics this service may not publish to; their events are dropped as `refused` |
//! | 401, any other answer | the batch is dropped as `refused` |
//! | the publisher is closed before all was sent | what is left is dropped as `closed` |
//!
//! Every drop is counted by its reason ([`Publisher::figures`]) and reported: a warning by `tracing`, at once and then
//! at most every ten seconds however many there are, or what [`Builder::on_report`] is given.
//!
//! **Order.** The events of one caller arrive in the order in which it published them, whatever their topics: there is
//! one queue, and no request begins before the one before it is decided.
//!
//! **Once.** The broker remembers idempotency keys for ten minutes, in memory. A broker that is restarted between a
//! request and its repeat publishes the repeat too.
//!
//! ```no_run
//! use fanfare::publisher::Publisher;
//! use serde_json::json;
//!
//! # fn main() -> Result<(), fanfare::publisher::BuildError> {
//! let events = Publisher::from_env("wallet-service")?; // GATEWAY_URL, FANFARE_KEY
//! let created = json!({ "wallet_id": "w-1024", "user_id": "ann", "currency": "INR" });
//! if let Err(rejected) = events.publish("wallets", "wallet.created", &created) {
//!     // Counted and reported as well: a service may go on without looking.
//!     eprintln!("{rejected}");
//! }
//! events.blocking_close(std::time::Duration::from_secs(5)); // or close(..).await
//! # Ok(())
//! # }
//! ```

mod builder;
mod encode;
mod handle;
mod nivo;
mod queue;
mod rejected;
mod report;
mod sender;
mod thread;

pub use self::builder::{BuildError, Builder};
pub use self::handle::{ForUsers, Publisher};
pub use self::nivo::{
    Risk, StatusChange, Transaction, TransactionKind, Transactions, User, Users, Wallet, WalletAction, Wallets,
};
pub use self::queue::{Dropped, Figures};
pub use self::rejected::Rejected;
pub use self::report::Report;
pub use crate::name::Invalid;

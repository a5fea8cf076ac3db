//! Authentication: tokens of listeners and services, API keys of services, and the topics that each may use.
//!
//! The input is a text from a header or a query; the output is an [`Identity`] or the reason for a refusal ([`Denied`]).
//! Neither holds the secret, so logging one does not reveal it. Nothing here knows about HTTP requests.
//!
//! `token` verifies a token: `signature` checks its signature and `claims` its claims. `jwks` keeps the key set of an
//! issuer that changes its keys, `fetch` downloads it, and `cache` stores it in a file. `keys` finds an API key.

mod cache;
mod claims;
mod fetch;
mod identity;
mod jwks;
pub mod keys;
mod signature;
pub mod token;

pub use identity::{Denied, Identity, Listener};

//! Who asks: tokens of listeners, keys and tokens of publishers, and what each of them may do.
//!
//! Nothing here knows the HTTP that is served. Texts that came in a header or a query go in, an [`Identity`] or a
//! reason to refuse comes out; neither ever holds the secret itself, so neither can be logged with it.
//!
//! A token: `token` is what is set up and asked; `signature` says who signed a text, `claims` what it says, `jwks`
//! keeps the keys of an issuer that changes them, `fetch` gets those from where they are published, and `cache` keeps
//! them in a file.

mod cache;
mod claims;
mod fetch;
mod jwks;
mod signature;
pub mod token;

pub mod keys;

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::pattern::Pattern;

/// Who a request comes from, as far as a token or a key has proved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose events are theirs: the claim `user_id`, else `sub`. Absent for keys, and for tokens with neither.
    pub user: Option<Arc<str>>,
    /// Names the token or the key, in lists and logs: the claim `jti` or a digest of the token; a key's name. Not a secret.
    pub name: Arc<str>,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// Whether events of all users are to be seen: one of the token's roles is an all-seeing one.
    pub sees_everyone: bool,
    /// The topics that may be listened to.
    pub may_listen: Box<[Pattern]>,
    /// The topics that may be published to.
    pub may_publish: Box<[Pattern]>,
}

/// Who wants to listen, as far as it decides what they may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// Anybody, where tokens are not asked for: sees everything.
    Anyone,
    /// Somebody without a token, where one may be shown: sees what belongs to nobody.
    Stranger,
    /// Somebody who has proved who they are.
    Known(Identity),
}

/// Why somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There was neither token nor key, and one is needed.
    Missing,
    /// There is more than one token, and nothing says which one counts.
    Several,
    /// It cannot be read as what it should be.
    Malformed,
    /// It is signed by another key, or by another algorithm than the one that was set.
    Untrusted,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYet,
    /// It is for another audience or from another issuer.
    Elsewhere,
    /// There is no such key.
    UnknownKey,
    /// It names a signing key that is not among those held. The issuer may have changed its keys:
    /// [`token::Verifier::refresh`] may bring it.
    UnknownSigner,
    /// The key that it names, if it names one, cannot be looked up now: the issuer's keys are being read, or could not
    /// be. This says nothing of the token, and passes; a [`token::Verifier::refresh`] waits for a reading under way.
    KeysUnavailable,
}

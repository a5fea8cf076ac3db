//! An identity, as a token or a key proves it, and the reasons to refuse one.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::pattern::Pattern;

/// The sender of a request, as a token or a key has proved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user whose events are visible: the claim `user_id`, else `sub`. Absent for keys, and for tokens with neither.
    pub user: Option<Arc<str>>,
    /// The name of the token or the key in lists and logs: the claim `jti`, a digest of the token, or the key's name. It is
    /// not a secret.
    pub name: Arc<str>,
    /// When the token expires.
    pub expires: Option<Timestamp>,
    /// Whether events of all users are visible: one of the token's roles allows it.
    pub sees_everyone: bool,
    /// The topics that may be listened to.
    pub may_listen: Box<[Pattern]>,
    /// The topics that may be published to.
    pub may_publish: Box<[Pattern]>,
}

/// A listener's identity, which decides the events that it may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// Tokens are off: the listener sees everything.
    Anyone,
    /// Tokens are optional, and there is none: the listener sees public events.
    Stranger,
    /// A token or a key has proved an identity.
    Known(Identity),
}

/// Why a credential was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There was neither token nor key, and one is needed.
    Missing,
    /// There is more than one token, and no rule says which one counts.
    Several,
    /// It cannot be parsed.
    Malformed,
    /// It is signed with another key, or by an algorithm that is not allowed.
    Untrusted,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// It is for another audience or from another issuer.
    Elsewhere,
    /// There is no such key.
    UnknownKey,
    /// It names a signing key that is not in the key set. The issuer may have changed its keys:
    /// [`Verifier::refresh`](super::token::Verifier::refresh) may bring it.
    UnknownSigner,
    /// The issuer's keys are being read, or could not be read, so the token cannot be verified now. That says nothing about
    /// the token; [`Verifier::refresh`](super::token::Verifier::refresh) waits for a reading that is under way.
    KeysUnavailable,
}

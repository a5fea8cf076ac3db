//! An API key as the broker keeps it: its digest, and what may be done with it.

use super::super::identity::Identity;
use super::digest::Digest;
use crate::limit::Meter;
use crate::pattern::Pattern;

/// The most keys that there may be: a presented key is compared with every one.
pub const KEYS_MAX: usize = 1000;

/// A key, without the key itself.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name, and the topics that it is good for.
    pub identity: Identity,
    /// Whether it may administer the broker. Such a key may also publish and listen to everything.
    pub admin: bool,
    /// The publish requests that may be made with it.
    pub meter: Meter,
    pub(super) digest: Digest,
}

impl Key {
    pub(super) fn new(name: &str, digest: Digest, publish: Box<[Pattern]>, admin: bool, meter: Meter) -> Key {
        let everything = || Box::from([Pattern::All]);
        let identity = Identity {
            user: None,
            name: name.into(),
            expires: None,
            sees_everyone: admin,
            may_listen: if admin { everything() } else { Box::default() },
            may_publish: if admin { everything() } else { publish },
        };
        Key { identity, admin, meter, digest }
    }
}

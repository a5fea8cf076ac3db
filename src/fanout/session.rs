//! Who listens: kept for a stream only where a token was shown, or an operator may ask.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Timestamp;

/// What is known of a stream's listener.
#[derive(Debug, Clone)]
pub struct Session {
    /// The stream's name, as its `connected` event says it.
    pub client_id: Box<str>,
    /// The user whose events it may see.
    pub user: Option<Arc<str>>,
    /// The name of the token that it was opened with.
    pub token: Option<Arc<str>>,
    /// Where it comes from.
    pub address: IpAddr,
    /// The topics as they were asked for.
    pub topics: Box<str>,
    /// When it was opened.
    pub since: Timestamp,
    /// When it is to end.
    pub expires: Option<Timestamp>,
}

/// A stream in a list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its number in its shard.
    pub key: u32,
    /// Who listens.
    pub session: Session,
}

/// Whose streams an operator ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kick {
    /// All of a user's.
    User(Arc<str>),
    /// All that were opened with the token of this name.
    Token(Arc<str>),
    /// The one of this name.
    Client(Arc<str>),
}

impl Kick {
    pub(super) fn means(&self, session: &Session) -> bool {
        match self {
            Kick::User(user) => session.user.as_ref() == Some(user),
            Kick::Token(token) => session.token.as_ref() == Some(token),
            Kick::Client(client) => *session.client_id == **client,
        }
    }
}

//! The claims of a verified token (RFC 7519, section 4), and the identity that they make.
//!
//! | claim | meaning |
//! |---|---|
//! | `exp` | mandatory; the token ends then, and the leeway later for good |
//! | `nbf` | the token begins then, or the leeway earlier |
//! | `aud`, `iss` | must be among those that were set; where no audience was set, the token must name none |
//! | `user_id`, else `sub` | whose events are theirs: a text, or a whole number taken as its digits; empty is absent |
//! | `roles` | names; an all-seeing one among them shows the events of all users |
//! | `fanfare` | `{"listen": [patterns], "publish": [patterns]}`: the topics that may be listened and published to |
//! | `permissions` | names; `events:listen:<pattern>` and `events:publish:<pattern>` are grants as well |
//! | `jti` | the token's name, in lists and logs |
//!
//! A token without a grant for listening may listen to all topics; a token without a grant for publishing may publish
//! to none. Other claims are ignored. A token is malformed if one of these claims has the wrong form or occurs twice.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::Deserializer;

use super::identity::{Denied, Identity};
use crate::clock::Timestamp;
use crate::event::NAME_MAX;
use crate::pattern::Pattern;

/// The rules on claims.
#[derive(Debug, Clone)]
pub struct ClaimsConfig {
    /// The accepted audiences. If empty, a token must name no audience (RFC 7519, section 4.1.3).
    pub audience: Vec<String>,
    /// The accepted issuers. If empty, any issuer with the key is accepted.
    pub issuer: Vec<String>,
    /// How much the issuer's clock may differ from this host's.
    pub leeway: Duration,
    /// Roles that see the events of all users.
    pub all_seeing_roles: Vec<String>,
}

/// The claims that are read.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    exp: NumericDate,
    nbf: Option<NumericDate>,
    aud: Option<Audience>,
    iss: Option<String>,
    user_id: Option<User>,
    sub: Option<User>,
    roles: Option<Vec<String>>,
    permissions: Option<Vec<String>>,
    fanfare: Option<Grants>,
    jti: Option<String>,
}

/// Seconds since 1970, not necessarily whole (RFC 7519, section 2); held in milliseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
struct NumericDate {
    unix_ms: u64,
}

impl TryFrom<f64> for NumericDate {
    type Error = &'static str;

    fn try_from(seconds: f64) -> Result<NumericDate, &'static str> {
        // The end of the year 9999. A date beyond it is more likely one in milliseconds.
        const LAST: f64 = 253_402_300_799.0;
        match (0.0..=LAST).contains(&seconds) {
            true => Ok(NumericDate { unix_ms: (seconds * 1000.0) as u64 }),
            false => Err("no date; expected seconds since 1970"),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum User {
    Text(String),
    Number(u64),
}

/// The claim `fanfare`. An unknown key is an error: a misspelt grant must not count as absent, because an absent grant
/// for listening allows more than a present one.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Grants {
    #[serde(deserialize_with = "not_null")]
    listen: Option<Vec<String>>,
    #[serde(deserialize_with = "not_null")]
    publish: Option<Vec<String>>,
}

/// An empty list is `null` in some languages; it must not count as absent.
fn not_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    Vec::deserialize(deserializer).map(Some)
}

impl Claims {
    /// The identity that these claims make, if they are valid now. `name` is the token's name if it has no `jti`.
    pub(super) fn identity(
        self,
        config: &ClaimsConfig,
        now: Timestamp,
        name: impl FnOnce() -> Arc<str>,
    ) -> Result<Identity, Denied> {
        let leeway_ms = u64::try_from(config.leeway.as_millis()).unwrap_or(u64::MAX);
        let expires = Timestamp::from_unix_ms(self.exp.unix_ms.saturating_add(leeway_ms));
        if now >= expires {
            return Err(Denied::Expired);
        }
        if self.nbf.is_some_and(|nbf| now.unix_ms().saturating_add(leeway_ms) < nbf.unix_ms) {
            return Err(Denied::NotYet);
        }
        if !self.is_for(&config.audience) || !self.is_from(&config.issuer) {
            return Err(Denied::Elsewhere);
        }
        let permissions = self.permissions.unwrap_or_default();
        let grants = self.fanfare.unwrap_or_default();
        let may_listen = patterns(grants.listen, &permissions, "events:listen:")?;
        let may_publish = patterns(grants.publish, &permissions, "events:publish:")?;
        let roles = self.roles.unwrap_or_default();
        Ok(Identity {
            user: self.user_id.and_then(User::name).or(self.sub.and_then(User::name)),
            name: self.jti.filter(|jti| is_printable(jti)).map_or_else(name, Arc::from),
            expires: Some(expires),
            sees_everyone: roles.iter().any(|role| config.all_seeing_roles.contains(role)),
            may_listen: may_listen.unwrap_or_else(|| [Pattern::All].into()),
            may_publish: may_publish.unwrap_or_default(),
        })
    }

    fn is_for(&self, us: &[String]) -> bool {
        match &self.aud {
            None => us.is_empty(),
            Some(Audience::One(one)) => us.contains(one),
            Some(Audience::Several(several)) => several.iter().any(|one| us.contains(one)),
        }
    }

    fn is_from(&self, trusted: &[String]) -> bool {
        trusted.is_empty() || self.iss.as_ref().is_some_and(|issuer| trusted.contains(issuer))
    }
}

impl User {
    fn name(self) -> Option<Arc<str>> {
        match self {
            User::Text(text) if text.is_empty() => None,
            User::Text(text) => Some(text.into()),
            User::Number(number) => Some(itoa::Buffer::new().format(number).into()),
        }
    }
}

/// The patterns of a grant and of the permissions with this prefix; `None` if there is neither.
fn patterns(
    granted: Option<Vec<String>>,
    permissions: &[String],
    beginning: &str,
) -> Result<Option<Box<[Pattern]>>, Denied> {
    let permitted: Vec<&str> = permissions.iter().filter_map(|name| name.strip_prefix(beginning)).collect();
    if granted.is_none() && permitted.is_empty() {
        return Ok(None);
    }
    let granted = granted.unwrap_or_default();
    let all = granted.iter().map(String::as_str).chain(permitted);
    all.map(Pattern::parse).collect::<Result<_, _>>().map(Some).map_err(|_| Denied::Malformed)
}

/// Whether a name can be shown in lists and logs.
fn is_printable(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && !name.contains(char::is_control)
}

//! `fanfare token` signs a token for development, as the platform would, to try an `--auth` with.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use super::Failure;
use crate::auth::token::Secret;
use crate::clock::Timestamp;
use crate::config::Span;
use crate::pattern::Pattern;

/// The arguments of `fanfare token`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The user of the token: its bearer gets this user's events and the public ones [default: none].
    user: Option<String>,
    /// The secret to sign with, the broker's own.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true, value_name = "SECRET")]
    jwt_secret: Option<Secret>,
    /// The algorithm to sign with; the broker takes HS256 unless its --jwt-algorithms says otherwise.
    #[arg(long, value_enum, default_value_t = Hash::Hs256)]
    algorithm: Hash,
    /// How long it counts.
    #[arg(long, default_value = "1h", value_name = "SPAN")]
    valid: Span,
    /// A role; one of the broker's --all-seeing-roles (`admin`) sees the events of all users. May repeat.
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    /// Topics that may be listened to, such as `wallets.*`; without it, all. May repeat.
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    listen: Vec<String>,
    /// Topics that may be published to; without it, none. May repeat.
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    publish: Vec<String>,
    /// The audience (claim `aud`), where the broker has a --jwt-audience.
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// The issuer (claim `iss`), where the broker has a --jwt-issuer.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Hash {
    Hs256,
    Hs384,
    Hs512,
}

impl From<Hash> for Algorithm {
    fn from(hash: Hash) -> Algorithm {
        match hash {
            Hash::Hs256 => Algorithm::HS256,
            Hash::Hs384 => Algorithm::HS384,
            Hash::Hs512 => Algorithm::HS512,
        }
    }
}

/// The claims, as `auth/claims.rs` reads them.
#[derive(Serialize)]
struct Claims<'a> {
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [String],
    fanfare: Grants<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

#[derive(Serialize)]
struct Grants<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    listen: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    publish: &'a [String],
}

/// The longest that a token for development should count.
const VALID_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Prints the token.
pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Span(valid) = arguments.valid;
    if !(Duration::from_secs(1)..=VALID_MAX).contains(&valid) {
        return Err(Failure::Usage(format!("--valid is {valid:?}; expected a span from 1s to 720h")));
    }
    let Some(secret) = arguments.jwt_secret.filter(|secret| !secret.bytes().is_empty()) else {
        return Err(Failure::Usage("there is no secret to sign with; expected the broker's in JWT_SECRET".to_owned()));
    };
    let now = Timestamp::now().unix_s();
    let claims = Claims {
        iat: now,
        exp: now + valid.as_secs(),
        user_id: arguments.user.as_deref(),
        roles: &arguments.role,
        fanfare: Grants { listen: &arguments.listen, publish: &arguments.publish },
        aud: arguments.audience.as_deref(),
        iss: arguments.issuer.as_deref(),
    };
    // An error says that it has been done before.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let header = Header::new(arguments.algorithm.into());
    let token = encode(&header, &claims, &EncodingKey::from_secret(secret.bytes())).map_err(Failure::failed)?;
    super::print(format!("{token}\n").as_bytes())
}

/// A pattern as it was written, checked.
fn pattern(text: &str) -> Result<String, String> {
    Pattern::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

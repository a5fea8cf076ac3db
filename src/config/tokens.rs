//! Reads the settings of tokens and checks that they fit together.

use std::time::Duration;

use jsonwebtoken::Algorithm;

use super::settings::Settings;
use super::values::{List, Moment, Span, span};
use crate::auth::token::{ClaimsConfig, JwksConfig, KeySource, Mode, Place, TokenConfig, Verifier};

/// The shortest time between two readings of a key set, whatever keys tokens name.
const JWKS_REST: Duration = Duration::from_secs(10);

/// Takes the settings of tokens out of all settings, and tries the keys: an unusable key is a wrong setting.
pub(super) fn tokens(settings: &mut Settings) -> Result<TokenConfig, String> {
    let keys = key_source(settings)?;
    let mode = match (settings.auth, &keys) {
        (Some(mode @ (Mode::Optional | Mode::Required)), None) => {
            return Err(format!(
                "--auth is {mode:?} without a key; expected --jwt-secret, --jwt-key or --jwks with it"
            ));
        }
        (Some(mode), _) => mode,
        (None, Some(_)) => Mode::Required,
        (None, None) => Mode::Off,
    };
    let list = |name: &str, given: Option<List<String>>| match given.map(|List(items)| items) {
        Some(items) if items.is_empty() => Err(format!("--{name} is empty; expected one or more, separated by commas")),
        given => Ok(given),
    };
    let leeway = settings.jwt_leeway.map_or(Duration::from_secs(60), |Span(span)| span);
    if leeway > Duration::from_secs(3600) {
        return Err(format!("--jwt-leeway is {leeway:?}; expected a span up to 1h"));
    }
    let cookie = settings.auth_cookie.take();
    if let Some(name) = cookie.as_deref().filter(|name| !is_token(name)) {
        return Err(format!("--auth-cookie is {name:?}; expected a cookie's name (RFC 6265), such as session"));
    }
    let tokens = TokenConfig {
        mode,
        keys,
        claims: ClaimsConfig {
            audience: list("jwt-audience", settings.jwt_audience.take())?.unwrap_or_default(),
            issuer: list("jwt-issuer", settings.jwt_issuer.take())?.unwrap_or_default(),
            leeway,
            all_seeing_roles: list("all-seeing-roles", settings.all_seeing_roles.take())?
                .unwrap_or_else(|| vec!["admin".to_owned()]),
        },
        cookie,
    };
    if tokens.mode != Mode::Off || tokens.keys.is_some() {
        Verifier::new(&tokens)?;
    }
    Ok(tokens)
}

fn key_source(settings: &mut Settings) -> Result<Option<KeySource>, String> {
    let algorithms = match settings.jwt_algorithms.take() {
        None => Vec::new(),
        Some(List(names)) => names.iter().map(|name| algorithm(name)).collect::<Result<_, _>>()?,
    };
    let previous = match (settings.jwt_previous_secret.take(), settings.jwt_previous_until) {
        (Some(secret), Some(Moment(until))) => Some((secret, until)),
        (None, None) => None,
        (Some(_), None) => {
            return Err("--jwt-previous-secret has no end; expected --jwt-previous-until with it".to_owned());
        }
        (None, Some(_)) => {
            return Err("--jwt-previous-until is alone; expected --jwt-previous-secret with it".to_owned());
        }
    };
    let refresh = span("jwks-refresh", settings.jwks_refresh, Duration::from_secs(300))?;
    let place = settings.jwks.take().map(|place| Place::from(&*place));
    let cache = settings.jwks_cache.take();
    if cache.is_some() && !matches!(place, Some(Place::Url(_))) {
        return Err("--jwks-cache keeps the key set of a URL; expected --jwks with a URL too".to_owned());
    }
    match (settings.jwt_secret.take(), settings.jwt_key.take(), place) {
        (Some(current), None, None) => Ok(Some(KeySource::Secret { current, previous, algorithms })),
        (None, ..) if previous.is_some() => {
            Err("--jwt-previous-secret is alone; expected --jwt-secret with it".to_owned())
        }
        (None, Some(file), None) => Ok(Some(KeySource::Pem { file, algorithms })),
        (None, None, Some(place)) => Ok(Some(KeySource::Jwks(JwksConfig {
            place,
            algorithms: if algorithms.is_empty() { vec![Algorithm::RS256] } else { algorithms },
            refresh,
            rest: JWKS_REST,
            cache,
        }))),
        (None, None, None) => Ok(None),
        _ => Err("more than one of --jwt-secret (or JWT_SECRET), --jwt-key and --jwks; expected one".to_owned()),
    }
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    let wrong =
        |_| format!("--jwt-algorithms has {name:?}; expected HS256, RS256, ES256, EdDSA or another that --help names");
    name.parse().map_err(wrong)
}

/// Whether this is a token of RFC 9110, section 5.6.2, as a cookie's name is one.
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

//! Query strings, read strictly: what cannot be read is an error that names it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::reply::Problem;

/// The parameters of a query string, decoded, in their order.
///
/// # Errors
/// Where a name or a value is not UTF-8 once decoded.
pub fn parse(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| Problem::parameter(name, "its name is not UTF-8"))?;
            let value = decode(value).ok_or_else(|| Problem::parameter(&name, "its value is not UTF-8"))?;
            Ok((name, value))
        })
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

//! Query strings, read strictly where it matters: a known parameter that cannot be read is an error. An unknown one is
//! ignored, and named in the answer where it looks like a known one.

use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;

use super::cors::Field;
use super::reply::Problem;
use crate::event::Ignored;

/// Tells which names were ignored that look like known ones.
const X_IGNORED: &str = "X-Ignored";

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Its name, decoded; empty where that is not UTF-8, which no known name is.
    pub name: String,
    value: &'a str,
}

impl Parameter<'_> {
    /// Its value, decoded: `+` is a space, `%` and two hexadecimal digits are a byte.
    ///
    /// # Errors
    /// Where that is not UTF-8.
    pub fn value(&self) -> Result<String, Problem> {
        decode(self.value).ok_or_else(|| Problem::parameter(&self.name, "its value is not UTF-8"))
    }
}

/// The parameters of a query string, in their order.
pub fn parameters(query: &str) -> impl Iterator<Item = Parameter<'_>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Parameter { name: decode(name).unwrap_or_default(), value }
    })
}

/// The header that tells of them. Only names of visible ASCII characters can stand in it.
pub fn ignored_field(ignored: &Ignored) -> Option<Field> {
    let names = ignored.names().iter().map(|name| &**name);
    let names: Vec<&str> = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic())).collect();
    let value = HeaderValue::try_from(names.join(", ")).ok()?;
    (!value.is_empty()).then_some((X_IGNORED, value))
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

//! The types of settings: how a text becomes a value, and the bounds on values. Each error names the wrong value and
//! what was expected.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use jiff::SignedDuration;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::clock::Timestamp;
use crate::event::{Invalid, check_topic};
use crate::limit::Rate;

/// A span of time, written as `30s`, `500ms`, `10m` or `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let span = text.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
        span.map(Span).ok_or_else(|| format!("{text:?} is no span of time; expected one such as 500ms, 30s or 10m"))
    }
}

/// A number of bytes, written as `65536`, `64KiB` or `1MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) usize);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text[digits.len()..].trim() {
            "" | "B" => Some(1usize),
            "kB" | "KB" => Some(1000),
            "MB" => Some(1_000_000),
            "GB" => Some(1_000_000_000),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let bytes = digits.parse::<usize>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
        bytes.map(Bytes).ok_or_else(|| format!("{text:?} is no number of bytes; expected one such as 65536 or 64KiB"))
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text lines, for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// An address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address(pub(super) SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let wrong =
            |_| format!("{text:?} is no address; expected one with a port, such as 127.0.0.1:8000 or [::]:8000");
        text.parse().map(Address).map_err(wrong)
    }
}

/// A moment, written in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(pub(super) Timestamp);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        let moment = text.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
        moment
            .map(|ms| Moment(Timestamp::from_unix_ms(ms)))
            .ok_or_else(|| format!("{text:?} is no moment; expected one such as 2027-01-31T12:00:00Z"))
    }
}

/// A list, separated by commas; in the file it may also be an array. An empty text is an empty list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T: FromStr<Err: fmt::Display>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<List<T>, String> {
        let parts = text.split(',').map(str::trim);
        List::of(parts.filter(|_| !text.trim().is_empty()))
    }
}

impl<T: FromStr<Err: fmt::Display>> List<T> {
    fn of<'a>(parts: impl Iterator<Item = &'a str>) -> Result<List<T>, String> {
        let read = |part: &str| match part.is_empty() {
            true => Err("one of the list is empty; expected items separated by commas".to_owned()),
            false => part.parse().map_err(|error: T::Err| error.to_string()),
        };
        parts.map(read).collect::<Result<_, _>>().map(List)
    }
}

/// A topic's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicName(pub(super) Box<str>);

impl FromStr for TopicName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<TopicName, Invalid> {
        check_topic(text)?;
        Ok(TopicName(text.into()))
    }
}

/// The value of a setting that no longer exists. Any value is read, so that an old deployment still starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

impl FromStr for Gone {
    type Err = Infallible;

    fn from_str(_: &str) -> Result<Gone, Infallible> {
        Ok(Gone)
    }
}

impl<'de> Deserialize<'de> for Gone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Gone, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Gone)
    }
}

pub(super) fn whole_number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is no number; expected a whole number"))
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text:?} is no port; expected a number from 0 to 65535"))
}

/// In the file these are strings; a number of bytes may also be a plain number.
impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(usize),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(n) => Ok(Bytes(n)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List<T>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a string or an array of strings")]
        enum Written {
            Text(String),
            Array(Vec<String>),
        }
        let list = match Written::deserialize(deserializer)? {
            Written::Text(text) => text.parse(),
            Written::Array(parts) => List::of(parts.iter().map(String::as_str)),
        };
        list.map_err(serde::de::Error::custom)
    }
}

pub(super) fn count(
    name: &str,
    given: Option<usize>,
    default: usize,
    least: usize,
    most: usize,
) -> Result<usize, String> {
    let n = given.unwrap_or(default);
    match (least..=most).contains(&n) {
        true => Ok(n),
        false => Err(format!("--{name} is {n}; expected a number from {least} to {most}")),
    }
}

pub(super) fn bytes(
    name: &str,
    given: Option<Bytes>,
    default: usize,
    least: usize,
    most: usize,
) -> Result<usize, String> {
    count(name, given.map(|Bytes(n)| n), default, least, most)
}

pub(super) const RATE_MAX: usize = Rate::MAX as usize;

/// A rate with its usual burst; `None` where it is 0, which is no limit.
pub(super) fn rate(name: &str, given: Option<usize>, default: usize) -> Result<Option<Rate>, String> {
    let per_second = count(name, given, default, 0, RATE_MAX)? as u64;
    Ok(Rate::new(per_second, Rate::usual_burst(per_second)))
}

/// A limit; `None` where it is 0, which is no limit.
pub(super) fn at_most(name: &str, given: Option<usize>, default: usize) -> Result<Option<usize>, String> {
    Ok(Some(count(name, given, default, 0, usize::MAX)?).filter(|&n| n > 0))
}

/// A span from 10 ms, which is the resolution of the timers, to a year.
pub(super) fn span(name: &str, given: Option<Span>, default: Duration) -> Result<Duration, String> {
    let span = given.map_or(default, |Span(span)| span);
    match (Duration::from_millis(10)..=Duration::from_secs(365 * 24 * 3600)).contains(&span) {
        true => Ok(span),
        false => Err(format!("--{name} is {span:?}; expected a span from 10ms to 365 days")),
    }
}

/// Like [`span`], but zero is allowed too and switches the feature off.
pub(super) fn span_or_none(name: &str, given: Option<Span>, default: Duration) -> Result<Duration, String> {
    match given {
        Some(Span(Duration::ZERO)) => Ok(Duration::ZERO),
        given => span(name, given, default).map_err(|why| format!("{why}, or 0s")),
    }
}

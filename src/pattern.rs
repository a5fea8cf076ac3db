//! A pattern of topics: a name, every name with a prefix, or all. A stream's topics and the grants of a token or a key
//! are written the same way, and compared here.

use std::fmt;

use crate::event::{self, ALL, Invalid};

/// One topic, or several by how their names begin.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// `all`, or `*`: every topic.
    All,
    /// `wallets.*`: every topic whose name is longer than this prefix and begins with it. The prefix ends in a dot.
    Prefix(Box<str>),
    /// The topic of this name.
    Topic(Box<str>),
}

impl Pattern {
    /// Reads a pattern: `all` or `*`, `wallets.*`, or a topic's name.
    ///
    /// # Errors
    /// Where it is no topic's name, or has its `*` elsewhere than alone behind a last dot.
    pub fn parse(text: &str) -> Result<Pattern, Invalid> {
        if text == ALL || text == "*" {
            return Ok(Pattern::All);
        }
        event::check_topic(text)?;
        match text.strip_suffix('*') {
            None => Ok(Pattern::Topic(text.into())),
            Some(prefix) if prefix.len() > 1 && prefix.ends_with('.') && !prefix.contains('*') => {
                Ok(Pattern::Prefix(prefix.into()))
            }
            Some(_) => {
                Err(Invalid(format!("topic {text:?} is no pattern; expected a name, or one that ends in \".*\"")))
            }
        }
    }

    /// Whether a topic of this name is one of them.
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Pattern::All => true,
            Pattern::Prefix(prefix) => topic.len() > prefix.len() && topic.starts_with(&**prefix),
            Pattern::Topic(name) => **name == *topic,
        }
    }

    /// Whether every topic of `other` is one of this pattern's.
    pub fn covers(&self, other: &Pattern) -> bool {
        match (self, other) {
            (Pattern::All, _) => true,
            (Pattern::Prefix(wide), Pattern::Prefix(narrow)) => narrow.starts_with(&**wide),
            (_, Pattern::Topic(name)) => self.matches(name),
            _ => false,
        }
    }
}

/// As it is written.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::All => f.write_str(ALL),
            Pattern::Prefix(prefix) => write!(f, "{prefix}*"),
            Pattern::Topic(name) => f.write_str(name),
        }
    }
}

/// The beginnings of a topic's name that a pattern may have: `a.b.c` begins with `a.` and `a.b.`.
pub fn prefixes(topic: &str) -> impl Iterator<Item = &str> {
    memchr::memchr_iter(b'.', topic.as_bytes()).map(|dot| &topic[..=dot]).filter(|prefix| prefix.len() < topic.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect(text)
    }

    #[test]
    fn what_matches_and_what_covers() {
        for (pattern_text, yes, no) in [
            ("all", &["all", "a", "a.b"][..], &[][..]),
            ("a.*", &["a.b", "a.b.c", "a.*"], &["a", "a.", "ab", "b.a"]),
            ("a", &["a"], &["a.b", "A"]),
        ] {
            let pattern = pattern(pattern_text);
            assert!(yes.iter().all(|topic| pattern.matches(topic)), "{pattern}");
            assert!(!no.iter().any(|topic| pattern.matches(topic)), "{pattern}");
            assert!(yes.iter().all(|topic| pattern.covers(&Pattern::Topic((*topic).into()))), "{pattern}");
            // A prefix that matches is one of those the name is looked up by.
            if let Pattern::Prefix(prefix) = &pattern {
                assert!(yes.iter().all(|topic| prefixes(topic).any(|p| *p == **prefix)), "{pattern}");
            }
        }
        assert!(pattern("a.*").covers(&pattern("a.b.*")) && !pattern("a.b.*").covers(&pattern("a.*")));
        assert!(pattern("*").covers(&pattern("a.*")) && !pattern("a.*").covers(&pattern("all")));
        assert_eq!(prefixes("a.b.c").collect::<Vec<_>>(), ["a.", "a.b."]);
        assert_eq!(prefixes("a.").count() + prefixes("a").count(), 0);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a*", ".*", "a.**", "**", "a.*.*", "a\nb", "a,b"] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }
}

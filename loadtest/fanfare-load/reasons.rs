//! Why streams were not opened, or are over: each reason with how often it was given.

use std::collections::BTreeMap;
use std::fmt;

/// A server's words are cut here, and more different ones are counted together: it is not to fill the memory by them.
const LENGTH_MAX: usize = 120;
const REASONS_MAX: usize = 16;

#[derive(Debug, Clone, Default)]
pub struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    pub fn add(&mut self, why: &str) {
        let why: String = why.chars().filter(|c| !c.is_control()).take(LENGTH_MAX).collect();
        let is_new = !self.0.contains_key(&why);
        let why = if is_new && self.0.len() >= REASONS_MAX { "for other reasons".to_owned() } else { why };
        *self.0.entry(why).or_default() += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Reasons {
    /// The most frequent first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: Vec<(&String, &u64)> = self.0.iter().collect();
        reasons.sort_by(|a, b| b.1.cmp(a.1));
        for (index, (why, count)) in reasons.into_iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{count} {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_bounded() {
        let mut reasons = Reasons::default();
        for why in ["answered 503", "closed", "answered 503"] {
            reasons.add(why);
        }
        assert_eq!(reasons.to_string(), "2 answered 503, 1 closed");
        for n in 0..100 {
            reasons.add(&format!("{n}\r\n{}", "x".repeat(1_000)));
        }
        let text = reasons.to_string();
        assert!(text.starts_with("86 for other reasons, 2 answered 503"), "{text}");
        assert!(text.len() < 4_000 && !text.contains('\n'), "{text}");
    }
}

//! The digest of an API key, which the broker keeps in place of the key.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

/// The prefix of a written digest.
const PREFIX: &str = "sha256:";

/// A key's SHA-256. It is compared in constant time only, hence no `PartialEq`.
#[derive(Clone, Copy)]
pub(super) struct Digest([u8; SHA256_OUTPUT_LEN]);

impl Digest {
    /// The digest of a key.
    pub(super) fn of(key: &str) -> Digest {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        Digest(bytes)
    }

    /// Whether they are the same.
    pub(super) fn is(&self, other: &Digest) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

/// Reads `sha256:` and 64 hexadecimal digits.
impl FromStr for Digest {
    type Err = ();

    fn from_str(text: &str) -> Result<Digest, ()> {
        let digits = text.strip_prefix(PREFIX).ok_or(())?.as_bytes();
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        if digits.len() != 2 * bytes.len() {
            return Err(());
        }
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok()).ok_or(());
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Ok(Digest(bytes))
    }
}

/// Shows nothing of the digest: it would allow to check guesses.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

#[cfg(test)]
impl Digest {
    /// As it stands in a file.
    pub(super) fn to_text(self) -> String {
        self.0.iter().fold(PREFIX.to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_sha256sum_says() {
        // FIPS 180-2, appendix B.1.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let read: Digest = abc.parse().expect("it is one");
        assert!(read.is(&Digest::of("abc")) && !read.is(&Digest::of("abd")));
        assert!(abc.to_uppercase().replace("SHA", "sha").parse::<Digest>().expect("in capitals too").is(&read));
        assert_eq!(Digest::of("abc").to_text(), abc);
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let digits = "0".repeat(64);
        for text in ["", "sha256:", &digits, &format!("sha512:{digits}"), &format!("sha256:{digits}0")] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        for wrong in ["0+", "g0", "é"] {
            assert!(format!("sha256:{}{wrong}", "0".repeat(62)).parse::<Digest>().is_err(), "{wrong}");
        }
    }
}

//! A file that keeps the last key set of an issuer, so that a broker can start while the issuer does not answer.
//!
//! The file is a JSON Web Key Set itself, with the URL that the set came from: keys of another issuer must not count
//! because the setting has changed. Its modification time says when the set was last fetched.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The largest key set, in bytes.
pub(super) const SET_MAX: usize = 1 << 20;

/// The largest file, in bytes: a set, and the URL that it came from.
const FILE_MAX: usize = SET_MAX + (64 << 10);

/// A file for the key set behind a URL.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    path: PathBuf,
    url: String,
}

/// A file's content.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    url: String,
    #[serde(borrow)]
    keys: &'a RawValue,
}

/// A key set as it was kept.
pub(super) struct Kept {
    /// The JSON Web Key Set.
    pub(super) text: Vec<u8>,
    /// How long ago it was fetched.
    pub(super) age: Duration,
}

impl Cache {
    /// The file at this path, for the set behind this URL. It need not exist yet.
    ///
    /// # Errors
    /// Where it cannot be a file: says what was expected.
    pub(super) fn new(path: &Path, url: &str) -> Result<Cache, String> {
        let cache = Cache { path: path.to_owned(), url: url.to_owned() };
        let why = match path.file_name() {
            Some(_) if !directory(path).is_dir() => "there is no such directory",
            Some(_) if path.is_file() || !path.exists() => return Ok(cache),
            _ => "it is no file",
        };
        Err(cache.wrong(&format_args!("{why}; expected a file in a directory that the broker may write to")))
    }

    /// Says what is wrong with it.
    pub(super) fn wrong(&self, why: &dyn fmt::Display) -> String {
        format!("--jwks-cache {}: {why}", self.path.display())
    }

    /// Reads the set; `None` where none has been kept yet.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no key set of this URL.
    pub(super) fn read(&self) -> Result<Option<Kept>, String> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| self.wrong(&error))?,
        };
        let (text, fetched) = read(&file).map_err(|error| self.wrong(&error))?;
        let written: Written<'_> = serde_json::from_slice(&text)
            .map_err(|error| self.wrong(&format_args!("it is no key set that a broker has kept ({error})")))?;
        if written.url != self.url {
            return Err(self.wrong(&format_args!("its keys are of {:?}, not of {:?}", written.url, self.url)));
        }
        // A time that is still to come is a clock's fault: nothing is known of the age then.
        let age = SystemTime::now().duration_since(fetched).unwrap_or_default();
        Ok(Some(Kept { text, age }))
    }

    /// Keeps a set that was fetched just now. The file is written only where the set has changed, by another one that
    /// takes its place: a crash leaves one of the two, whole.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) fn keep(&self, set: &[u8]) -> Result<(), String> {
        let text = self.text(set).map_err(|error| self.wrong(&error))?;
        match self.still_holds(&text) {
            true => Ok(()),
            false => self.write(&text).map_err(|error| self.wrong(&error)),
        }
    }

    /// The file's text for a set, with the keys to the letter.
    fn text(&self, set: &[u8]) -> serde_json::Result<Vec<u8>> {
        #[derive(Deserialize)]
        struct Set<'a> {
            #[serde(borrow)]
            keys: &'a RawValue,
        }
        let Set { keys } = serde_json::from_slice(set)?;
        serde_json::to_vec(&Written { url: self.url.clone(), keys })
    }

    /// Whether the file holds this text already; then it notes that the text is of now.
    fn still_holds(&self, text: &[u8]) -> bool {
        let touch = || -> io::Result<bool> {
            let file = File::open(&self.path)?;
            let same = read(&file)?.0 == text;
            if same {
                file.set_modified(SystemTime::now())?;
            }
            Ok(same)
        };
        touch().unwrap_or(false)
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let new = self.path.with_file_name(name);
        // What a crash has left. The next line takes no file that is there: it could be a link to anywhere.
        let _ = fs::remove_file(&new);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            File::open(directory(&self.path))?.sync_all()
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }
}

/// The directory that a file is in.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A file's content, and when it was last modified.
fn read(file: &File) -> io::Result<(Vec<u8>, SystemTime)> {
    let mut text = Vec::new();
    file.take(FILE_MAX as u64 + 1).read_to_end(&mut text)?;
    match text.len() > FILE_MAX {
        true => Err(io::Error::other(format!("it has more than {FILE_MAX} bytes"))),
        false => Ok((text, file.metadata()?.modified()?)),
    }
}

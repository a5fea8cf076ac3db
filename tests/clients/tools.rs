//! What of the clients' tools the machine has. `cargo test` needs none of it: what is missing is said, and skipped.
//! The packages that the lock files name are installed below `target/`, once, where the machine can fetch them.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// How long installing may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// The oldest Node.js that the locked packages run on.
const NODE_MIN: u32 = 20;

/// Gives what was looked for, or says that a test is skipped without it. In CI nothing may be missing.
pub(crate) fn or_skip<T>(test: &str, found: Result<T, String>) -> Option<T> {
    found
        .map_err(|why| {
            assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "skipped in CI: {test}: {why}");
            // Past the test harness, which keeps what a passing test prints to itself.
            let _ = io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes());
        })
        .ok()
}

/// One of the scripts beside this file, run by Node.js with the locked packages.
pub(crate) fn node(script: &str) -> Result<Command, String> {
    let mut command = Command::new("node");
    command.arg(beside(script)).env("NODE_PATH", node_modules()?);
    Ok(command)
}

/// The same with the browser.
pub(crate) fn node_with_chromium(script: &str) -> Result<Command, String> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let browser = names.iter().find_map(|name| on_path(name)).ok_or("there is no Chromium")?;
    let mut command = node(script)?;
    command.env("CHROMIUM", browser);
    Ok(command)
}

/// One of the scripts beside this file, run by Python with the locked packages.
pub(crate) fn python(script: &str) -> Result<Command, String> {
    let mut command = Command::new(venv()?.join("bin/python"));
    command.arg(beside(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// One of the locked Python packages that is a program itself.
pub(crate) fn python_module(name: &str) -> Result<Command, String> {
    let mut command = Command::new(venv()?.join("bin/python"));
    command.args(["-m", name]).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// One of the scripts beside this file, run by bash with curl.
pub(crate) fn bash_with_curl(script: &str) -> Result<Command, String> {
    on_path("curl").ok_or("there is no curl")?;
    let mut command = Command::new(on_path("bash").ok_or("there is no bash")?);
    command.arg(beside(script));
    Ok(command)
}

fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// A program on the PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The same, and among those for administrators; without it, the test of its name is skipped.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let found = on_path(name).or_else(|| Some(Path::new("/usr/sbin").join(name)).filter(|file| file.is_file()));
    or_skip(name, found.ok_or_else(|| format!("there is no {name}")))
}

fn node_modules() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let find = || {
        let node = on_path("node").ok_or("there is no Node.js")?;
        let npm = on_path("npm").ok_or("there is no npm")?;
        let version = Command::new(node).arg("--version").output().map_err(|error| error.to_string())?.stdout;
        let version = String::from_utf8_lossy(&version).trim().to_owned();
        let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < NODE_MIN) {
            return Err(format!("Node.js is {version}; {NODE_MIN} or newer is needed"));
        }
        let home = installed("npm", include_str!("package-lock.json"), |home| {
            for file in ["package.json", "package-lock.json"] {
                fs::copy(beside(file), home.join(file)).map_err(|error| error.to_string())?;
            }
            let options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"];
            run(Command::new(&npm).args(options).current_dir(home), home)
        })?;
        Ok(home.join("node_modules"))
    };
    FOUND.get_or_init(find).clone()
}

fn venv() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let find = || {
        let python = on_path("python3").ok_or("there is no Python 3")?;
        installed("venv", include_str!("requirements.txt"), |home| {
            run(Command::new(&python).args(["-m", "venv"]).arg(home), home)?;
            let options = ["-m", "pip", "install", "--disable-pip-version-check", "--retries=1", "--requirement"];
            run(Command::new(home.join("bin/python")).args(options).arg(beside("requirements.txt")), home)
        })
    };
    FOUND.get_or_init(find).clone()
}

/// The folder with what a lock file names, installed if need be. A new one is filled out of sight and renamed when
/// complete: test processes that run at the same time find all of it, or nothing.
fn installed(what: &str, lock: &str, fill: impl Fn(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    lock.hash(&mut hasher);
    let clients = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients");
    let home = clients.join(format!("{what}-{:016x}", hasher.finish()));
    if !home.exists() {
        let fresh = home.with_extension(id().to_string());
        fs::create_dir_all(&fresh).map_err(|error| format!("{}: {error}", fresh.display()))?;
        let filled = fill(&fresh).map_err(|why| format!("{what} cannot install the packages: {why}"));
        let renamed = filled.and_then(|()| fs::rename(&fresh, &home).map_err(|error| error.to_string()));
        if let Err(why) = renamed {
            let _ = fs::remove_dir_all(&fresh);
            // Another process may have been first.
            return if home.exists() { Ok(home) } else { Err(why) };
        }
    }
    Ok(home)
}

/// Runs an installer to its end; what it prints goes to a file in `home`, and says why it failed.
fn run(command: &mut Command, home: &Path) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let path = home.join("install.log");
    let log = File::create(&path).map_err(text)?;
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(text)?).stderr(log);
    let mut child = command.spawn().map_err(text)?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(text)? {
            break status;
        }
        if started.elapsed() > DEADLINE {
            let _ = child.kill();
            break child.wait().map_err(text)?;
        }
        thread::sleep(Duration::from_millis(20));
    };
    if status.success() {
        return Ok(());
    }
    let log = fs::read_to_string(&path).unwrap_or_default();
    let is_error = |line: &&str| line.to_lowercase().trim_start_matches("npm ").starts_with("error");
    let why = log.lines().find(is_error).or(log.lines().next_back()).unwrap_or("it printed nothing");
    Err(format!("{status}: {why}"))
}

//! nginx and Caddy with the very files of `deploy/`, each in front of a broker.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::tools;

/// How long a proxy may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

fn free_address() -> SocketAddr {
    free_address_of("127.0.0.1")
}

/// One that stays free, if nobody else uses this loopback address.
pub(crate) fn free_address_of(ip: &str) -> SocketAddr {
    TcpListener::bind((ip, 0)).and_then(|socket| socket.local_addr()).expect("there is a free port")
}

/// One of the files with these parts of it replaced, each of which it must have.
fn adapted(name: &str, replaced: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    let mut text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (old, new) in replaced {
        assert!(text.contains(old), "{name} has no {old:?}");
        text = text.replace(old, new);
    }
    text
}

/// A running proxy, in a folder of its own.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) folder: PathBuf,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
}

impl Proxy {
    /// Starts a program with the command that `prepare` makes of the folder and the two addresses to listen on.
    fn start(program: &str, prepare: impl FnOnce(&Path, SocketAddr, SocketAddr) -> Command) -> Proxy {
        let (http, https) = (free_address(), free_address());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{program}-{}", https.port()));
        fs::create_dir_all(&folder).expect("there is room");
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("there is randomness");
        fs::write(folder.join("chain.pem"), certificate.cert.pem()).expect("there is room");
        fs::write(folder.join("key.pem"), certificate.signing_key.serialize_pem()).expect("there is room");
        let log = fs::File::create(folder.join("log")).expect("there is room");
        let mut command = prepare(&folder, http, https);
        let log_too = log.try_clone().expect("a descriptor");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(log_too).spawn().expect("it runs");
        let mut proxy = Proxy { child, folder, http, https };
        let started = Instant::now();
        while TcpStream::connect(https).is_err() {
            let ended = proxy.child.try_wait().expect("it can be asked");
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "{program} does not listen: {}", proxy.log());
            thread::sleep(Duration::from_millis(5));
        }
        proxy
    }

    pub(crate) fn nginx(broker: SocketAddr, silence: &str) -> Option<Proxy> {
        let program = tools::program("curl").and(tools::program("nginx"))?;
        Some(Proxy::start("nginx", |folder, http, https| {
            let place = folder.display();
            let (log, ssl) = (format!("{place}/access.log"), format!("{place}/"));
            let server = adapted(
                "nginx/fanfare.conf",
                &[
                    ("127.0.0.1:8000", &broker.to_string()),
                    ("listen 80;", &format!("listen {http};")),
                    ("listen 443 ssl http2;", &format!("listen {https} ssl http2;")),
                    ("server_name fanfare.example;", "server_name localhost;"),
                    ("/etc/ssl/fanfare/", &ssl),
                    ("/var/log/nginx/fanfare.log", &log),
                    ("proxy_read_timeout 90s;", &format!("proxy_read_timeout {silence};")),
                ],
            );
            fs::write(folder.join("fanfare.conf"), server).expect("there is room");
            // What a distribution's nginx.conf has around it. The kinds of temporary files are what its build may write.
            let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
            let paths: String = paths.map(|kind| format!("{kind}_temp_path {place}/{kind};")).concat();
            let main = format!(
                "daemon off; pid {place}/pid; error_log stderr; worker_processes 1; events {{ worker_connections 256; }}\n\
                 http {{ gzip on; gzip_types text/event-stream; {paths} include {place}/fanfare.conf; }}\n"
            );
            fs::write(folder.join("nginx.conf"), main).expect("there is room");
            let mut command = Command::new(program);
            command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).args(["-e", "stderr"]);
            command
        }))
    }

    pub(crate) fn caddy(broker: SocketAddr) -> Option<Proxy> {
        let program = tools::program("curl").and(tools::program("caddy"))?;
        Some(Proxy::start("caddy", |folder, http, https| {
            let (ssl, admin) = (format!("{}/", folder.display()), free_address());
            let file = adapted(
                "caddy/Caddyfile",
                &[
                    ("reverse_proxy 127.0.0.1:8000 {", &format!("reverse_proxy {broker} {{")),
                    ("http_port 80\n", &format!("http_port {}\n", http.port())),
                    ("https_port 443\n", &format!("https_port {}\n", https.port())),
                    ("admin localhost:2019", &format!("admin {admin}")),
                    ("fanfare.example {", "localhost {\n\tbind 127.0.0.1"),
                    ("/etc/ssl/fanfare/", &ssl),
                ],
            );
            fs::write(folder.join("Caddyfile"), file).expect("there is room");
            let mut command = Command::new(program);
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.join("Caddyfile"));
            // It writes below its home.
            command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
            command
        }))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx's workers end with their master only where it ends by itself.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE && self.child.try_wait().is_ok_and(|status| status.is_none()) {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the proxy's log: {}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

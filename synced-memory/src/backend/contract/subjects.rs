//! The backends that the suite runs on, with a real file and a real server.

#![cfg_attr(
    not(all(feature = "redis", feature = "sqlite", unix)),
    allow(dead_code, unused_imports)
)]

use std::time::Duration;

use super::{DAY, DEADLINE, Loss, SHORT, Subject};
use crate::backend::layout::Node;
use crate::backend::process::ProcessBackend;
use crate::backend::test_servers::Directory;
#[cfg(all(feature = "redis", unix))]
use crate::backend::test_servers::server::{Program, TestProcess};
use crate::base::clock::Deadline;
use crate::base::random;

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

#[cfg(all(feature = "redis", unix))]
pub(super) fn redis() -> Subject {
    use ::redis::{ConnectionAddr, IntoConnectionInfo};

    use crate::backend::redis::{RedisBackend, SessionOptions};

    let directory = Directory::new();
    let socket = directory.0.join("redis.sock");
    let path = socket.to_str().unwrap();
    let arguments = ["--port", "0", "--save", "", "--unixsocket", path];
    let server = TestProcess::start(&Program::Redis.path(), &arguments);
    let kill = {
        let server = server.clone();
        move || server.kill()
    };

    let address = ConnectionAddr::Unix(socket).into_connection_info().unwrap();
    let backends = [DAY, SHORT].map(|ttl| {
        let (target, client_name) = ("redis".to_owned(), "contract".to_owned());
        let options = SessionOptions {
            timeout: DEADLINE,
            sidecar_ttl: ttl,
        };
        RedisBackend::new(&address, target, client_name, None, options)
    });
    let subject = Subject::new(backends, Loss::Closed(Box::new(kill)), (server, directory));
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

//! The backends that the suite runs on, with a real file and a real server.

#![cfg_attr(
    not(all(feature = "redis", feature = "sqlite", unix)),
    allow(dead_code, unused_imports)
)]

use std::time::Duration;

use super::{DAY, DEADLINE, Loss, SHORT, Subject};
use crate::backend::layout::Node;
use crate::backend::process::ProcessBackend;
#[cfg(all(feature = "redis", unix))]
use crate::backend::test_servers::server::{Program, TestProcess};
use crate::backend::test_servers::{Directory, new_directory};
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

    let directory = new_directory();
    let socket = directory.join("redis.sock");
    let path = socket.to_str().unwrap();
    let arguments = ["--port", "0", "--save", "", "--unixsocket", path];
    let server = TestProcess::start(&Program::Redis.path(), &arguments, &directory);
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
            replicas: 0,
        };
        RedisBackend::new(&address, target, client_name, None, options)
    });
    let subject = Subject::new(backends, Loss::Closed(Box::new(kill)), server);
    wait_until_it_answers(subject)
}

/// A server, and one sentinel that names it.
#[cfg(all(feature = "redis", unix))]
pub(super) fn sentinel() -> Subject {
    use crate::backend::redis::sentinel::{SentinelBackend, SentinelTarget};
    use crate::backend::test_servers::server::{TestServer, free_port};
    use crate::base::settings::Settings;

    let server = TestServer::start(Program::Redis, &[]);
    let (directory, of_sentinel) = (new_directory(), free_port());
    let config = directory.join("sentinel.conf");
    let port = server.port;
    let monitor = format!("port {of_sentinel}\nsentinel monitor m 127.0.0.1 {port} 1\n");
    std::fs::write(&config, monitor).unwrap();
    let arguments = [config.to_str().unwrap(), "--sentinel"];
    let sentinel = TestProcess::start(&Program::Redis.path(), &arguments, &directory);
    let kill = server.killer();

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
    let keeps = (server, sentinel);
    wait_until_it_answers(Subject::new(backends, Loss::Closed(Box::new(kill)), keeps))
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

/// A cluster of one primary: its sessions are those of a larger one.
#[cfg(all(feature = "redis", unix))]
pub(super) fn cluster() -> Subject {
    use crate::backend::redis::cluster::{ClusterBackend, ClusterTarget};
    use crate::backend::test_servers::cluster::TestCluster;
    use crate::base::settings::Settings;

    let cluster = TestCluster::of_one();
    let server = &cluster.0[0];
    let backends = [DAY, SHORT].map(|tombstone_ttl| {
        let target = ClusterTarget::of_ports([server.port]);
        let settings = Settings {
            timeout: DEADLINE,
            tombstone_ttl,
            ..Settings::default()
        };
        ClusterBackend::new(target, "contract", &settings).unwrap()
    });
    let (node, kill) = (server.node(), server.killer());
    Subject {
        node,
        ..Subject::new(backends, Loss::Closed(Box::new(kill)), cluster)
    }
}

use std::time::Duration;

use redis::FromRedisValue;

use crate::ca::{Authority, Certificate};
use crate::server::{Builder, Server};
use crate::wait::eventually;

/// What the sentinels call the service.
const SERVICE: &str = "mymaster";
const DEADLINE: Duration = Duration::from_secs(30);
const SENTINELS: usize = 3;

/// A primary, a replica of it, and three sentinels that replace it one second after it went away.
#[derive(Debug)]
pub struct Watched {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    has_tls: bool,
}

impl Watched {
    /// Of this program, without passwords and TLS.
    pub fn start(program: fn() -> Builder) -> Self {
        Self::start_with(program, |server| server, |sentinel| sentinel)
    }

    /// The same with other configurations.
    pub fn start_with(
        program: fn() -> Builder,
        server: impl Fn(Builder) -> Builder,
        sentinel: impl Fn(Builder) -> Builder,
    ) -> Self {
        let server = || server(program().arg("repl-diskless-sync-delay", "0"));
        let primary = server().start();
        let port = primary.port();
        let replica = server().arg("replicaof", &format!("127.0.0.1 {port}"));
        let sentinel = || sentinel(monitoring(program(), port)).start();
        let watched = Self {
            servers: vec![primary, replica.start()],
            sentinels: (0..SENTINELS).map(|_| sentinel()).collect(),
            has_tls: false,
        };
        watched.wait_ready();
        watched
    }

    /// The same with TLS between all of them, and to them.
    pub fn start_with_tls(
        program: fn() -> Builder,
        certificate: &Certificate,
        authority: &Authority,
    ) -> Self {
        let secure = || {
            program()
                .tls(certificate, authority)
                .arg("tls-replication", "yes")
                .arg("repl-diskless-sync-delay", "0")
        };
        let primary = secure().start();
        let port = primary.tls_port();
        let replica = secure().arg("replicaof", &format!("127.0.0.1 {port}"));
        let sentinel = || monitoring(secure(), port).start();
        let watched = Self {
            servers: vec![primary, replica.start()],
            sentinels: (0..SENTINELS).map(|_| sentinel()).collect(),
            has_tls: true,
        };
        watched.wait_ready();
        watched
    }

    /// `redis-sentinel://127.0.0.1:<port>,127.0.0.1:<port>,127.0.0.1:<port>/mymaster`.
    pub fn url(&self) -> String {
        let hosts = self.sentinels.iter().map(|sentinel| {
            let port = self.port_of(sentinel);
            format!("127.0.0.1:{port}")
        });
        let hosts: Vec<_> = hosts.collect();
        format!("redis-sentinel://{}/{SERVICE}", hosts.join(","))
    }

    /// The servers: at first the primary and its replica.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub fn sentinels(&self) -> &[Server] {
        &self.sentinels
    }

    /// The port of the primary, as this sentinel says.
    #[track_caller]
    pub fn named_by(&self, sentinel: usize) -> u16 {
        let (_, port): (String, u16) = self.ask(sentinel, &["GET-MASTER-ADDR-BY-NAME", SERVICE]);
        port
    }

    /// The server at which the primary is, as this sentinel says.
    #[track_caller]
    pub fn primary_of(&self, sentinel: usize) -> &Server {
        let port = self.named_by(sentinel);
        let mut servers = self.servers.iter();
        let primary = servers.find(|server| self.port_of(server) == port);
        primary.expect("the sentinel names one of the servers")
    }

    /// Waits until all sentinels that run name another primary than the server with this index.
    #[track_caller]
    pub fn wait_replaced(&self, old: usize) {
        let old = self.port_of(&self.servers[old]);
        for sentinel in (0..SENTINELS).filter(|at| self.sentinels[*at].is_running()) {
            eventually(DEADLINE, "a sentinel names another primary", || {
                self.named_by(sentinel) != old
            });
        }
    }

    /// SENTINEL FAILOVER.
    #[track_caller]
    pub fn fail_over(&self) {
        self.sentinels[0].cli(&["SENTINEL", "FAILOVER", SERVICE]);
    }

    /// Waits until a failover would be made: the replica is connected, and all sentinels know it
    /// and each other.
    #[track_caller]
    pub fn wait_ready(&self) {
        for sentinel in 0..SENTINELS {
            eventually(DEADLINE, "a sentinel knows all others", || {
                let field = |name: &str| {
                    let fields: Vec<(String, String)> = self.ask(sentinel, &["MASTER", SERVICE]);
                    let found = fields.into_iter().find(|(field, _)| field == name);
                    found.map(|(_, value)| value).unwrap_or_default()
                };
                let replicas: Vec<Vec<(String, String)>> =
                    self.ask(sentinel, &["REPLICAS", SERVICE]);
                let is_linked = replicas
                    .iter()
                    .flatten()
                    .any(|(name, value)| name == "master-link-status" && value == "ok");
                is_linked && field("num-other-sentinels") == (SENTINELS - 1).to_string()
            });
        }
    }

    fn ask<T: FromRedisValue>(&self, sentinel: usize, question: &[&str]) -> T {
        let answer = self.sentinels[sentinel].cli(&[&["SENTINEL"], question].concat());
        redis::from_redis_value(answer).expect("the answer of a sentinel")
    }

    fn port_of(&self, server: &Server) -> u16 {
        if self.has_tls {
            server.tls_port()
        } else {
            server.port()
        }
    }
}

fn monitoring(sentinel: Builder, primary: u16) -> Builder {
    let line = |sentinel: Builder, line: &str| sentinel.arg("sentinel", line);
    let monitor = format!("monitor {SERVICE} 127.0.0.1 {primary} 2");
    let sentinel = line(sentinel.sentinel(), &monitor);
    let sentinel = line(sentinel, &format!("down-after-milliseconds {SERVICE} 1000"));
    line(sentinel, &format!("failover-timeout {SERVICE} 4000"))
}

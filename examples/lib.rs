//! What the examples share: a redis-server or a cluster of their own, a line to a server that can
//! be cut, and waiting for a condition.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(10);

/// A redis-server on a free port, with its data in a temporary directory; gone when dropped.
#[derive(Debug)]
pub struct RedisServer {
    dir: TempDir,
    port: u16,
    role: Role,
    process: Option<Child>,
}

/// What kind of server it is.
#[derive(Debug, Clone)]
enum Role {
    Single,
    ClusterNode,
    Tls(TlsFiles),
}

/// The files (PEM) of a server with TLS.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The authority that has signed the certificates of its clients.
    pub ca: PathBuf,
    /// Its own certificate.
    pub certificate: PathBuf,
    /// The private key of that.
    pub key: PathBuf,
}

impl RedisServer {
    /// Starts one, and waits until it answers.
    pub fn on_free_port() -> Self {
        Self::of(Role::Single)
    }

    /// Starts one that speaks TLS alone, and that asks its clients for certificates.
    pub fn with_tls(files: TlsFiles) -> Self {
        Self::of(Role::Tls(files))
    }

    fn of(role: Role) -> Self {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let mut server = Self {
            dir,
            port: free_port(),
            role,
            process: None,
        };
        server.start();
        server
    }

    /// Starts it again, with the data that it had.
    pub fn start(&mut self) {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--logfile", "redis.log", "--dir"])
            .arg(self.dir.path())
            // So that every acknowledged write is on disk.
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--save", ""])
            // So that a full memory refuses writes instead of throwing state away.
            .args(["--maxmemory-policy", "noeviction"]);
        let port = self.port.to_string();
        match &self.role {
            Role::Single => _ = command.args(["--port", &port]),
            Role::ClusterNode => {
                command
                    .args(["--port", &port, "--cluster-enabled", "yes"])
                    // So that it serves its keys while another server is away.
                    .args(["--cluster-require-full-coverage", "no"])
                    .args(["--cluster-node-timeout", "2000"]);
            }
            Role::Tls(files) => {
                command
                    .args(["--port", "0", "--tls-port", &port])
                    .args(["--tls-auth-clients", "yes", "--tls-ca-cert-file"])
                    .arg(&files.ca)
                    .arg("--tls-cert-file")
                    .arg(&files.certificate)
                    .arg("--tls-key-file")
                    .arg(&files.key);
            }
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started (Debian: apt-get install redis-server)");
        self.process = Some(process);
        wait_until("redis-server answers", || {
            let process = self.process.as_mut().expect("it was started");
            let ended = process
                .try_wait()
                .expect("a child can be asked whether it ended");
            assert!(
                ended.is_none(),
                "redis-server ended at once: is port {} taken?",
                self.port
            );
            self.answers()
        });
    }

    fn answers(&self) -> bool {
        match &self.role {
            Role::Single | Role::ClusterNode => {
                self.command("PING").is_ok_and(|pong| pong.contains("PONG"))
            }
            // It listens once it has read its files, and answers once it has read its data.
            Role::Tls(_) => TcpStream::connect(("127.0.0.1", self.port)).is_ok(),
        }
    }

    /// Sends a command, and returns the answer as the server has written it.
    fn command(&self, command: &str) -> std::io::Result<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        connection.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Sends a command that is answered with `OK`.
    fn expect_ok(&self, command: &str) {
        let answer = self.command(command).expect("the server answers");
        assert!(answer.starts_with("+OK"), "{answer}");
    }

    /// Kills it (SIGKILL), as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child can be killed");
            process.wait().expect("a child can be waited for");
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let scheme = match self.role {
            Role::Single | Role::ClusterNode => "redis",
            Role::Tls(_) => "rediss",
        };
        format!("{scheme}://{}", self.address())
    }

    /// Its address, as a cluster and `Status::nodes` name it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three servers, each of which has a third of the slots, and with that of the keys; gone when
/// dropped.
#[derive(Debug)]
pub struct RedisCluster {
    servers: [RedisServer; 3],
}

impl RedisCluster {
    /// Starts them, and waits until each knows which server has which slots.
    pub fn of_three() -> Self {
        const SLOTS: usize = 16_384;
        let servers = [(); 3].map(|()| RedisServer::of(Role::ClusterNode));
        for (number, server) in servers.iter().enumerate() {
            let slots = number * SLOTS / 3..(number + 1) * SLOTS / 3;
            let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
            server.expect_ok(&format!("CLUSTER ADDSLOTS {}", slots.join(" ")));
            server.expect_ok(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1));
            if number > 0 {
                server.expect_ok(&format!("CLUSTER MEET 127.0.0.1 {}", servers[0].port));
            }
        }
        wait_until("the cluster serves all slots", || {
            servers.iter().all(|server| {
                let info = server.command("CLUSTER INFO").unwrap_or_default();
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            })
        });
        Self { servers }
    }

    /// Its URL: each of the servers can be asked where everything is.
    pub fn url(&self) -> String {
        let hosts = self.servers.each_ref().map(RedisServer::address);
        format!("redis-cluster://{}", hosts.join(","))
    }

    /// The servers, to kill them and to start them again.
    pub fn servers(&mut self) -> &mut [RedisServer] {
        &mut self.servers
    }
}

/// A line to a server on this host, which can be cut and restored.
#[derive(Debug)]
pub struct Line {
    port: u16,
    state: Arc<Mutex<LineState>>,
}

#[derive(Debug, Default)]
struct LineState {
    is_cut: bool,
    streams: Vec<TcpStream>,
}

impl Line {
    /// A line to this port. It stays until the process ends.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::<Mutex<LineState>>::default();
        let line = Self {
            port,
            state: Arc::clone(&state),
        };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut state = state.lock().expect("no thread panics with it");
                let Some(server) = TcpStream::connect(("127.0.0.1", server))
                    .ok()
                    .filter(|_| !state.is_cut)
                else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (copy_of(from), copy_of(to));
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                state.streams.extend([client, server]);
            }
        });
        line
    }

    /// The URL of the server by this line.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends all connections, and refuses new ones.
    pub fn cut(&self) {
        let mut state = self.state.lock().expect("no thread panics with it");
        state.is_cut = true;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub fn restore(&self) {
        self.state.lock().expect("no thread panics with it").is_cut = false;
    }
}

fn copy_of(stream: &TcpStream) -> TcpStream {
    stream
        .set_nodelay(true)
        .expect("a connection can be set up");
    stream.try_clone().expect("a connection can be shared")
}

/// Waits until `condition` holds; panics with `what` if it does not within ten seconds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        sleep(Duration::from_millis(5));
    }
}

/// A port below those that the kernel gives to outgoing connections: otherwise one of them could
/// take it while the server is down. The one 10,000 above is free, too: nodes of a cluster use it
/// to talk to each other.
fn free_port() -> u16 {
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = u16::try_from(std::process::id() % 4_000).expect("it is below 4000");
    let mut ports = (0..4_000).map(|step| 7_000 + (first + step) % 4_000);
    ports
        .find(|port| is_free(*port) && is_free(port + 10_000))
        .expect("one of 4000 ports is free")
}

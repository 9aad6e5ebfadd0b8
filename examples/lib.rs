//! What the examples share: a redis-server of their own, a line to it that can be cut, and waiting
//! for a condition.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
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
    process: Option<Child>,
}

impl RedisServer {
    /// Starts one, and waits until it answers.
    pub fn on_free_port() -> Self {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let mut server = Self {
            dir,
            port: free_port(),
            process: None,
        };
        server.start();
        server
    }

    /// Starts it again, with the data that it had.
    pub fn start(&mut self) {
        let process = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--logfile",
                "redis.log",
                "--dir",
            ])
            .arg(self.dir.path())
            // So that every acknowledged write is on disk.
            .args([
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--save",
                "",
            ])
            // So that a full memory refuses writes instead of throwing state away.
            .args(["--maxmemory-policy", "noeviction"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started (Debian: apt-get install redis-server)");
        let process = self.process.insert(process);
        wait_until("redis-server answers", || {
            let ended = process
                .try_wait()
                .expect("a child can be asked whether it ended");
            assert!(
                ended.is_none(),
                "redis-server ended at once: is port {} taken?",
                self.port
            );
            answers(self.port)
        });
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
        format!("redis://127.0.0.1:{}", self.port)
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

fn answers(port: u16) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        connection.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG")
    };
    ping().unwrap_or(false)
}

/// A port below those that the kernel gives to outgoing connections: otherwise one of them could
/// take it while the server is down.
fn free_port() -> u16 {
    let first = u16::try_from(std::process::id() % 4_000).expect("it is below 4000");
    let mut ports = (0..4_000).map(|step| 7_000 + (first + step) % 4_000);
    ports
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of 4000 ports is free")
}

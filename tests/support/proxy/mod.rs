//! A TCP proxy that makes the faults of networks happen, exactly when a test asks for them.
//!
//! One task owns both sockets of a connection. What may pass is decided, written and counted in one
//! step under the lock of [`Faults`], so that a fault holds for every byte after the call that set
//! it.

mod faults;
mod link;

use std::future::pending;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use self::faults::{Both, Faults, LinkFaults, Shared, Trigger};
use self::link::Link;
use crate::port::{Address, Port};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The direction of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A request.
    ToServer,
    /// An answer, or a push.
    ToClient,
}

/// A TCP proxy in front of a server. Give its [`url`](Proxy::url) to what is tested; its methods
/// make the faults.
///
/// Connections that it accepts while the server is down are closed at once; for a refusal that the
/// client sees as one, see [`refuse`](Proxy::refuse).
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy without faults, in front of a [`Server`](crate::Server) or a port.
    pub fn to(server: &impl Address) -> Self {
        let port = Port::claim();
        let shared = Arc::new(Shared {
            faults: Mutex::new(Faults::default()),
            settled: Condvar::new(),
            changed: watch::Sender::new(()),
        });
        let (here, there) = (local(port.number), local(server.port()));
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("proxy".to_owned())
                .spawn(move || {
                    tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime can be built")
                        .block_on(listen(shared, here, there));
                })
        };
        let thread = Some(thread.expect("a thread can be started"));
        let proxy = Self {
            port,
            shared,
            thread,
        };
        proxy.settle("the proxy listens", |faults| faults.listening);
        proxy
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Cuts all connections; clients see a reset. What has passed reaches the server, and its
    /// answers are lost. Requests on [hold](Self::hold_requests) stay on hold, with their client
    /// gone.
    pub fn cut(&self) {
        self.change(|faults| {
            for link in faults.links.values_mut() {
                link.cut = true;
            }
        });
        self.settle("the connections are cut", |faults| {
            faults.links.values().all(|link| !link.cut)
        });
    }

    /// Whether new connections are refused (`ECONNREFUSED`); those that are open stay.
    pub fn refuse(&self, refuse: bool) {
        self.change(|faults| faults.refuse = refuse);
        self.settle("the proxy refuses, or listens again", |faults| {
            faults.listening != refuse
        });
    }

    /// Cuts a connection, once, as soon as exactly `bytes` more have passed in a direction (counted
    /// over all connections); with 0, when the next byte arrives, which does not pass. What passed
    /// is delivered.
    pub fn cut_after_bytes(&self, direction: Direction, bytes: u64) {
        self.change(|faults| faults.cut_after[direction] = Some(bytes));
    }

    /// Cancels a [`cut_after_bytes`](Self::cut_after_bytes) that has not happened.
    pub fn do_not_cut(&self) {
        self.change(|faults| faults.cut_after = Both::default());
    }

    /// Whether answers are dropped. Requests reach the server.
    pub fn swallow_answers(&self, swallow: bool) {
        self.change(|faults| faults.swallow = swallow);
    }

    /// Once: on the first connection whose requests from now on make `predicate` true, answers are
    /// dropped until it is cut. `predicate` sees all bytes of that connection since this call.
    /// Answers to requests that were sent just before may be lost with them.
    pub fn swallow_answer_after(&self, predicate: impl FnMut(&[u8]) -> bool + Send + 'static) {
        self.arm(predicate, false);
    }

    /// Like [`swallow_answer_after`](Self::swallow_answer_after), and cuts the connection when the
    /// answer comes: the request was carried out, and the client does not learn it.
    pub fn lose_answer_to(&self, predicate: impl FnMut(&[u8]) -> bool + Send + 'static) {
        self.arm(predicate, true);
    }

    /// Lets every byte in a direction arrive that much later, in order.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.change(|faults| faults.delay[direction] = delay);
    }

    /// Lets this many bytes pass in a second in a direction, on each connection.
    pub fn pace(&self, direction: Direction, pace: Option<u32>) {
        self.change(|faults| faults.pace[direction] = pace);
    }

    /// Whether nothing passes in either direction, on connections old and new, which stay open.
    pub fn stall(&self, stall: bool) {
        self.change(|faults| faults.stall = stall);
    }

    /// Keeps what the connections that are open now send, also after their clients have gone, until
    /// [`release`](Self::release). Connections that come later are not held.
    pub fn hold_requests(&self) {
        self.change(|faults| {
            for link in faults.links.values_mut() {
                link.hold = true;
            }
        });
    }

    /// Lets the requests on hold reach the server.
    pub fn release(&self) {
        self.change(|faults| {
            for link in faults.links.values_mut() {
                link.hold = false;
            }
        });
    }

    /// How many bytes of requests are on hold.
    pub fn held(&self) -> u64 {
        self.faults()
            .links
            .values()
            .filter(|link| link.hold)
            .map(|link| link.queued)
            .sum()
    }

    /// How many bytes have passed in a direction.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.faults().passed[direction]
    }

    /// How many bytes of answers were dropped by a `swallow_…` or `lose_…`.
    pub fn swallowed(&self) -> u64 {
        self.faults().swallowed
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.faults().accepted
    }

    /// How many connections are open, those included whose client has gone and whose requests are
    /// on hold.
    pub fn open(&self) -> usize {
        self.faults().links.len()
    }

    /// How many connections were cut, by any of the faults.
    pub fn cuts(&self) -> u64 {
        self.faults().cuts
    }

    fn arm(&self, predicate: impl FnMut(&[u8]) -> bool + Send + 'static, cut: bool) {
        self.change(|faults| {
            faults.trigger = Some(Trigger {
                predicate: Box::new(predicate),
                cut,
            });
            for link in faults.links.values_mut() {
                link.seen.clear();
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults());
        self.shared.changed.send_replace(());
    }

    #[track_caller]
    fn settle(&self, what: &str, settled: impl Fn(&Faults) -> bool) {
        let (faults, waited) = self
            .shared
            .settled
            .wait_timeout_while(self.faults(), TIMEOUT, |faults| !settled(faults))
            .unwrap_or_else(PoisonError::into_inner);
        drop(faults);
        assert!(!waited.timed_out(), "not within {TIMEOUT:?}: {what}");
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.shared.faults()
    }
}

impl Address for Proxy {
    fn port(&self) -> u16 {
        self.port.number
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|faults| faults.closed = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Accepts connections until the proxy is closed. Its runtime, dropped after it, ends the links.
async fn listen(shared: Arc<Shared>, here: SocketAddr, there: SocketAddr) {
    let mut changed = shared.changed.subscribe();
    let mut listener = None;
    loop {
        changed.borrow_and_update();
        let (closed, refuse) = {
            let faults = shared.faults();
            (faults.closed, faults.refuse)
        };
        if closed {
            return;
        }
        match (refuse, &listener) {
            (true, Some(_)) => listener = None,
            (false, None) => listener = Some(rebind(here).await),
            _ => {}
        }
        shared.faults().listening = listener.is_some();
        shared.settled.notify_all();
        tokio::select! {
            _ = changed.changed() => {}
            client = accept(listener.as_ref()) => {
                let id = {
                    let mut faults = shared.faults();
                    faults.accepted += 1;
                    let id = faults.accepted;
                    faults.links.insert(id, LinkFaults::default());
                    id
                };
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(there).await {
                        Link::new(id, shared, client, server).run().await;
                    } else {
                        drop(client);
                        shared.faults().links.remove(&id);
                        shared.settled.notify_all();
                    }
                });
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => {
            listener
                .accept()
                .await
                .expect("connections can be accepted")
                .0
        }
        None => pending().await,
    }
}

/// Listens again. A process that another test is starting holds the closed socket open until it has
/// executed its program.
async fn rebind(here: SocketAddr) -> TcpListener {
    let bound = timeout(TIMEOUT, async {
        loop {
            match TcpListener::bind(here).await {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    sleep(Duration::from_millis(1)).await;
                }
                bound => return bound.expect("the port is claimed"),
            }
        }
    });
    bound.await.expect("the port is free again")
}

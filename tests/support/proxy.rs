//! A TCP proxy that does what networks do, exactly when it is told.
//!
//! One task owns both sockets of a connection. What may pass is decided, written and counted in one
//! step under the lock of [`Faults`], so that a fault holds for every byte after the call that set it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Index, IndexMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, Shutdown};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use crate::port::{Address, Port};

const PATIENCE: Duration = Duration::from_secs(5);
const CHUNK: usize = 64 * 1024;

/// The way of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A request.
    ToServer,
    /// An answer, or a push.
    ToClient,
}

use Direction::{ToClient, ToServer};

/// A TCP proxy in front of a server. Give its [`url`](Proxy::url) to what is tested, and faults to it.
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
            thread::Builder::new().name("proxy".to_owned()).spawn(move || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime can be built")
                    .block_on(listen(shared, here, there));
            })
        };
        let thread = Some(thread.expect("a thread can be started"));
        let proxy = Self { port, shared, thread };
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

    /// Cuts all connections; clients see a reset. What has passed reaches the server, and its answers
    /// are lost. Requests on [hold](Self::hold_requests) stay on hold, with their client gone.
    pub fn cut(&self) {
        self.change(|faults| {
            for link in faults.links.values_mut() {
                link.cut = true;
            }
        });
        self.settle("the connections are cut", |faults| faults.links.values().all(|link| !link.cut));
    }

    /// Whether new connections are refused (`ECONNREFUSED`); those that are open stay.
    pub fn refuse(&self, refuse: bool) {
        self.change(|faults| faults.refuse = refuse);
        self.settle("the proxy heeds", |faults| faults.listening != refuse);
    }

    /// Cuts a connection, once, as soon as exactly `bytes` more have passed in a direction (counted over all
    /// connections); with 0, when the next byte arrives, which does not pass. What passed is delivered.
    pub fn cut_after_bytes(&self, direction: Direction, bytes: u64) {
        self.change(|faults| faults.cut_after[direction] = Some(bytes));
    }

    /// Takes back a [`cut_after_bytes`](Self::cut_after_bytes) that has not happened.
    pub fn do_not_cut(&self) {
        self.change(|faults| faults.cut_after = Both::default());
    }

    /// Whether answers are dropped. Requests reach the server.
    pub fn swallow_answers(&self, swallow: bool) {
        self.change(|faults| faults.swallow = swallow);
    }

    /// Once: on the first connection whose requests from now on make `predicate` true, answers are
    /// dropped until it is cut. `predicate` sees all bytes of that connection since this call. Answers to
    /// requests that were sent just before may be lost with them.
    pub fn swallow_answer_after(&self, predicate: impl FnMut(&[u8]) -> bool + Send + 'static) {
        self.arm(predicate, false);
    }

    /// Like [`swallow_answer_after`](Self::swallow_answer_after), and cuts the connection when the answer comes:
    /// the request was carried out, and the client does not learn it.
    pub fn lose_answer_to(&self, predicate: impl FnMut(&[u8]) -> bool + Send + 'static) {
        self.arm(predicate, true);
    }

    /// Lets every byte in a direction arrive that much later, in order.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.change(|faults| faults.delay[direction] = delay);
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
        self.faults().links.values().filter(|link| link.hold).map(|link| link.queued).sum()
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

    /// How many connections are open, those included whose client has gone and whose requests are on hold.
    pub fn open(&self) -> usize {
        self.faults().links.len()
    }

    /// How many connections were cut, by any of the faults.
    pub fn cuts(&self) -> u64 {
        self.faults().cuts
    }

    fn arm(&self, predicate: impl FnMut(&[u8]) -> bool + Send + 'static, cut: bool) {
        self.change(|faults| {
            faults.trigger = Some(Trigger { predicate: Box::new(predicate), cut });
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
            .wait_timeout_while(self.faults(), PATIENCE, |faults| !settled(faults))
            .unwrap_or_else(PoisonError::into_inner);
        drop(faults);
        assert!(!waited.timed_out(), "not within {PATIENCE:?}: {what}");
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

#[derive(Debug)]
struct Shared {
    faults: Mutex<Faults>,
    /// Signalled by the tasks when they have heeded a change.
    settled: Condvar,
    /// Signalled to the tasks when there is a change.
    changed: watch::Sender<()>,
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // independent switches, each with a method of its own
struct Faults {
    closed: bool,
    refuse: bool,
    stall: bool,
    swallow: bool,
    delay: Both<Duration>,
    cut_after: Both<Option<u64>>,
    trigger: Option<Trigger>,
    links: BTreeMap<u64, LinkFaults>,

    listening: bool,
    passed: Both<u64>,
    swallowed: u64,
    accepted: u64,
    cuts: u64,
}

#[derive(Debug, Default)]
struct LinkFaults {
    /// To be cut; taken back by the link's task when it has done so.
    cut: bool,
    hold: bool,
    /// Answers that arrive from now on are lost; with `Some(true)` the first one cuts the link.
    lose: Option<bool>,
    /// Bytes of requests that have arrived and not passed.
    queued: u64,
    /// Bytes of requests since the trigger was armed.
    seen: Vec<u8>,
}

type Predicate = Box<dyn FnMut(&[u8]) -> bool + Send>;

struct Trigger {
    predicate: Predicate,
    cut: bool,
}

impl fmt::Debug for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trigger").field("cut", &self.cut).finish_non_exhaustive()
    }
}

/// One for each direction.
#[derive(Debug, Default)]
struct Both<T> {
    to_server: T,
    to_client: T,
}

impl<T> Index<Direction> for Both<T> {
    type Output = T;

    fn index(&self, direction: Direction) -> &T {
        match direction {
            ToServer => &self.to_server,
            ToClient => &self.to_client,
        }
    }
}

impl<T> IndexMut<Direction> for Both<T> {
    fn index_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            ToServer => &mut self.to_server,
            ToClient => &mut self.to_client,
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
            (false, None) => listener = Some(TcpListener::bind(here).await.expect("the port is claimed")),
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
        Some(listener) => listener.accept().await.expect("connections can be accepted").0,
        None => pending().await,
    }
}

/// A connection: what the client sent and the server has not got, and the reverse.
struct Link {
    id: u64,
    shared: Arc<Shared>,
    client: Option<TcpStream>,
    server: TcpStream,
    queue: Both<VecDeque<Chunk>>,
    /// The sender of that direction has ended, and its end is in the queue.
    ended: Both<bool>,
}

#[derive(Debug)]
struct Chunk {
    arrived: Instant,
    /// Empty at the end of a direction.
    bytes: Vec<u8>,
    passed: usize,
    /// An answer that is not to arrive.
    lost: bool,
    /// A request that the trigger has looked at.
    examined: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum May {
    Wait,
    WaitUntil(Instant),
    Pass,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    Over,
}

/// How a client learns that its connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// At once, with RST.
    Reset,
    /// After the bytes that it was sent, with FIN.
    Finish,
}

impl Link {
    fn new(id: u64, shared: Arc<Shared>, client: TcpStream, server: TcpStream) -> Self {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        Self { id, shared, client: Some(client), server, queue: Both::default(), ended: Both::default() }
    }

    async fn run(mut self) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if self.is_to_be_cut() && self.cut(Cut::Reset) == Next::Over {
                return self.drain().await;
            }
            let may = Both { to_server: self.may(ToServer), to_client: self.may(ToClient) };
            let due = match (&may.to_server, &may.to_client) {
                (May::WaitUntil(a), May::WaitUntil(b)) => Some(*a.min(b)),
                (May::WaitUntil(due), _) | (_, May::WaitUntil(due)) => Some(*due),
                _ => None,
            };
            let next = tokio::select! {
                _ = changed.changed() => Next::Go,
                () = readable(self.client.as_ref()), if !self.ended[ToServer] => { self.read(ToServer); Next::Go }
                () = readable(Some(&self.server)), if !self.ended[ToClient] => { self.read(ToClient); Next::Go }
                () = writable(Some(&self.server)), if may.to_server == May::Pass => self.pass(ToServer),
                () = writable(self.client.as_ref()), if may.to_client == May::Pass => self.pass(ToClient),
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => Next::Go,
            };
            if next == Next::Over {
                return self.drain().await;
            }
        }
    }

    fn is_to_be_cut(&self) -> bool {
        self.shared.faults().links[&self.id].cut
    }

    /// Reads what has arrived from the sender of a direction.
    fn read(&mut self, direction: Direction) {
        let from = match direction {
            ToServer => self.client.as_ref(),
            ToClient => Some(&self.server),
        };
        if let Some(from) = from {
            let read = from.try_io(Interest::READABLE, || receive(from));
            self.take_in(direction, read);
        }
    }

    /// Queues what was read; returns whether there was anything.
    fn take_in(&mut self, direction: Direction, read: io::Result<Vec<u8>>) -> bool {
        let bytes = match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Ok(bytes) => bytes,
            Err(_) => Vec::new(),
        };
        self.ended[direction] |= bytes.is_empty();
        let mut faults = self.shared.faults();
        let link = faults.links.get_mut(&self.id).expect("a link outlives its task");
        let lost = direction == ToClient && link.lose.is_some();
        if direction == ToServer {
            link.queued += bytes.len() as u64;
        }
        self.queue[direction].push_back(Chunk { arrived: Instant::now(), bytes, passed: 0, lost, examined: false });
        true
    }

    /// Whether the head of a queue may pass.
    fn may(&self, direction: Direction) -> May {
        let faults = self.shared.faults();
        let Some(head) = self.queue[direction].front() else {
            return May::Wait;
        };
        if faults.stall || direction == ToServer && faults.links[&self.id].hold {
            return May::Wait;
        }
        let due = head.arrived + faults.delay[direction];
        if due > Instant::now() { May::WaitUntil(due) } else { May::Pass }
    }

    /// Passes as much of a queue's head as the faults and the receiver allow.
    fn pass(&mut self, direction: Direction) -> Next {
        if direction == ToServer {
            self.examine();
        }
        if self.may(direction) != May::Pass {
            return Next::Go;
        }
        let shared = Arc::clone(&self.shared);
        let mut faults = shared.faults();
        // Once more, now that nobody can change them.
        if faults.stall || direction == ToServer && faults.links[&self.id].hold || faults.links[&self.id].cut {
            return Next::Go;
        }
        let Some(head) = self.queue[direction].front_mut() else {
            return Next::Go;
        };
        if head.bytes.is_empty() {
            self.queue[direction].pop_front();
            drop(faults);
            return self.pass_end(direction);
        }
        if direction == ToClient && (head.lost || faults.swallow) {
            faults.swallowed += (head.bytes.len() - head.passed) as u64;
            let cut = head.lost && faults.links[&self.id].lose == Some(true);
            self.queue[direction].pop_front();
            drop(faults);
            return if cut { self.cut(Cut::Reset) } else { Next::Go };
        }
        let rest = &head.bytes[head.passed..];
        let allowed = match faults.cut_after[direction] {
            Some(left) => rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
            None => rest.len(),
        };
        let to = match direction {
            ToServer => Some(&self.server),
            ToClient => self.client.as_ref(),
        };
        let (done, written) = match to.map(|to| to.try_write(&rest[..allowed])) {
            _ if allowed == 0 => (0, 0),
            Some(Ok(written)) => (written, written),
            Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => return Next::Go,
            // Nobody is there any more: what they would have got is gone.
            None | Some(Err(_)) => (rest.len(), 0),
        };
        head.passed += done;
        if head.passed == head.bytes.len() {
            self.queue[direction].pop_front();
        }
        faults.passed[direction] += written as u64;
        if direction == ToServer {
            faults.links.get_mut(&self.id).expect("a link outlives its task").queued -= done as u64;
        }
        if let Some(left) = &mut faults.cut_after[direction] {
            *left = left.saturating_sub(written as u64);
            if *left == 0 {
                faults.cut_after[direction] = None;
                drop(faults);
                return self.cut(match direction {
                    ToServer => Cut::Reset,
                    ToClient => Cut::Finish,
                });
            }
        }
        Next::Go
    }

    /// Shows the trigger the head of the requests. Where it fires, answers that arrived before it still pass.
    fn examine(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut faults = shared.faults();
        let Faults { trigger, links, .. } = &mut *faults;
        let link = links.get_mut(&self.id).expect("a link outlives its task");
        let Some(head) = self.queue[ToServer].front_mut() else {
            return;
        };
        let Some(armed) = trigger else { return };
        if head.examined || head.bytes.is_empty() {
            return;
        }
        head.examined = true;
        link.seen.extend_from_slice(&head.bytes);
        if !(armed.predicate)(&link.seen) {
            return;
        }
        let lose = Some(armed.cut);
        *trigger = None;
        link.seen = Vec::new();
        drop(faults);
        // Not by way of the runtime, which may not have noticed yet that something has arrived.
        while !self.ended[ToClient] {
            let read = receive(&self.server);
            if !self.take_in(ToClient, read) {
                break;
            }
        }
        shared.faults().links.get_mut(&self.id).expect("a link outlives its task").lose = lose;
    }

    /// The sender of a direction has ended, and all of it has passed.
    fn pass_end(&mut self, direction: Direction) -> Next {
        match direction {
            ToServer => match shutdown(&self.server) {
                Ok(()) => Next::Go,
                Err(_) => Next::Over,
            },
            // A Redis that has closed its side reads no more.
            ToClient => Next::Over,
        }
    }

    /// Lets the client go; the link is over unless requests are on hold.
    fn cut(&mut self, how: Cut) -> Next {
        if let Some(client) = self.client.take() {
            match how {
                Cut::Reset => {
                    let _ = client.set_zero_linger();
                }
                // Unread requests would make the kernel send RST; they are read until the client has understood.
                Cut::Finish => {
                    let _ = shutdown(&client);
                    tokio::spawn(discard(client));
                }
            }
        }
        if !self.ended[ToServer] {
            self.ended[ToServer] = true;
            let arrived = Instant::now();
            self.queue[ToServer].push_back(Chunk {
                arrived,
                bytes: Vec::new(),
                passed: 0,
                lost: false,
                examined: true,
            });
        }
        let mut faults = self.shared.faults();
        faults.cuts += 1;
        let link = faults.links.get_mut(&self.id).expect("a link outlives its task");
        let goes_on = link.hold;
        link.cut = false;
        if !goes_on {
            faults.links.remove(&self.id);
        }
        drop(faults);
        self.shared.settled.notify_all();
        if goes_on { Next::Go } else { Next::Over }
    }

    /// Ends the server's side so that it still gets what has passed.
    async fn drain(self) {
        drop(self.client);
        self.shared.faults().links.remove(&self.id);
        self.shared.settled.notify_all();
        let _ = shutdown(&self.server);
        discard(self.server).await;
    }
}

/// Reads until the other side has closed, for a while.
async fn discard(mut stream: TcpStream) {
    let mut bytes = vec![0; CHUNK];
    let _ = timeout(PATIENCE, async { while matches!(stream.read(&mut bytes).await, Ok(1..)) {} }).await;
}

fn shutdown(stream: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::shutdown(stream, Shutdown::Write)?)
}

/// What has arrived; nothing at the end.
fn receive(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; CHUNK];
    let (read, _) = rustix::net::recv(stream, bytes.as_mut_slice(), RecvFlags::DONTWAIT)?;
    bytes.truncate(read);
    Ok(bytes)
}

async fn readable(stream: Option<&TcpStream>) {
    if let Some(stream) = stream {
        let _ = stream.readable().await;
    } else {
        pending::<()>().await;
    }
}

async fn writable(stream: Option<&TcpStream>) {
    if let Some(stream) = stream {
        let _ = stream.writable().await;
    }
}

use std::collections::VecDeque;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, Shutdown};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use super::Direction::{self, ToClient, ToServer};
use super::TIMEOUT;
use super::faults::{Both, Faults, Shared};

const CHUNK: usize = 64 * 1024;

/// A connection: what the client sent and the server has not received, and the reverse.
pub(super) struct Link {
    id: u64,
    shared: Arc<Shared>,
    client: Option<TcpStream>,
    server: TcpStream,
    queue: Both<VecDeque<Chunk>>,
    /// The sender of that direction has ended, and its end is in the queue.
    ended: Both<bool>,
    /// When the next bytes may pass, if the direction has a pace.
    next: Both<Option<Instant>>,
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
    pub(super) fn new(id: u64, shared: Arc<Shared>, client: TcpStream, server: TcpStream) -> Self {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (queue, ended, next) = (Both::default(), Both::default(), Both::default());
        Self {
            id,
            shared,
            client: Some(client),
            server,
            queue,
            ended,
            next,
        }
    }

    pub(super) async fn run(mut self) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if self.is_to_be_cut() && self.cut(Cut::Reset) == Next::Over {
                return self.drain().await;
            }
            let may = Both {
                to_server: self.may(ToServer),
                to_client: self.may(ToClient),
            };
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
            self.enqueue(direction, read);
        }
    }

    /// Queues what was read; returns whether there was anything.
    fn enqueue(&mut self, direction: Direction, read: io::Result<Vec<u8>>) -> bool {
        let bytes = match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Ok(bytes) => bytes,
            Err(_) => Vec::new(),
        };
        self.ended[direction] |= bytes.is_empty();
        let mut faults = self.shared.faults();
        let link = faults
            .links
            .get_mut(&self.id)
            .expect("a link outlives its task");
        let lost = direction == ToClient && link.lose.is_some();
        if direction == ToServer {
            link.queued += bytes.len() as u64;
        }
        self.queue[direction].push_back(Chunk {
            arrived: Instant::now(),
            bytes,
            passed: 0,
            lost,
            examined: false,
        });
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
        let due = (head.arrived + faults.delay[direction])
            .max(self.next[direction].unwrap_or(head.arrived));
        if due > Instant::now() {
            May::WaitUntil(due)
        } else {
            May::Pass
        }
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
        // Once more, now that the lock keeps the faults from changing.
        if faults.stall
            || direction == ToServer && faults.links[&self.id].hold
            || faults.links[&self.id].cut
        {
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
        let pace = faults.pace[direction];
        // What passes in 10 ms.
        let allowed = pace.map_or(allowed, |pace| allowed.min((pace as usize / 100).max(1)));
        let to = match direction {
            ToServer => Some(&self.server),
            ToClient => self.client.as_ref(),
        };
        let (done, written) = match to.map(|to| to.try_write(&rest[..allowed])) {
            _ if allowed == 0 => (0, 0),
            Some(Ok(written)) => (written, written),
            Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => return Next::Go,
            // The receiver is gone, and what it would have received is lost.
            None | Some(Err(_)) => (rest.len(), 0),
        };
        let time_for =
            |pace: u32| Duration::from_secs(1) * u32::try_from(done).unwrap_or(u32::MAX) / pace;
        self.next[direction] = pace.map(|pace| Instant::now() + time_for(pace));
        head.passed += done;
        if head.passed == head.bytes.len() {
            self.queue[direction].pop_front();
        }
        faults.passed[direction] += written as u64;
        if direction == ToServer {
            faults
                .links
                .get_mut(&self.id)
                .expect("a link outlives its task")
                .queued -= done as u64;
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

    /// Shows the trigger the head of the requests. If it fires, answers that arrived before it
    /// still pass.
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
        // Read directly, since the runtime may not have noticed yet that something has arrived.
        while !self.ended[ToClient] {
            let read = receive(&self.server);
            if !self.enqueue(ToClient, read) {
                break;
            }
        }
        shared
            .faults()
            .links
            .get_mut(&self.id)
            .expect("a link outlives its task")
            .lose = lose;
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

    /// Disconnects the client; the link is over unless requests are on hold.
    fn cut(&mut self, how: Cut) -> Next {
        if let Some(client) = self.client.take() {
            match how {
                Cut::Reset => {
                    let _ = client.set_zero_linger();
                }
                // Unread requests would make the kernel send RST; they are read until the client
                // has closed its side.
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
        let link = faults
            .links
            .get_mut(&self.id)
            .expect("a link outlives its task");
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
    let _ = timeout(TIMEOUT, async {
        while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
    })
    .await;
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

//! A proxy that makes a Redis behave as Dragonfly does, in what the two differ: no binary of
//! Dragonfly itself is available here.
//!
//! - `rules.rs`: what it does with requests and answers
//! - `guard.lua`: what it lets a script do
//! - `resp.rs`: the protocol

mod resp;
mod rules;

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::sleep_until;

use self::resp::Resp;
use self::rules::{Answer, Handling, Scripts};
use crate::port::{Address, Port};

const CHUNK: usize = 64 * 1024;

/// One in this many answers and pushes is late, by at most `LATE`: a push comes before or after the
/// answer that it refers to.
const ONE_IN: u32 = 6;
const LATE: Duration = Duration::from_millis(3);

/// A Redis behind Dragonfly's rules: no BCAST, no undeclared keys, one key in each push, which
/// comes before or after the answer that it refers to, and so on.
#[derive(Debug)]
pub struct Dragonfly {
    port: Port,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Dragonfly {
    /// In front of a [`Server`](crate::Server), a [`Proxy`](crate::Proxy) or a port.
    pub fn over(server: &impl Address) -> Self {
        let (port, there) = (Port::claim(), server.port());
        let here = port.number;
        let (end, ended) = oneshot::channel();
        let (ready, listening) = std::sync::mpsc::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("a runtime can be built")
                .block_on(async move {
                    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, here))
                        .await
                        .expect("the port is claimed");
                    ready.send(()).expect("the constructor waits");
                    tokio::select! {
                        () = listen(listener, there) => {}
                        _ = ended => {}
                    }
                });
        };
        let thread = thread::Builder::new()
            .name("dragonfly".to_owned())
            .spawn(run)
            .expect("a thread can be started");
        listening.recv().expect("it listens");
        Self {
            port,
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// `dragonfly://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("dragonfly://127.0.0.1:{}", self.port.number)
    }
}

impl Address for Dragonfly {
    fn port(&self) -> u16 {
        self.port.number
    }
}

impl Drop for Dragonfly {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn listen(listener: TcpListener, there: u16) {
    let scripts = Arc::new(Scripts::default());
    loop {
        let (client, _) = listener
            .accept()
            .await
            .expect("connections can be accepted");
        let scripts = Arc::clone(&scripts);
        tokio::spawn(async move {
            // If the server is not there, the client is disconnected.
            if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, there)).await {
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let _ = Link::new(scripts).run(client, server).await;
            }
        });
    }
}

/// A connection: what is asked and not answered, and what is on its way to the client.
#[derive(Debug)]
struct Link {
    scripts: Arc<Scripts>,
    is_resp3: bool,
    asked: VecDeque<Asked>,
    answers: Late,
    pushes: Late,
}

#[derive(Debug)]
enum Asked {
    OfServer(Answer),
    /// Answered here, once the requests before it are.
    Here(Resp),
}

/// Values that leave in order, some of them late.
#[derive(Debug, Default)]
struct Late(VecDeque<(Instant, Vec<u8>)>);

impl Late {
    fn push(&mut self, value: &Resp) {
        let late = if fastrand::u32(..ONE_IN) == 0 {
            LATE.mul_f64(fastrand::f64())
        } else {
            Duration::ZERO
        };
        let due = Instant::now() + late;
        let due = self.0.back().map_or(due, |(before, _)| due.max(*before));
        self.0.push_back((due, value.bytes()));
    }

    fn next_due(&self) -> Option<Instant> {
        self.0.front().map(|(due, _)| *due)
    }

    fn leaves(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.0
            .front()
            .is_some_and(|(due, _)| *due <= now)
            .then(|| self.0.pop_front())
            .flatten()
            .map(|(_, bytes)| bytes)
    }
}

impl Link {
    fn new(scripts: Arc<Scripts>) -> Self {
        let (answers, pushes) = (Late::default(), Late::default());
        Self {
            scripts,
            is_resp3: false,
            asked: VecDeque::new(),
            answers,
            pushes,
        }
    }

    async fn run(mut self, mut client: TcpStream, mut server: TcpStream) -> io::Result<()> {
        let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
        let (mut client_reads, mut client_writes) = client.split();
        let (mut server_reads, mut server_writes) = server.split();
        loop {
            let now = Instant::now();
            let mut leaving = Vec::new();
            // A push that is due overtakes answers that are late, and the other way round.
            while let Some(bytes) = self.pushes.leaves(now).or_else(|| self.answers.leaves(now)) {
                leaving.extend(bytes);
            }
            client_writes.write_all(&leaving).await?;
            let due = [self.answers.next_due(), self.pushes.next_due()]
                .into_iter()
                .flatten()
                .min();
            from_client.reserve(CHUNK);
            from_server.reserve(CHUNK);
            tokio::select! {
                read = client_reads.read_buf(&mut from_client) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    let mut passed = Vec::new();
                    take_all(&mut from_client, |request| self.request(request, &mut passed));
                    server_writes.write_all(&passed).await?;
                }
                read = server_reads.read_buf(&mut from_server) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    take_all(&mut from_server, |answer| self.answer(answer));
                }
                () = sleep_until(due.unwrap_or(now).into()), if due.is_some() => {}
            }
        }
    }

    fn request(&mut self, request: Resp, passed: &mut Vec<u8>) {
        let words = request.words();
        if words[0].eq_ignore_ascii_case(b"HELLO") {
            self.is_resp3 = words.get(1).is_some_and(|version| version == b"3");
        }
        match rules::handling(words, self.is_resp3, &self.scripts) {
            Handling::Passed(words, answer) => {
                Resp::of_words(words).write(passed);
                self.asked.push_back(Asked::OfServer(answer));
            }
            Handling::Answered(answer) => {
                self.asked.push_back(Asked::Here(answer));
                self.answer_here();
            }
        }
    }

    fn answer(&mut self, answer: Resp) {
        match answer {
            Resp::Many(b'>', push) => rules::one_by_one(push)
                .iter()
                .for_each(|push| self.pushes.push(push)),
            answer => {
                let Some(Asked::OfServer(how)) = self.asked.pop_front() else {
                    panic!("there was no request for {answer:?}")
                };
                self.answers.push(&rules::changed(answer, how));
                self.answer_here();
            }
        }
    }

    /// Sends the answers that are made here, up to the next request that the server has to answer.
    fn answer_here(&mut self) {
        while let Some(Asked::Here(answer)) = self.asked.front() {
            self.answers.push(answer);
            self.asked.pop_front();
        }
    }
}

/// Takes all values out of what has arrived that are complete.
fn take_all(arrived: &mut Vec<u8>, mut take: impl FnMut(Resp)) {
    let mut at = 0;
    while let Some((value, length)) = (at < arrived.len())
        .then(|| Resp::parse(&arrived[at..]))
        .flatten()
    {
        at += length;
        take(value);
    }
    arrived.drain(..at);
}

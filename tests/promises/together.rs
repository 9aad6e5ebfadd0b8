//! Rules 5 and 6: eight processes change one list, one counter and one map at once, and
//! nothing is lost or doubled, whatever happens to the server and the line.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use support::Direction::{ToClient, ToServer};
use support::{Child, Proxy, Server, eventually, eventually_some};
use synced_memory::{Key, Memory};

use crate::line::durable;
use crate::sizes::{Size, with_both_sizes};

const DEADLINE: Duration = Duration::from_secs(120);
const PROCESSES: usize = 8;

/// How many pushes, adds and inserts each process makes.
fn rounds(size: Size) -> usize {
    if std::env::var_os("SYNCED_MEMORY_SOAK").is_some() {
        size.scaled(1_000, 1_000)
    } else {
        size.scaled(120, 12)
    }
}

/// A pseudorandom number for faults: the sequence is the same in every run.
pub(crate) fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// How many adds the server has made.
fn count(server: &Server) -> usize {
    let stored: Option<serde_json::Value> = server
        .get_text("memory:count")
        .map(|text| serde_json::from_str(&text).unwrap());
    stored.map_or(0, |stored| {
        usize::try_from(stored["value"].as_u64().unwrap()).unwrap()
    })
}

struct Crew {
    children: Vec<Child>,
    began: Instant,
    size: Size,
}

impl Crew {
    /// Processes at the URL of a server, whose list may be large before they begin.
    fn at(url: &str, size: Size) -> Self {
        let memory = Memory::builder()
            .url(url)
            .timeout(DEADLINE)
            .build()
            .unwrap();
        size.fill(&memory.synced(&Key::new("items")));
        let spawn = |number| {
            Child::spawn(
                env!("CARGO_BIN_EXE_contributor"),
                [url, &format!("w{number}")],
            )
        };
        let mut children: Vec<Child> = (0..PROCESSES).map(spawn).collect();
        for child in &mut children {
            assert_eq!(child.recv(), "opened");
        }
        Self {
            children,
            began: Instant::now(),
            size,
        }
    }

    fn send(&mut self, what: &str) {
        self.children.iter_mut().for_each(|child| child.send(what));
    }

    fn receive(&mut self) -> Vec<String> {
        let receive = |child: &mut Child| child.recv_within(DEADLINE).expect("it answers in time");
        self.children.iter_mut().map(receive).collect()
    }

    fn laps(&mut self) -> Vec<u64> {
        self.send("laps");
        self.receive()
            .iter()
            .map(|laps| laps.parse().unwrap())
            .collect()
    }

    /// How many calls each process makes while all of them run, measured until the slowest has made
    /// a quarter of what the fastest has: the machine is fair to eight processes only in the long
    /// run.
    fn race(&mut self, kind: &str, length: u64) -> Vec<u64> {
        self.send(&format!("race {kind}"));
        self.receive();
        // The process that starts first is alone for a while; its calls count only once the others
        // have started too.
        eventually(DEADLINE, "all of them run", || {
            self.laps().iter().all(|laps| *laps > 0)
        });
        let before = self.laps();
        let done = eventually_some(
            Duration::from_secs(60),
            "the slowest has made a quarter",
            || {
                let done: Vec<u64> = self
                    .laps()
                    .iter()
                    .zip(&before)
                    .map(|(after, before)| after - before)
                    .collect();
                let is_fair = 4 * done.iter().min()? >= *done.iter().max()?;
                (done.iter().sum::<u64>() >= length && is_fair).then_some(done)
            },
        );
        self.send("stop");
        self.receive();
        done
    }

    /// Asserts that everything they did is there: each item once, and the items of each process in
    /// order.
    fn assert_each_once(mut self, what: &str, server: &Server) {
        let each = rounds(self.size);
        let (all, filler) = (PROCESSES * each, self.size.items());
        let in_list = filler.len() + all;
        self.send("flush");
        self.receive();
        let took = self.began.elapsed();
        // Once all have delivered, all see the same, as soon as the server answers them in time.
        let expected = vec![format!("0 0 {in_list} {all} {all}"); PROCESSES];
        eventually(
            DEADLINE,
            &format!(
                "each sees {:?} (dead letters, superseded writes, and what is there)",
                expected[0]
            ),
            || {
                self.send("see");
                self.receive() == expected
            },
        );
        let memory = Memory::open(&server.url()).unwrap();
        let items = memory
            .get(&Key::<Vec<String>>::new("items"))
            .unwrap()
            .unwrap();
        let entries = memory
            .get(&Key::<HashMap<String, usize>>::new("entries"))
            .unwrap()
            .unwrap();
        let there = (items.len(), count(server), entries.len());
        assert_eq!(there, (in_list, all, all));
        assert_eq!(items[..filler.len()], filler);
        for process in 0..PROCESSES {
            let prefix = format!("w{process}/");
            let own: Vec<usize> = items
                .iter()
                .filter_map(|item| item.strip_prefix(&prefix)?.parse().ok())
                .collect();
            assert!(
                own.iter().copied().eq(0..each),
                "each item of {prefix} once, in order: {own:?}"
            );
            assert!(
                (0..each).all(|n| entries.get(&format!("{prefix}{n}")) == Some(&n)),
                "the inserts of {prefix}"
            );
        }
        println!("{what}: {PROCESSES} x {each} of each kind in {took:?}");
    }
}

with_both_sizes!(
    pushes_adds_and_inserts_of_eight_processes_at_once_are_all_there,
    no_change_is_lost_or_doubled_when_the_server_is_killed_and_restarted,
    no_change_is_lost_or_doubled_when_the_server_is_frozen,
    no_change_is_lost_or_doubled_when_connections_are_cut_at_random_bytes,
);

fn pushes_adds_and_inserts_of_eight_processes_at_once_are_all_there(size: Size) {
    let server = Server::redis().start();
    let mut crew = Crew::at(&server.url(), size);
    crew.send(&format!("go {}", rounds(size)));
    crew.receive();
    crew.assert_each_once("undisturbed", &server);
}

/// Three outages under all of them. Each lasts until all have gone on for a while without the
/// server.
fn three_outages(what: &str, size: Size, begin: impl Fn(&Server), end: impl Fn(&Server)) {
    let server = durable();
    let mut crew = Crew::at(&format!("{}?timeout=100ms", server.url()), size);
    let part = rounds(size) / 6;
    for _ in 0..3 {
        // In the middle of their work.
        let before = count(&server);
        crew.send(&format!("go {part}"));
        eventually(DEADLINE, "they are working", || {
            count(&server) >= before + part * PROCESSES / 4
        });
        begin(&server);
        assert_eq!(crew.receive(), ["did"; PROCESSES]);
        // And while all of them reconnect.
        crew.send(&format!("go {part}"));
        end(&server);
        assert_eq!(crew.receive(), ["did"; PROCESSES]);
    }
    crew.send(&format!("go {}", rounds(size) - 6 * part));
    crew.receive();
    crew.assert_each_once(what, &server);
}

fn no_change_is_lost_or_doubled_when_the_server_is_killed_and_restarted(size: Size) {
    three_outages("killed", size, Server::kill, Server::start);
}

fn no_change_is_lost_or_doubled_when_the_server_is_frozen(size: Size) {
    three_outages("frozen", size, Server::freeze, Server::thaw);
}

fn no_change_is_lost_or_doubled_when_connections_are_cut_at_random_bytes(size: Size) {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let mut crew = Crew::at(&format!("{}?timeout=100ms", proxy.url()), size);
    let mut random = 3;
    let parts = rounds(size) / 12;
    for part in 0..parts {
        let rounds = rounds(size) / parts + if part == 0 { rounds(size) % parts } else { 0 };
        crew.send(&format!("go {rounds}"));
        let cuts = proxy.cuts();
        for n in 1..=3 {
            let direction = if draw(&mut random, 2) == 0 {
                ToServer
            } else {
                ToClient
            };
            proxy.cut_after_bytes(direction, draw(&mut random, 3_000));
            // The processes that were not cut keep sending; at the latest one that reconnects sends
            // enough for the next cut.
            eventually(DEADLINE, "a connection is cut", || proxy.cuts() >= cuts + n);
        }
        assert_eq!(crew.receive(), vec!["did".to_owned(); PROCESSES]);
    }
    proxy.do_not_cut();
    println!("{} cuts", proxy.cuts());
    crew.assert_each_once("cut at random bytes", &server);
}

#[test]
fn of_eight_processes_on_one_key_the_slowest_makes_a_quarter_of_the_fastest() {
    let server = Server::redis().start();
    let mut crew = Crew::at(&server.url(), Size::Small);
    let length = if std::env::var_os("SYNCED_MEMORY_SOAK").is_some() {
        8_000
    } else {
        2_000
    };
    for kind in ["add", "push"] {
        let done = crew.race(kind, length);
        let (slowest, fastest) = (done.iter().min().unwrap(), done.iter().max().unwrap());
        println!("{kind}: {done:?}, slowest / fastest = {slowest} / {fastest}");
    }
}

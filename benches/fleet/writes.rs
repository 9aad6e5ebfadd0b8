//! What near keys of other processes cost a write.

use std::time::Instant;

use support::Server;
use synced_memory::{Key, Memory};
use synced_memory_benches::processes::{Fleet, MEMORIES, PROCESSES, cpu_of, now};
use synced_memory_benches::{quantile, report, report_at_most};

use crate::member::SHARED;

const ROUNDS: usize = 15;
const WRITES: u32 = 1_000;
const DELIVERIES: usize = 500;
const HELD: usize = 1_000;

/// A server of its own for each side, so that rounds can alternate.
struct Side {
    name: &'static str,
    server: Server,
    writer: Memory,
    _fleet: Option<Fleet>,
    /// The server's CPU time for a write, in seconds: one for each round.
    figures: Vec<f64>,
}

impl Side {
    fn new(name: &'static str, start: impl FnOnce(&Server) -> Option<Fleet>) -> Self {
        let server = Server::redis().start();
        let fleet = start(&server);
        let writer = Memory::open(&server.url()).expect("the server is there");
        Self {
            name,
            server,
            writer,
            _fleet: fleet,
            figures: Vec::new(),
        }
    }

    fn round(&mut self) {
        let other = self.writer.synced(&Key::<u32>::new("other"));
        let before = cpu_of(&self.server);
        for n in 0..WRITES {
            other.set(n).expect("the server is there");
        }
        self.figures
            .push((cpu_of(&self.server) - before) / f64::from(WRITES));
    }
}

/// The server's CPU time for a write of a key that nobody else has.
pub fn of_another_key() {
    let with = |order: &'static str| {
        move |server: &Server| {
            let mut fleet = Fleet::of_memories(server);
            fleet.ask(order);
            Some(fleet)
        }
    };
    let others = |kind: &'static str| {
        move |server: &Server| {
            let connections = MEMORIES / PROCESSES;
            Some(Fleet::start(server, kind, PROCESSES, connections))
        }
    };
    let one = |kind: &'static str, order: Option<String>| {
        move |server: &Server| {
            let mut fleet = Fleet::start(server, kind, 1, 1);
            if let Some(order) = order {
                fleet.ask(&order);
            }
            Some(fleet)
        }
    };
    let mut sides = [
        Side::new("nobody else", |_| None),
        Side::new("150 memories, none near", others("through")),
        Side::new("150 memories, each holds one near key", with("hold 1")),
        Side::new("150 sockets with BCAST PREFIX", others("broadcast")),
        Side::new(
            "150 connections of redis-rs with its cache",
            others("cached"),
        ),
        Side::new("1 memory, nothing held", one("through", None)),
        Side::new(
            "1 memory, 1,000 keys watched",
            one("through", Some(format!("watch {HELD}"))),
        ),
        Side::new(
            "1 memory, 1,000 keys held near",
            one("near", Some(format!("hold {HELD}"))),
        ),
    ];
    for round in 0..=ROUNDS {
        for side in &mut sides {
            side.round();
            if round == 0 {
                // It warms up.
                side.figures.clear();
            }
        }
    }
    println!("the server's CPU time for a write of another key, with");
    let figures = sides.each_mut().map(|side| {
        let figure = quantile(&mut side.figures, 0.5);
        println!("  {:<60} {:>8.1} us", side.name, 1e6 * figure);
        figure
    });
    let [nobody, none, near, broadcast, cached, idle, watched, held] = figures;
    report_at_most(
        "150 memories with a near key / 150 with none",
        near / none,
        1.2,
    );
    report_at_most("1,000 watched keys / none", watched / idle, 1.1);
    report_at_most("1,000 keys held near / none", held / idle, 1.1);
    report("150 memories, none near / nobody else", none / nobody, "");
    report(
        "  … 150 sockets with BCAST PREFIX / nobody else",
        broadcast / nobody,
        "",
    );
    report(
        "  … redis-rs with its cache / nobody else",
        cached / nobody,
        "",
    );
}

/// How long it takes until a write has reached all who hold its key near.
pub fn delivery() {
    let server = Server::redis().start();
    let mut fleet = Fleet::of_memories(&server);
    fleet.ask("hold 1");
    let writer = Memory::open(&server.url()).expect("the server is there");
    let shared = writer.synced(&Key::<usize>::new(SHARED));
    fleet.order(&format!("deliver {DELIVERIES}"));
    fleet.expect("watching");

    let (mut last, mut round_trips) = (Vec::new(), Vec::new());
    for value in 1..=DELIVERIES {
        let began = now();
        shared.set(value).expect("the server is there");
        let arrivals = fleet.answers();
        let arrivals = arrivals.iter().map(|line| {
            let (reached, when) = line.split_once(' ').expect("a value and a time");
            assert_eq!(reached, value.to_string());
            when.parse::<u64>().expect("a time")
        });
        last.push(arrivals.max().expect("there are processes") - began);
        let began = Instant::now();
        shared.get().expect("the server is there");
        round_trips.push(began.elapsed());
    }
    let round_trip = quantile(&mut round_trips, 0.5);
    let mut in_round_trips = |share| {
        #[allow(clippy::cast_precision_loss)]
        let nanos = quantile(&mut last, share) as f64;
        nanos / round_trip.as_secs_f64() / 1e9
    };
    let (median, late) = (in_round_trips(0.5), in_round_trips(0.99));
    println!("a round trip takes {round_trip:?}");
    report(
        "a write has reached all 150 / round trips, median",
        median,
        "",
    );
    report_at_most(
        "a write has reached all 150 / round trips, p99",
        late,
        150.0,
    );
}

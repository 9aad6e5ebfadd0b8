//! What other processes have to do with it: how soon they have a change, and what it takes to make
//! changes together with them.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use support::{Server, eventually};
use synced_memory::{Key, Memory, ReadPolicy, Synced, SyncedMemory};
use synced_memory_benches::processes::{Fleet, answer, now, orders};
use synced_memory_benches::quantile;

use crate::cost::{message, messages, open, stored};
use crate::figures::Figures;
use crate::sizes;

const WRITERS: usize = 8;
/// How many changes each of them makes in a round.
const CHANGES: u64 = 100;
const ROUNDS: usize = 5;
const DEADLINE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(10);

/// The series of the near view of another process.
pub const HAS_A_PUSH: &str = "near view of another process has a push";
pub const SEES_IT: &str = "with(|list| list.last()) there shows it";
/// The series of what 8 processes take for changes of one state.
pub const ONE_LIST: &str = "8 processes, one list / own ones";
pub const ONE_NUMBER: &str = "8 processes, one number / own ones";
pub const ONE_MAP: &str = "8 processes, one map / own ones";
pub const ALL_THREE: &str = "8 processes, all three / own ones";

fn list() -> Key<Vec<String>> {
    Key::new("list")
}

/// One of the other processes. The arguments: what it is, the URL of the server, how many
/// connections it has.
pub fn serve(arguments: &[String]) {
    let url = &arguments[1];
    let near = Memory::builder().url(url).read_policy(ReadPolicy::Near);
    let near = near.timeout(DEADLINE).build().expect("a memory");
    let (view, memory) = (near.synced(&list()), open(url));
    answer("ready");
    for order in orders() {
        let words: Vec<_> = order.split(' ').collect();
        let number = |at: usize| words[at].parse::<u32>().expect("a number");
        match words[0] {
            "follow" => follow(&view, number(1), number(2)),
            "change" => change(&memory, words[1], words[2]),
            other => panic!("{other} is no order"),
        }
    }
}

/// Waits for each of so many pushes, and looks at what was pushed.
fn follow(view: &Synced<Vec<String>>, size: u32, pushes: u32) {
    let last = || view.with(|list| list.last().cloned());
    eventually(DEADLINE, "it is current", || {
        view.len().ok() == Some(size as usize)
            && last().is_ok()
            && view.staleness() == Some(Duration::ZERO)
    });
    answer("current");
    for n in size..size + pushes {
        while view.len().expect("it is set") <= n as usize {
            thread::yield_now();
        }
        let began = now();
        assert_eq!(last().expect("it is set"), Some(message(n)));
        answer(&format!("{began} {}", now()));
    }
}

/// Makes changes to the state below a scope; below a scope of its own if that begins with `own`.
fn change(memory: &Memory, kind: &str, scope: &str) {
    let process = std::process::id().to_string();
    let whose = if scope.starts_with("own") {
        &process
    } else {
        ""
    };
    let shared = Shared::attach(&memory.scope(&format!("{scope}{whose}")));
    let is = |what| kind == what || kind == "all";
    for n in 0..CHANGES {
        if is("list") {
            stored(shared.list().push(n));
        }
        if is("number") {
            stored(shared.add_number(1));
        }
        if is("map") {
            let inserted = shared.map().insert(format!("{process} {n}"), n);
            assert_eq!(inserted.expect("it is inserted"), None);
        }
    }
    answer("changed");
}

/// What several processes change.
#[derive(SyncedMemory)]
struct Shared {
    #[synced(default)]
    list: Vec<u64>,
    #[synced(default)]
    number: u64,
    #[synced(default)]
    map: BTreeMap<String, u64>,
}

/// How long after a push began the near view of another process has it, and how long that process
/// then takes for a look at the last entry.
pub fn near(figures: &mut Figures) {
    let server = Server::redis().start();
    let list = open(&server.url()).synced(&list());
    let mut process = Fleet::start(&server, "follower", 1, 1);
    for size in sizes() {
        stored(list.set(messages(size)));
        let pushes = (200_000 / size).clamp(7, 50);
        process.ask(&format!("follow {size} {pushes}"));
        let (mut has, mut sees) = (Vec::new(), Vec::<Duration>::new());
        for n in size..size + pushes {
            // A key that is written all the time is read again less often.
            thread::sleep(PAUSE + sees.last().map_or(PAUSE, |last| 2 * *last));
            let began = now();
            stored(list.push(message(n)));
            let times = process.answers().remove(0);
            let (there, visible) = times.split_once(' ').expect("two times");
            for (all, time) in [(&mut has, there), (&mut sees, visible)] {
                let time: u64 = time.parse().expect("a time");
                all.push(Duration::from_nanos(time - began));
            }
        }
        for (what, mut times) in [(HAS_A_PUSH, has), (SEES_IT, sees)] {
            let median = quantile(&mut times, 0.5).as_secs_f64();
            figures.add(what, "us", size, 1e6 * median);
        }
    }
}

/// What 8 processes take for changes of one state, as a ratio to what they take for changes of
/// states of their own.
pub fn contention(figures: &mut Figures) {
    let server = Server::redis().start();
    let memory = open(&server.url());
    let mut processes = Fleet::start(&server, "writer", WRITERS, 1);
    for (name, kind, changes) in [
        (ONE_LIST, "list", CHANGES),
        (ONE_NUMBER, "number", CHANGES),
        (ONE_MAP, "map", CHANGES),
        (ALL_THREE, "all", 3 * CHANGES),
    ] {
        let (mut own, mut shared) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            for (whose, times) in [("own", &mut own), ("shared", &mut shared)] {
                let began = now();
                processes.ask(&format!("change {kind} {whose}{kind}{round}"));
                times.push(Duration::from_nanos(now() - began).as_secs_f64());
            }
            let all = Shared::attach(&memory.scope(&format!("shared{kind}{round}")));
            let all = all.snapshot().expect("the server is there");
            let made = (all.list.len() + all.map.len()) as u64 + all.number;
            assert_eq!(made, WRITERS as u64 * changes, "each is made once");
        }
        let [own, shared] = [own, shared].map(|mut times| quantile(&mut times, 0.5));
        figures.add(name, "x", 0, shared / own);
    }
}

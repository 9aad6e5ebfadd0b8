//! Many processes on one server, and what the server says of itself.

use std::env::current_exe;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use support::{Child, Server};

/// The first argument of a program that is started again as a process of a fleet.
pub const WORD: &str = "member";

/// How many memories a fleet has, and in how many processes.
pub const MEMORIES: usize = 150;
pub const PROCESSES: usize = 10;

const DEADLINE: Duration = Duration::from_secs(120);

/// Other processes, each with the same number of connections to one server.
pub struct Fleet {
    processes: Vec<Child>,
}

impl Fleet {
    /// Starts `count` processes with so many connections each, of that kind, and waits until they
    /// are connected.
    pub fn start(server: &Server, kind: &str, count: usize, connections: usize) -> Self {
        let program = current_exe().expect("this program has a path");
        let (url, connections) = (server.url(), connections.to_string());
        let arguments = [WORD, kind, &url, &connections];
        let start = |_| Child::spawn(&program, arguments);
        let mut fleet = Self {
            processes: (0..count).map(start).collect(),
        };
        fleet.expect("ready");
        fleet
    }

    /// 150 memories in 10 processes, which read near what they hold.
    pub fn of_memories(server: &Server) -> Self {
        Self::start(server, "near", PROCESSES, MEMORIES / PROCESSES)
    }

    /// Gives all of them an order, without waiting.
    pub fn order(&mut self, order: &str) {
        self.processes
            .iter_mut()
            .for_each(|process| process.send(order));
    }

    /// The next line of each.
    pub fn answers(&mut self) -> Vec<String> {
        let next = |process: &mut Child| process.recv_within(DEADLINE).expect("it answers");
        self.processes.iter_mut().map(next).collect()
    }

    /// Waits until each has answered with this word.
    pub fn expect(&mut self, word: &str) {
        for answer in self.answers() {
            assert_eq!(answer, word);
        }
    }

    /// Gives all of them an order, and waits until each has carried it out.
    pub fn ask(&mut self, order: &str) -> Vec<String> {
        self.order(order);
        self.answers()
    }

    /// The numbers in the answers to an order, of all processes together.
    pub fn numbers(&mut self, order: &str) -> Vec<f64> {
        numbers(&self.ask(order))
    }
}

fn numbers(lines: &[String]) -> Vec<f64> {
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    words.map(|word| word.parse().expect("a number")).collect()
}

/// A figure that the server's INFO has.
pub fn info(server: &Server, section: &str, name: &str) -> f64 {
    let text = server.info(section);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let figure = line.unwrap_or_else(|| panic!("INFO {section} has no {name}"));
    figure.trim().parse().expect("a number")
}

/// The CPU time that the server has used, in seconds.
pub fn cpu_of(server: &Server) -> f64 {
    info(server, "cpu", "used_cpu_user") + info(server, "cpu", "used_cpu_sys")
}

/// How much memory the server uses, in bytes.
pub fn memory_of(server: &Server) -> f64 {
    info(server, "memory", "used_memory")
}

/// Answers an order, in a process of a fleet.
pub fn answer(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .expect("the measurement reads it");
}

/// The orders that a process of a fleet gets.
pub fn orders() -> impl Iterator<Item = String> {
    io::stdin().lock().lines().map_while(Result::ok)
}

/// The time that all processes of this machine share, in ns.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let time = Duration::try_from(time).expect("a time");
    u64::try_from(time.as_nanos()).expect("the machine is younger than 500 years")
}

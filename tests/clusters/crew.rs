//! Eight processes that push, add and insert at once, and what is left of that.

use std::collections::HashMap;
use std::time::Duration;

use support::{Child, ClusterProxies};
use synced_memory::{Builder, Key};

use crate::reader_of;

const PROCESSES: usize = 8;
const DEADLINE: Duration = Duration::from_secs(120);

/// The keys that the crew works on.
pub(crate) const KEYS: [&str; 3] = ["memory:items", "memory:count", "memory:entries"];

/// Eight processes, each of which changes one list, one counter and one map.
pub(crate) struct Crew {
    children: Vec<Child>,
    rounds: usize,
}

impl Crew {
    pub(crate) fn at(url: &str) -> Self {
        Self::start(url, &[])
    }

    /// The same, who reach each node through its proxy.
    pub(crate) fn through(proxies: &ClusterProxies) -> Self {
        let ports = proxies.ports();
        let pairs: Vec<String> = ports.map(|(node, at)| format!("{node}={at}")).collect();
        Self::start(&proxies.url(), &pairs)
    }

    fn start(url: &str, ports: &[String]) -> Self {
        let spawn = |number| {
            let own = [url.to_owned(), format!("w{number}")];
            let arguments = own.iter().chain(ports);
            Child::spawn(env!("CARGO_BIN_EXE_contributor"), arguments)
        };
        let mut children: Vec<Child> = (0..PROCESSES).map(spawn).collect();
        for child in &mut children {
            assert_eq!(child.recv_within(DEADLINE).as_deref(), Some("opened"));
        }
        Self {
            children,
            rounds: 0,
        }
    }

    /// Lets each process do this many rounds more, while `disturb` does what it does, round after
    /// round, until they are done.
    pub(crate) fn work(&mut self, rounds: usize, mut disturb: impl FnMut(usize)) {
        self.rounds += rounds;
        for child in &mut self.children {
            child.send(format!("go {rounds}"));
        }
        let mut done = 0;
        let mut turns = 0;
        while done < self.children.len() {
            disturb(turns);
            turns += 1;
            let left = self.children.iter_mut().skip(done);
            let is_done = |child: &mut Child| child.recv_within(Duration::from_millis(1)).is_some();
            done += left.map(is_done).take_while(|is_done| *is_done).count();
            assert!(turns < 100_000, "they are never done");
        }
    }

    /// How many pushes, adds and inserts were made.
    pub(crate) fn all(&self) -> usize {
        PROCESSES * self.rounds
    }

    /// Waits until all is delivered.
    pub(crate) fn deliver(&mut self) {
        for child in &mut self.children {
            child.send("flush");
        }
        for child in &mut self.children {
            assert_eq!(child.recv_within(DEADLINE).as_deref(), Some("flushed"));
        }
    }

    /// All is delivered, and every push, add and insert was made exactly once.
    pub(crate) fn check(&mut self, reader: Builder) {
        self.deliver();
        let (made, all) = (Made::of(reader), self.all());
        assert_eq!(made.lost(all), [0; 3], "something is lost: {made:?}");
        assert_eq!(
            made.twice(all),
            [0; 2],
            "something was made twice: {made:?}"
        );
    }
}

/// How much of what the crew did is there.
#[derive(Debug)]
pub(crate) struct Made {
    pushed: usize,
    distinct: usize,
    added: usize,
    entries: usize,
}

impl Made {
    pub(crate) fn of(reader: Builder) -> Self {
        let memory = reader_of(reader);
        let items = memory.get(&Key::<Vec<String>>::new("items")).unwrap();
        let count = memory.get(&Key::<usize>::new("count")).unwrap();
        let entries = memory
            .get(&Key::<HashMap<String, u64>>::new("entries"))
            .unwrap();
        let items = items.unwrap_or_default();
        let pushed = items.len();
        let mut distinct = items;
        distinct.sort_unstable();
        distinct.dedup();
        Self {
            pushed,
            distinct: distinct.len(),
            added: count.unwrap_or_default(),
            entries: entries.unwrap_or_default().len(),
        }
    }

    /// How many pushes, adds and inserts are not there.
    fn lost(&self, all: usize) -> [usize; 3] {
        [self.distinct, self.added, self.entries].map(|made| all.saturating_sub(made))
    }

    /// How many pushes and adds are there more than once.
    pub(crate) fn twice(&self, all: usize) -> [usize; 2] {
        [self.pushed - self.distinct, self.added.saturating_sub(all)]
    }
}

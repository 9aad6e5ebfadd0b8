//! How long one operation takes, by how many entries there are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs};

use redis::Commands;
use support::{Server, python};
use synced_memory::{Key, Memory, Synced, Written};
use synced_memory_benches::quantile;

use crate::figures::Figures;
use crate::{LARGE, MILLION, sizes};

/// How many operations of a round are not measured: after them the server and this process know
/// what they can know.
const WARM_UP: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(60);

/// The series that the plot or the bars name.
pub const PUSH: &str = "push";
pub const SET_AT: &str = "at(i).set(), same length";
pub const GET_AT: &str = "at(i).get()";
pub const LEN: &str = "len() of a list";
pub const WITH: &str = "with() of a list, unchanged";
pub const INSERT: &str = "insert() of a new key";
pub const REPLACE: &str = "insert() of a key, same length";
pub const ADD_AT: &str = "at(k).add()";
pub const GET_AT_KEY: &str = "at(k).get()";
pub const LEN_OF_MAP: &str = "len() of a map";
pub const RPUSH: &str = "redis-rs: RPUSH";
pub const WHOLE: &str = "redis-rs: GET, push, SET";
pub const PYTHON: &str = "Python package: append";
pub const SQLITE_PUSH: &str = "sqlite: push";
pub const SQLITE_LOG: &str = "sqlite: log of a push";

/// How many bytes an item of the list takes in JSON.
pub const ITEM: f64 = 70.0;

/// An item of the list.
pub fn message(n: u32) -> String {
    format!("message {n:08}, which is about as long as what people say in chats")
}

pub fn messages(count: u32) -> Vec<String> {
    (0..count).map(message).collect()
}

fn name(n: u32) -> String {
    format!("entry{n:09}")
}

/// A memory that waits as long as the largest values take.
pub fn open(url: &str) -> Memory {
    // A list of a million messages is assigned as a whole at first.
    let builder = Memory::builder()
        .url(url)
        .timeout(TIMEOUT)
        .outbox_limit(1 << 30);
    builder.build().expect("the backend is there")
}

/// What is measured, on one server.
struct Sides {
    list: Synced<Vec<String>>,
    map: Synced<BTreeMap<String, u64>>,
    peer: RefCell<redis::Connection>,
}

impl Sides {
    fn new(server: &Server) -> Self {
        let memory = open(&server.url());
        let client = redis::Client::open(server.url()).expect("a URL");
        Self {
            list: memory.synced(&Key::new("list")),
            map: memory.synced(&Key::new("map")),
            peer: RefCell::new(client.get_connection().expect("the server is there")),
        }
    }

    fn fill_list(&self, count: u32) {
        stored(self.list.set(messages(count)));
    }

    fn fill_map(&self, count: u32) {
        let map = (0..count).map(|n| (name(n), 1_000_000)).collect();
        stored(self.map.set(map));
    }

    fn fill_bare(&self, count: u32) {
        fill_bare(&mut self.peer.borrow_mut(), count);
    }

    fn fill_whole(&self, count: u32) {
        self.put_whole(&messages(count));
    }

    /// Reads the whole value, adds to it, and writes it.
    fn push_whole(&self, n: u32) {
        let text: String = self.peer.borrow_mut().get("whole").expect("it is set");
        let mut list: Vec<String> = serde_json::from_str(&text).expect("a list");
        list.push(message(n));
        self.put_whole(&list);
    }

    fn put_whole(&self, list: &[String]) {
        let text = serde_json::to_string(list).expect("a list is JSON");
        let mut peer = self.peer.borrow_mut();
        let () = peer.set("whole", text).expect("the server is there");
    }
}

/// Makes a list of the server's own, without the library.
pub fn fill_bare(peer: &mut redis::Connection, count: u32) {
    let () = peer.del("bare").expect("the server is there");
    for chunk in messages(count).chunks(10_000) {
        let () = peer.rpush("bare", chunk).expect("the server is there");
    }
}

pub fn push_bare(peer: &mut redis::Connection, n: u32) {
    let () = peer.rpush("bare", message(n)).expect("it is there");
}

pub fn stored(written: synced_memory::Result<Written>) {
    assert_eq!(written.expect("it is written"), Written::Stored);
}

/// An operation: its name, what makes a value of so many entries, and what is measured, which gets
/// that number and one of its own.
type Operation = (&'static str, fn(&Sides, u32), fn(&Sides, u32, u32));

const OPERATIONS: &[Operation] = &[
    (PUSH, Sides::fill_list, |s, size, n| {
        stored(s.list.push(message(size + n)));
    }),
    (SET_AT, Sides::fill_list, |s, size, n| {
        stored(s.list.at(size as usize / 2).set(message(size + n)));
    }),
    (GET_AT, Sides::fill_list, |s, size, _| {
        s.list.at(size as usize / 2).get().expect("it is there");
    }),
    (LEN, Sides::fill_list, |s, _, _| {
        s.list.len().expect("it is there");
    }),
    ("get() of a list, unchanged", Sides::fill_list, |s, _, _| {
        s.list.get().expect("it is there");
    }),
    (WITH, Sides::fill_list, |s, _, _| {
        s.list.with(Vec::len).expect("it is there");
    }),
    (INSERT, Sides::fill_map, |s, size, n| {
        s.map
            .insert(name(size + n), 1_000_000)
            .expect("it is written");
    }),
    (REPLACE, Sides::fill_map, |s, size, n| {
        let value = 2_000_000 + u64::from(n);
        s.map.insert(name(size / 2), value).expect("it is written");
    }),
    (ADD_AT, Sides::fill_map, |s, size, _| {
        stored(s.map.at(&name(size / 2)).add(1));
    }),
    (GET_AT_KEY, Sides::fill_map, |s, size, _| {
        s.map.at(&name(size / 2)).get().expect("it is there");
    }),
    (LEN_OF_MAP, Sides::fill_map, |s, _, _| {
        s.map.len().expect("it is there");
    }),
    (RPUSH, Sides::fill_bare, |s, size, n| {
        push_bare(&mut s.peer.borrow_mut(), size + n);
    }),
    (WHOLE, Sides::fill_whole, |s, size, n| {
        s.push_whole(size + n);
    }),
];

/// The operations, over a server. Each round measures all sizes, so that a machine whose speed
/// drifts does not favour one.
pub fn through(figures: &mut Figures) {
    let server = Server::redis().start();
    let sides = Sides::new(&server);
    for (what, fill, operate) in OPERATIONS {
        in_rounds(figures, what, sizes(), |size| {
            fill(&sides, size);
            timed(size, |n| operate(&sides, size, n))
        });
    }
}

/// Measures a round for each of the sizes, again and again; the medians of rounds are the figures.
fn in_rounds(
    figures: &mut Figures,
    what: &str,
    sizes: impl Iterator<Item = u32>,
    mut round: impl FnMut(u32) -> f64,
) {
    let mut times: BTreeMap<u32, Vec<f64>> = sizes.map(|size| (size, Vec::new())).collect();
    for done in 0..9 {
        for (size, times) in &mut times {
            if done < rounds(*size) {
                times.push(round(*size));
            }
        }
    }
    for (size, mut times) in times {
        figures.add(what, "us", size, quantile(&mut times, 0.5));
    }
}

fn rounds(size: u32) -> u32 {
    match size {
        MILLION => 2,
        LARGE => 5,
        _ => 9,
    }
}

/// The median time of an operation, in microseconds. It is done so rarely that the size stays of
/// the same order.
fn timed(size: u32, mut operate: impl FnMut(u32)) -> f64 {
    (0..WARM_UP).for_each(&mut operate);
    let (began, mut times) = (Instant::now(), Vec::new());
    for n in WARM_UP..WARM_UP + size.clamp(10, 200) {
        let start = Instant::now();
        operate(n);
        times.push(1e6 * start.elapsed().as_secs_f64());
        if times.len() >= 5 && began.elapsed() > Duration::from_millis(100) {
            break;
        }
    }
    quantile(&mut times, 0.5)
}

/// `append` of the Python package, with which the library shares its format.
pub fn of_the_python_package(figures: &mut Figures) {
    let given = env::var_os("SYNCED_MEMORY_VENV");
    let environment = given.map_or_else(|| crate::workspace().join(".venv"), PathBuf::from);
    if !environment.is_dir() {
        println!("no Python environment: its package is not measured (.ci/test makes one)");
        return;
    }
    let server = Server::redis().start();
    // It would take minutes for more.
    for size in sizes().take_while(|size| *size <= LARGE) {
        let program = format!(
            "
import time
from synced_memory import Memory
m = Memory()
m.list = [{:?}] * {size}
held = m.list
times = []
for _ in range(7):
    start = time.perf_counter()
    m.list.append({:?})
    times.append(time.perf_counter() - start)
print(1e6 * sorted(times)[3])
",
            message(0),
            message(1)
        );
        let median = python(&server, &program).parse().expect("a number");
        figures.add(PYTHON, "us", size, median);
    }
}

/// Pushes on `sqlite:path`, and how much of the write-ahead log one takes.
pub fn on_sqlite(figures: &mut Figures) {
    let directory = tempfile::TempDir::new().expect("a temporary directory can be made");
    let path = directory.path().join("state.db");
    let memory = open(&format!("sqlite:{}", path.display()));
    let list = memory.synced(&Key::<Vec<String>>::new("list"));
    let sizes = [10, 10_000];
    in_rounds(figures, SQLITE_PUSH, sizes.into_iter(), |size| {
        stored(list.set(messages(size)));
        timed(size, |n| stored(list.push(message(size + n))))
    });
    // While somebody reads, the log is not begun anew.
    let reader = rusqlite::Connection::open(&path).expect("the file is there");
    let log = || fs::metadata(directory.path().join("state.db-wal")).map_or(0, |log| log.len());
    for size in sizes {
        stored(list.set(messages(size)));
        let read = "PRAGMA wal_checkpoint(TRUNCATE); BEGIN; SELECT count(*) FROM keys";
        reader.execute_batch(read).expect("it can be read");
        (0..WARM_UP).for_each(|n| stored(list.push(message(size + n))));
        let (before, pushes) = (log(), 10);
        (0..pushes).for_each(|n| stored(list.push(message(n))));
        #[allow(clippy::cast_precision_loss)]
        let grown = (log() - before) as f64 / 1024.0 / f64::from(pushes);
        figures.add(SQLITE_LOG, "KiB", size, grown);
        reader.execute_batch("COMMIT").expect("it has read");
    }
}

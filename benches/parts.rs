//! Near reads of a part of a large collection against those of a small one, and against a look into
//! the decoded whole.
//!
//! `cargo bench -p synced-memory-benches --bench parts`

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::time::{Duration, Instant};

use support::{Server, eventually};
use synced_memory::{Memory, SyncedMemory};
use synced_memory_benches::{Side, medians, print, quantile, report_at_most};

const ROUNDS: usize = 9;
const SMALL: u32 = 100;
const LARGE: u32 = 100_000;
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(SyncedMemory)]
#[synced(near)]
struct Book {
    prices: HashMap<String, u64>,
    seats: HashMap<u32, u64>,
    messages: Vec<String>,
    matrix: Vec<Vec<u64>>,
    tags: HashSet<String>,
}

fn main() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).expect("the server is there");
    let [small, large] = [SMALL, LARGE].map(|count| filled(&memory, count));

    // What the first reads decode is not measured: `medians` has a round that warms up.
    let mut sides: Vec<Side<'_>> = Vec::new();
    for (book, count) in [(&small, SMALL), (&large, LARGE)] {
        sides.extend(reads(book, count));
    }
    let figures = medians(ROUNDS, reads_per_round(), &mut sides);
    print(&sides, &figures);
    report_growth(&sides, &figures);
    drop(sides);

    println!("\ndirectly after a change by this process:");
    let changed =
        [(&small, SMALL), (&large, LARGE)].map(|(book, count)| reads_of_changed(book, count));
    let [of_small, of_large] = changed;
    for ((name, small), (_, large)) in of_small.into_iter().zip(of_large) {
        for (count, time) in [(SMALL, small), (LARGE, large)] {
            println!("{:<62} {:>8.1} us", format!("{name}: {count}"), 1e6 * time);
        }
        report_at_most(
            &format!("{name}: {LARGE} entries / {SMALL}"),
            large / small,
            3.0,
        );
    }
}

fn report_growth(sides: &[Side<'_>], figures: &[f64]) {
    let (of_small, of_large) = figures.split_at(figures.len() / 2);
    for (((name, _), small), large) in sides.iter().zip(of_small).zip(of_large) {
        report_at_most(
            &format!("{name}: {LARGE} entries / {SMALL}"),
            large / small,
            3.0,
        );
    }
}

/// The median time of the first read after a change, which is not measured itself.
fn reads_of_changed(book: &SyncedBook, count: u32) -> Vec<(&'static str, f64)> {
    let (index, key) = (count as usize / 2, name(count / 2));
    let push = |n| _ = book.messages().push(message(n)).expect("it is written");
    let insert = |n: u32| {
        let before = book.prices().insert(name(count / 2), n.into());
        before.expect("it is written");
    };
    vec![
        (
            "with(|list| list.last()) after push()",
            after(push, || {
                drop(book.messages().with(|list| list.last().cloned()));
            }),
        ),
        (
            "len() of a list after push()",
            after(push, || drop(book.messages().len())),
        ),
        (
            "at(i).get() after push()",
            after(push, || drop(book.messages().at(index).get())),
        ),
        (
            "at(&k).get() after insert()",
            after(insert, || drop(book.prices().at(&key).get())),
        ),
        (
            "contains_key(&k) after insert()",
            after(insert, || drop(book.prices().contains_key(&key))),
        ),
    ]
}

fn after(change: impl Fn(u32), read: impl Fn()) -> f64 {
    const WARM_UP: u32 = 3;
    let times = (0..40).map(|n| {
        change(n);
        let start = Instant::now();
        read();
        (n, start.elapsed().as_secs_f64())
    });
    let mut times: Vec<f64> = times
        .filter(|(n, _)| *n >= WARM_UP)
        .map(|(_, time)| time)
        .collect();
    quantile(&mut times, 0.5)
}

/// How many reads each round makes: `PART_READS`, for a library that takes milliseconds for one.
fn reads_per_round() -> u32 {
    let given = std::env::var("PART_READS").ok();
    given.map_or(100_000, |reads| reads.parse().expect("a number"))
}

/// A book of this size, of which all is read near and current.
fn filled(memory: &Memory, count: u32) -> SyncedBook {
    let book = Book::attach(&memory.scope(&format!("book{count}")));
    let entries = Book {
        prices: (0..count).map(|n| (name(n), n.into())).collect(),
        seats: (0..count).map(|n| (n, n.into())).collect(),
        messages: (0..count).map(message).collect(),
        matrix: (0..count).map(|n| vec![n.into(), 1, 2]).collect(),
        tags: (0..count).map(name).collect(),
    };
    book.restore(entries).expect("the server takes writes");
    eventually(DEADLINE, "all is current", || {
        let staleness = [
            book.prices().staleness(),
            book.seats().staleness(),
            book.messages().staleness(),
            book.matrix().staleness(),
            book.tags().staleness(),
        ];
        book.snapshot().is_ok() && staleness == [Some(Duration::ZERO); 5]
    });
    book
}

fn name(n: u32) -> String {
    format!("entry{n}")
}

fn message(n: u32) -> String {
    format!("message {n}, which is about as long as what people say")
}

/// The reads that are measured, each of an element in the middle.
fn reads(book: &SyncedBook, count: u32) -> Vec<Side<'_>> {
    let at = count / 2;
    let (index, key) = (at as usize, name(at));
    let [in_map, in_set, beside] = [key.clone(), key.clone(), key.clone()];
    let held = book.prices().at(&key);
    vec![
        (
            "read()?.get(&k)",
            each(move || {
                book.prices()
                    .read()
                    .expect("it is set")
                    .get(&beside)
                    .copied()
            }),
        ),
        (
            "at(&k).get(), String keys",
            each(move || book.prices().at(&key).get().expect("it is there")),
        ),
        (
            "at(&k).get(), u32 keys",
            each(move || book.seats().at(&at).get().expect("it is there")),
        ),
        (
            "get() of a held at(&k)",
            each(move || held.get().expect("it is there")),
        ),
        (
            "contains_key(&k)",
            each(move || book.prices().contains_key(&in_map).expect("it is set")),
        ),
        (
            "len() of a map",
            each(|| book.prices().len().expect("it is set")),
        ),
        (
            "at(i).get()",
            each(move || book.messages().at(index).get().expect("it is there")),
        ),
        (
            "at(i).at(j).get()",
            each(move || book.matrix().at(index).at(0).get().expect("it is there")),
        ),
        (
            "at(i).len()",
            each(move || book.matrix().at(index).len().expect("it is there")),
        ),
        (
            "len() of a list",
            each(|| book.messages().len().expect("it is set")),
        ),
        (
            "contains(&t) of a set",
            each(move || book.tags().contains(&in_set).expect("it is set")),
        ),
    ]
}

/// Repeats an operation the given number of times.
fn each<'a, T>(mut operate: impl FnMut() -> T + 'a) -> Box<dyn FnMut(u32) + 'a> {
    Box::new(move |count| {
        for _ in 0..count {
            black_box(operate());
        }
    })
}

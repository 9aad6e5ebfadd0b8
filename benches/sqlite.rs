//! Through reads and writes on `sqlite:`, and writes that are journalled while the backend is away,
//! against the bare statements, in files of the same form with the same settings.
//!
//! `cargo bench -p synced-memory-benches --bench sqlite`

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use synced_memory::{Durability, Key, Memory};
use synced_memory_benches::{Side, medians, report};

const ROUNDS: usize = 15;

/// How many reads and writes a round has: enough to last several time slices of a shared machine.
const COUNTS: (u32, u32) = (50_000, 5_000);

/// Fewer writes: an `fsync` is slow, and equally slow on both sides.
const SYNCED_COUNTS: (u32, u32) = (50_000, 20);

fn main() {
    let directory = tempfile::TempDir::new().expect("a temporary directory can be made");
    let open = |name: &str, options: &str| {
        let url = format!("sqlite:{}{options}", directory.path().join(name).display());
        Memory::open(&url).expect("the file can be made")
    };
    // A file of the same form that no memory has open.
    drop(open("bare.db", ""));
    let bare = Bare::open(&directory.path().join("bare.db"), "NORMAL");
    compare(&open("memory.db", ""), &bare, COUNTS, "");
    let away = |name: &str, durability: Durability| {
        // Nothing listens on this port.
        let builder = Memory::builder()
            .url("redis://127.0.0.1:1")
            .journal(directory.path().join(name));
        builder
            .durability(durability)
            .shutdown_timeout(Duration::ZERO)
            .build()
            .expect("the journal can be made")
    };
    journalled(&away("journal", Durability::Process), &bare, COUNTS.1, "");

    drop(open("bare_synced.db", ""));
    let bare = Bare::open(&directory.path().join("bare_synced.db"), "FULL");
    compare(
        &open("synced.db", "?durability=fsync"),
        &bare,
        SYNCED_COUNTS,
        ", durability=fsync",
    );
    journalled(
        &away("synced_journal", Durability::Fsync),
        &bare,
        SYNCED_COUNTS.1,
        ", durability=fsync",
    );
}

fn journalled(memory: &Memory, bare: &Bare, count: u32, mode: &str) {
    assert!(!memory.status().connected);
    let number = memory.synced(&Key::<u64>::new("number"));
    let mut inserted = 0..;
    let mut queued = 0..;
    let mut sides: Vec<Side<'_>> = vec![
        (
            "journalled set of one key, offline",
            Box::new(|count| {
                (0..count).for_each(|n| _ = number.set(u64::from(n)).expect("it is queued"));
            }),
        ),
        (
            "journalled set of a new key, offline",
            Box::new(|count| {
                for n in queued.by_ref().take(count as usize) {
                    memory
                        .set(&Key::<u64>::named(format!("n{n}")), n)
                        .expect("it is queued");
                }
            }),
        ),
        (
            "bare INSERT",
            Box::new(|count| {
                inserted
                    .by_ref()
                    .take(count as usize)
                    .for_each(|n| bare.insert(n));
            }),
        ),
    ];
    let figures = medians(ROUNDS, count, &mut sides);
    print(&sides, &figures, mode);
    report(
        &format!("journalled set of one key / bare INSERT{mode}"),
        figures[0] / figures[2],
        "<= 3",
    );
    report(
        &format!("journalled set of a new key / bare INSERT{mode}"),
        figures[1] / figures[2],
        "<= 3",
    );
}

fn compare(memory: &Memory, bare: &Bare, (read, written): (u32, u32), mode: &str) {
    let number = memory.synced(&Key::<u64>::new("number"));
    number.set(1).expect("the file takes writes");
    bare.set(1);
    let mut reads: Vec<Side<'_>> = vec![
        (
            "through read",
            Box::new(|count| (0..count).for_each(|_| _ = number.get().expect("it is set"))),
        ),
        (
            "bare SELECT",
            Box::new(|count| (0..count).for_each(|_| _ = bare.get())),
        ),
    ];
    let figures = medians(ROUNDS, read, &mut reads);
    print(&reads, &figures, mode);
    let bar = if mode.is_empty() {
        "<= 2, and 15 µs"
    } else {
        ""
    };
    report(
        &format!("through read / bare SELECT{mode}"),
        figures[0] / figures[1],
        bar,
    );
    drop(reads);

    let counter = memory.synced(&Key::<i64>::new("counter"));
    let mut writes: Vec<Side<'_>> = vec![
        (
            "through write",
            Box::new(|count| {
                (0..count).for_each(|n| _ = number.set(u64::from(n)).expect("it is there"));
            }),
        ),
        (
            "bare upsert",
            Box::new(|count| (0..count).for_each(|n| bare.set(n))),
        ),
        (
            "through add",
            Box::new(|count| (0..count).for_each(|_| _ = counter.add(1).expect("it is there"))),
        ),
    ];
    let figures = medians(ROUNDS, written, &mut writes);
    print(&writes, &figures, mode);
    let bar = if mode.is_empty() {
        "<= 2, and 60 µs"
    } else {
        ""
    };
    report(
        &format!("through write / bare upsert{mode}"),
        figures[0] / figures[1],
        bar,
    );
    report(
        &format!("through add / bare upsert{mode}"),
        figures[2] / figures[1],
        "",
    );
}

fn print(sides: &[Side<'_>], figures: &[f64], mode: &str) {
    for ((name, _), figure) in sides.iter().zip(figures) {
        println!("{:<62} {:>8.1} us", format!("{name}{mode}"), figure * 1e6);
    }
}

/// The statements of a program that only stores a row, without the library.
struct Bare(Connection);

impl Bare {
    fn open(path: &Path, synchronous: &str) -> Self {
        let connection = Connection::open(path).expect("the file is there");
        connection
            .pragma_update(None, "synchronous", synchronous)
            .expect("it can be set");
        Self(connection)
    }

    fn get(&self) -> String {
        let mut select = self
            .0
            .prepare_cached("SELECT envelope FROM keys WHERE key = ?1")
            .expect("it is a statement");
        select
            .query_row(["memory:number"], |row| row.get(0))
            .expect("it is set")
    }

    fn insert(&self, n: u64) {
        let envelope = format!(r#"{{"value": {n},"last_modified": 1719400000000000000}}"#);
        let insert = "INSERT INTO keys (key, envelope) VALUES (?1, ?2)";
        let mut insert = self.0.prepare_cached(insert).expect("it is a statement");
        insert
            .execute([&format!("memory:inserted{n}"), &envelope])
            .expect("the file takes writes");
    }

    fn set(&self, value: u32) {
        let envelope = format!(r#"{{"value": {value},"last_modified": 1719400000000000000}}"#);
        let upsert = "INSERT INTO keys (key, envelope) VALUES (?1, ?2) \
                      ON CONFLICT (key) DO UPDATE SET envelope = excluded.envelope";
        let mut upsert = self.0.prepare_cached(upsert).expect("it is a statement");
        upsert
            .execute(["memory:number", &envelope])
            .expect("the file takes writes");
    }
}

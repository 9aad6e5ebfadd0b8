//! `sqlite:path`: several processes on one file, what can be wrong with it, and that nothing is
//! lost with it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use support::{Child, eventually, eventually_some};
use synced_memory::{Builder, ErrorKind, Key, Memory, ReadPolicy, Written};
use tempfile::TempDir;

use crate::sizes::{Size, with_both_sizes};

const DEADLINE: Duration = Duration::from_secs(30);
const PROCESSES: usize = 8;

/// A database file in a temporary directory, which is made at its first use.
pub(crate) struct Database(TempDir);

impl Database {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("state.db")
    }

    pub(crate) fn url(&self) -> String {
        url(&self.path())
    }

    fn builder(&self) -> Builder {
        Memory::builder()
            .url(self.url())
            .backoff(Duration::from_millis(5), Duration::from_millis(50))
    }

    /// A memory whose timeout is long enough for a busy machine.
    pub(crate) fn open(&self) -> Memory {
        self.builder()
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap()
    }

    /// A Python process with a connection to the file. It runs each line that it is sent as SQL,
    /// and answers with the rows as JSON.
    pub(crate) fn python(&self) -> Child {
        const DRIVER: &str = "
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
for line in sys.stdin:
    print(json.dumps(db.execute(line).fetchall()), flush=True)
";
        Child::spawn("python3", ["-c", DRIVER, self.path().to_str().unwrap()])
    }

    fn sharer(&self) -> Child {
        opened(Child::spawn(env!("CARGO_BIN_EXE_sharer"), [self.url()]))
    }
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn opened(mut child: Child) -> Child {
    assert_eq!(child.recv(), "opened");
    child
}

fn number(name: &str) -> Key<u64> {
    Key::named(name.to_owned())
}

fn items() -> Key<Vec<String>> {
    Key::new("items")
}

/// This environment variable asks for the long form, which takes minutes.
fn rounds() -> usize {
    if std::env::var_os("SYNCED_MEMORY_SOAK").is_some() {
        1_000
    } else {
        200
    }
}

#[test]
fn eight_processes_on_one_file_lose_nothing_and_double_nothing() {
    let (database, rounds) = (Database::new(), rounds());
    let mut sharers: Vec<Child> = (0..PROCESSES).map(|_| database.sharer()).collect();
    for (own, sharer) in sharers.iter_mut().enumerate() {
        sharer.send(format!("push {rounds} {own}"));
    }
    let took: Vec<String> = sharers
        .iter_mut()
        .map(|sharer| {
            sharer
                .recv_within(Duration::from_secs(300))
                .expect("the rounds come to an end")
        })
        .collect();
    println!("{PROCESSES} x {rounds} pushes, adds and inserts took these processes {took:?} ms");
    let memory = database.open();
    let items = memory.get(&items()).unwrap().unwrap();
    assert_eq!(items.len(), PROCESSES * rounds);
    let mut next: HashMap<&str, usize> = HashMap::new();
    for item in &items {
        let (own, at) = item.split_once('/').unwrap();
        let next = next.entry(own).or_default();
        assert_eq!(
            at.parse(),
            Ok(*next),
            "the pushes of {own} are all there, once and in order"
        );
        *next += 1;
    }
    assert_eq!(
        memory.get(&number("count")).unwrap(),
        u64::try_from(PROCESSES * rounds).ok()
    );
    let map = memory
        .get(&Key::<BTreeMap<String, u64>>::new("map"))
        .unwrap()
        .unwrap();
    assert_eq!(map.keys().collect::<Vec<_>>(), {
        let mut sorted: Vec<_> = items.iter().collect();
        sorted.sort_unstable();
        sorted
    });
}

#[test]
fn many_memories_can_open_a_new_file_at_once() {
    let directory = TempDir::new().unwrap();
    for round in 0..rounds() {
        let barrier = Barrier::new(8);
        let path = directory.path().join(format!("{round}.db"));
        let open = || {
            barrier.wait();
            let memory = Memory::builder()
                .url(url(&path))
                .timeout(Duration::from_secs(5))
                .build();
            memory.map(|memory| (memory.status().connected, memory.add(&number("opened"), 1)))
        };
        thread::scope(|scope| {
            for opened in (0..8).map(|_| scope.spawn(open)).collect::<Vec<_>>() {
                let opened = opened.join().expect("it ends");
                assert!(
                    matches!(opened, Ok((true, Ok(Written::Stored)))),
                    "round {round}: {opened:?}"
                );
            }
        });
        let memory = Memory::builder()
            .url(url(&path))
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        assert_eq!(
            memory.get(&number("opened")).unwrap(),
            Some(8),
            "round {round}"
        );
    }
}

#[test]
fn eight_processes_on_one_key_all_make_progress() {
    let database = Database::new();
    let mut sharers: Vec<Child> = (0..PROCESSES).map(|_| database.sharer()).collect();
    for sharer in &mut sharers {
        assert_eq!(sharer.ask("add"), "started");
    }
    let count = |sharer: &mut Child, how: &str| sharer.ask(how).parse::<u64>().unwrap();
    // Counted from when all of them are adding.
    let (before, began): (Vec<u64>, _) = (
        sharers
            .iter_mut()
            .map(|sharer| count(sharer, "added"))
            .collect(),
        Instant::now(),
    );
    let mut made: Vec<u64> = Vec::new();
    // The machine shares its time fairly between eight processes only in the long run.
    eventually(
        Duration::from_secs(60),
        "the slowest has made a quarter of what the fastest has",
        || {
            let counts = sharers.iter_mut().map(|sharer| count(sharer, "added"));
            made = counts
                .zip(&before)
                .map(|(count, before)| count - before)
                .collect();
            made.iter().sum::<u64>() >= 16_000
                && 4 * made.iter().min().unwrap() >= *made.iter().max().unwrap()
        },
    );
    println!(
        "{PROCESSES} processes on one key made {made:?} adds in {:?}",
        began.elapsed()
    );
    let stopped: u64 = sharers.iter_mut().map(|sharer| count(sharer, "stop")).sum();
    let memory = database.open();
    eventually(DEADLINE, "what was still under way is there", || {
        memory.get(&number("fair")).unwrap() == Some(stopped)
    });
}

with_both_sizes!(a_process_that_is_killed_in_mid_write_loses_nothing_and_leaves_the_others_working);

fn a_process_that_is_killed_in_mid_write_loses_nothing_and_leaves_the_others_working(size: Size) {
    let database = Database::new();
    let name = |round: usize| format!("j{round}");
    let endless_writer = |round: usize| {
        opened(Child::spawn(
            env!("CARGO_BIN_EXE_endless_writer"),
            [database.url(), name(round)],
        ))
    };
    let memory = database.open();
    size.fill(&memory.synced(&items()));
    let mut survivor = endless_writer(0);
    let mut said: Vec<usize> = vec![0];
    let mut said_by_survivor = 0;
    for round in 1..=size.scaled(10, 3) {
        let mut victim = endless_writer(round);
        let mut last = 0;
        while last < 3 * round {
            last = victim.recv().parse().unwrap();
        }
        victim.kill();
        said.push(last);
        // The lock of the killed process was released with it.
        let before = said_by_survivor;
        while said_by_survivor < before + 20 {
            said_by_survivor = survivor.recv().parse().unwrap();
        }
        assert_eq!(
            memory.set(&number("after"), round as u64).unwrap(),
            Written::Stored
        );
    }
    survivor.kill();
    said[0] = said_by_survivor;
    drop(memory);

    let memory = database.open();
    let mut items = memory.get(&items()).unwrap().unwrap();
    let filler = size.items();
    assert!(items.drain(..filler.len()).eq(filler));
    let mut in_doubt = 0;
    for (round, said) in said.iter().enumerate() {
        let prefix = format!("{}/", name(round));
        let there: Vec<usize> = items
            .iter()
            .filter_map(|item| item.strip_prefix(&prefix)?.parse().ok())
            .collect();
        assert_eq!(
            there,
            (0..there.len()).collect::<Vec<_>>(),
            "{prefix}: each once, in order"
        );
        assert!(
            there.len() > *said,
            "{prefix}: {said} was answered for, {} are there",
            there.len()
        );
        // It may have been killed between its push and its add.
        in_doubt += 1;
        let last = memory
            .get(&number(&format!("last_{}", name(round))))
            .unwrap()
            .unwrap();
        assert!(
            (there.len() - 2..there.len()).contains(&usize::try_from(last).unwrap())
                && last >= *said as u64
        );
    }
    let count = usize::try_from(memory.get(&number("count")).unwrap().unwrap()).unwrap();
    assert!(
        count <= items.len() && count + in_doubt >= items.len(),
        "{count} of {}",
        items.len()
    );
}

#[test]
fn python_reads_the_envelopes_while_rust_writes_and_rust_reads_what_python_writes() {
    let database = Database::new();
    let mut sharer = database.sharer();
    let memory = database.open();
    memory
        .set(&Key::new("text"), "Grüße 😀 \u{0} \"quoted\"".to_owned())
        .unwrap();
    let mut python = database.python();
    sharer.ask("add");
    let mut seen = 0;
    eventually(DEADLINE, "python sees the value grow", || {
        let rows: Vec<(String, String)> =
            serde_json::from_str(&python.ask("SELECT key, envelope FROM keys ORDER BY key"))
                .unwrap();
        for (key, envelope) in &rows {
            let envelope: BTreeMap<String, serde_json::Value> =
                serde_json::from_str(envelope).unwrap();
            assert_eq!(
                envelope.keys().collect::<Vec<_>>(),
                ["last_modified", "value"]
            );
            match key.as_str() {
                "memory:text" => assert_eq!(envelope["value"], "Grüße 😀 \u{0} \"quoted\""),
                "memory:fair" => seen = envelope["value"].as_u64().unwrap().max(seen),
                other => panic!("{other}"),
            }
        }
        seen > 50
    });
    sharer.ask("stop");
    assert_eq!(python.ask("PRAGMA user_version"), "[[2]]");
    assert_eq!(
        python.ask("PRAGMA application_id"),
        format!("[[{}]]", 0x5379_4d65)
    );
    assert_eq!(python.ask("PRAGMA integrity_check"), "[[\"ok\"]]");

    for (value, read) in [
        ("'{\"value\": 7,\"last_modified\": 5}'", 7),
        ("'8'", 8),
        ("9", 9),
        ("CAST('10' AS BLOB)", 10),
    ] {
        let upsert = format!(
            "INSERT INTO keys (key, envelope) VALUES ('memory:n', {value}) \
             ON CONFLICT (key) DO UPDATE SET envelope = excluded.envelope"
        );
        assert_eq!(python.ask(upsert), "[]");
        assert_eq!(memory.get(&number("n")).unwrap(), Some(read));
        memory.add(&number("n"), 10).unwrap();
        assert_eq!(memory.get(&number("n")).unwrap(), Some(read + 10));
    }
    assert_eq!(python.ask("DELETE FROM keys WHERE key = 'memory:n'"), "[]");
    assert_eq!(memory.get(&number("n")).unwrap(), None);
}

/// Asserts that a file cannot be opened, and that the error names it and says why.
#[track_caller]
fn refused(path: &Path, why: &str) {
    let error = Memory::open(&url(path)).expect_err(why);
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    let text = error.to_string();
    assert!(
        text.contains(path.to_str().unwrap()) && text.contains(why),
        "{text}"
    );
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_that_names_it_and_is_left_as_it_is() {
    let database = Database::new();
    let path = database.path();
    refused(database.0.path(), "it is a directory");
    refused(
        &database.0.path().join("missing/state.db"),
        "the directory of the file does not exist",
    );
    fs::write(&path, "no database at all ".repeat(1_000)).unwrap();
    refused(&path, "no SQLite database");
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .starts_with("no database at all ")
    );

    let foreign = Database::new();
    let mut python = foreign.python();
    python.ask("CREATE TABLE mine (x)");
    refused(&foreign.path(), "another application");
    assert_eq!(
        python.ask("PRAGMA journal_mode"),
        "[[\"delete\"]]",
        "nothing of it was changed"
    );
    assert_eq!(python.ask("SELECT name FROM sqlite_master"), "[[\"mine\"]]");

    let later = Database::new();
    later.open().set(&number("n"), 1).unwrap();
    let mut python = later.python();
    python.ask("PRAGMA user_version = 3");
    refused(
        &later.path(),
        "schema version 3; this version of the library knows 2",
    );
    python.ask("PRAGMA user_version = 2");
    python.ask("DROP TABLE records");
    refused(&later.path(), "no such table: records");
}

/// A process with a file system of its own in a directory, which no other process sees. A line of
/// shell sets it up, in which `$1` is the directory.
fn sharer_in(directory: &Path, set_up: &str) -> Child {
    let script = format!("{set_up} && exec \"$0\" \"sqlite:$1/state.db\"");
    let args = [
        "-m",
        "sh",
        "-c",
        &script,
        env!("CARGO_BIN_EXE_sharer"),
        directory.to_str().unwrap(),
    ];
    Child::spawn("unshare", args)
}

/// The path by which the test reaches what such a process sees at `path`.
fn seen_by(child: &Child, path: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{}", child.pid(), path.display()))
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_that_names_the_file() {
    let database = Database::new();
    let read_only = "mount -t tmpfs -o size=1m tmpfs \"$1\"";
    let empty = sharer_in(
        database.0.path(),
        &format!("{read_only} && mount -o remount,ro \"$1\""),
    )
    .recv();
    assert!(
        empty.starts_with("failed Rejected: ") && empty.contains(database.path().to_str().unwrap()),
        "{empty}"
    );
    assert!(empty.contains("cannot be written"), "{empty}");

    // The same with a file that is there.
    database.open().set(&number("n"), 1).unwrap();
    let there = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"";
    let there = sharer_in(database.0.path(), there).recv();
    assert!(
        there.starts_with("failed Rejected: ") && there.contains(database.path().to_str().unwrap()),
        "{there}"
    );
}

#[test]
fn on_a_full_disk_writes_wait_and_nothing_earlier_is_lost() {
    let database = Database::new();
    let directory = database.0.path();
    let mut sharer = opened(sharer_in(
        directory,
        "mount -t tmpfs -o size=4m tmpfs \"$1\"",
    ));
    assert_eq!(sharer.ask("set early 1"), "Stored");
    assert_eq!(sharer.ask("fill big 100000"), "Stored");
    let filler = seen_by(&sharer, directory).join("filler");
    // This takes all the room that is left.
    let full = fs::write(&filler, vec![0; 8 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");

    // Writes that fit into the room that SQLite has allocated already are stored, until that is
    // full as well.
    let mut queued = 0;
    eventually(DEADLINE, "there is no room", || {
        queued += 1;
        sharer.ask(format!("fill more{queued} 50000")) == "Queued"
    });
    assert_eq!(sharer.ask("set late 2"), "Queued");
    let status = sharer.ask("status");
    assert!(status.contains("full"), "{status}");
    assert_eq!(
        (sharer.ask("get early"), sharer.ask("get late")),
        ("1".to_owned(), "2".to_owned())
    );

    fs::remove_file(&filler).unwrap();
    eventually(DEADLINE, "what waited is delivered", || {
        sharer.ask("status").starts_with("true 0 ")
    });
    assert_eq!(sharer.ask("set last 3"), "Stored");
    // The file system ends with the process, so its files are copied.
    for file in fs::read_dir(seen_by(&sharer, directory)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), directory.join(file.file_name())).unwrap();
    }
    sharer.kill();
    let memory = database.open();
    for (name, value) in [("early", 1), ("late", 2), ("last", 3)] {
        assert_eq!(memory.get(&number(name)).unwrap(), Some(value), "{name}");
    }
    for name in (1..=queued).map(|more| format!("more{more}")) {
        assert_eq!(
            memory
                .get(&Key::<String>::named(name))
                .unwrap()
                .unwrap()
                .len(),
            50_000
        );
    }
}

#[test]
fn a_memory_that_opens_on_a_full_disk_works_once_there_is_room() {
    let database = Database::new();
    let directory = database.0.path();
    let full =
        "mount -t tmpfs -o size=1m tmpfs \"$1\" && { head -c 2m /dev/zero > \"$1\"/filler; true; }";
    let mut sharer = opened(sharer_in(directory, full));
    assert_eq!(sharer.ask("set early 1"), "Queued");
    let status = sharer.ask("status");
    assert!(
        status.starts_with("false 1 ") && status.contains("full"),
        "{status}"
    );
    fs::remove_file(seen_by(&sharer, directory).join("filler")).unwrap();
    eventually(DEADLINE, "what waited is delivered", || {
        sharer.ask("status").starts_with("true 0 ")
    });
    assert_eq!(sharer.ask("set late 2"), "Stored");
}

#[test]
fn a_lock_held_by_another_process_delays_writes_for_a_bounded_time_and_no_reads() {
    let database = Database::new();
    let memory = database.builder().build().unwrap();
    memory.set(&number("n"), 1).unwrap();
    let mut python = database.python();
    assert_eq!(python.ask("BEGIN IMMEDIATE"), "[]");
    let began = Instant::now();
    assert_eq!(memory.set(&number("n"), 2).unwrap(), Written::Queued);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let status = memory.status();
    assert!(status.connected && status.pending == 1, "{status:?}");
    assert!(
        status
            .last_error
            .is_some_and(|error| error.to_string().contains("locked"))
    );
    // A key that it wrote itself, and one that it did not.
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(memory.get(&number("n")).unwrap(), Some(2));
        assert_eq!(memory.get(&number("other")).unwrap(), None);
        assert_eq!(memory.set(&number("n"), 2).unwrap(), Written::Queued);
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // A memory that opens now finds what is stored.
    assert_eq!(database.open().get(&number("n")).unwrap(), Some(1));
    assert_eq!(python.ask("COMMIT"), "[]");
    memory.flush(DEADLINE).unwrap();
    assert_eq!(database.open().get(&number("n")).unwrap(), Some(2));
    assert_eq!(memory.set(&number("n"), 3).unwrap(), Written::Stored);
}

#[test]
fn a_file_that_is_replaced_is_noticed_and_the_new_file_is_opened() {
    let database = Database::new();
    let memory = database.open();
    memory.set(&number("n"), 1).unwrap();
    let other = Database::new();
    other.open().set(&number("n"), 5).unwrap();
    for file in fs::read_dir(database.0.path()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    fs::rename(other.path(), database.path()).unwrap();
    eventually(DEADLINE, "the new file is opened", || {
        memory.get(&number("n")).unwrap() == Some(5)
    });
    let reported = memory.status().last_error.unwrap().to_string();
    assert!(reported.contains("removed or replaced"), "{reported}");
    assert_eq!(memory.set(&number("n"), 6).unwrap(), Written::Stored);
    assert_eq!(database.open().get(&number("n")).unwrap(), Some(6));
}

#[test]
fn expired_rows_leave_the_file_and_a_writer_that_closes_leaves_no_record() {
    #[derive(synced_memory::SyncedMemory)]
    struct Lease {
        #[synced(ttl = "50ms")]
        holder: String,
    }
    use synced_memory::SyncedMemory;

    let database = Database::new();
    let open = || {
        let builder = database.builder().timeout(Duration::from_secs(10));
        builder
            .tombstone_ttl(Duration::from_millis(100))
            .build()
            .unwrap()
    };
    let mut python = database.python();
    let mut rows = |table: &str| {
        let rows: Vec<Vec<serde_json::Value>> =
            serde_json::from_str(&python.ask(format!("SELECT * FROM {table}"))).unwrap();
        rows.len()
    };
    let memory = open();
    Lease::attach(&memory).set_holder("me".to_owned()).unwrap();
    memory.set(&number("gone"), 1).unwrap();
    memory.delete(&number("gone")).unwrap();
    assert_eq!((rows("keys"), rows("sidecars"), rows("records")), (1, 1, 1));
    eventually(DEADLINE, "all of it is removed", || {
        // The first write of a memory removes what has expired.
        open().set(&number("stays"), 1).unwrap();
        (rows("keys"), rows("sidecars"), rows("records")) == (1, 0, 0)
    });

    let (one, other) = (database.open(), database.open());
    for memory in [&one, &other, &one] {
        assert_eq!(memory.add(&number("stays"), 1).unwrap(), Written::Stored);
    }
    assert_eq!(
        rows("records"),
        2,
        "the record of `other`, and an older one of `one`"
    );
    drop((one, other));
    assert_eq!(
        (rows("records"), rows("keys WHERE writer IS NOT NULL")),
        (0, 0)
    );
}

#[test]
fn a_file_with_any_path_is_shared_by_relative_and_absolute_names() {
    let database = Database::new();
    let odd = database.0.path().join("a b#c?d%e é");
    fs::create_dir(&odd).unwrap();
    let encoded = odd
        .display()
        .to_string()
        .replace('%', "%25")
        .replace('#', "%23")
        .replace('?', "%3F");
    let memory = Memory::open(&format!("sqlite:{encoded}/state.db")).unwrap();
    memory.set(&number("n"), 1).unwrap();
    assert!(odd.join("state.db").is_file());
    let relative = Child::spawn_with(
        env!("CARGO_BIN_EXE_sharer"),
        ["sqlite:state.db"],
        |command| {
            command.current_dir(&odd);
        },
    );
    assert_eq!(opened(relative).ask("get n"), "1");
}

#[test]
fn writes_with_fsync_are_stored_the_same_way() {
    let database = Database::new();
    let memory = Memory::open(&format!(
        "{}?durability=fsync&prefix=app:&timeout=20s",
        database.url()
    ))
    .unwrap();
    assert_eq!(memory.set(&number("n"), 1).unwrap(), Written::Stored);
    memory.synced(&items()).push("a".to_owned()).unwrap();
    let found = eventually_some(DEADLINE, "another memory sees it", || {
        Memory::builder()
            .url(database.url())
            .prefix("app:")
            .build()
            .unwrap()
            .get(&items())
            .unwrap()
    });
    assert_eq!(found, ["a"]);
}

/// How long a process has been on a CPU so far, all threads together.
fn time_on_cpu(child: &Child) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.pid())).unwrap();
    let of_task = |path: PathBuf| -> u64 {
        let times = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        times
            .split(' ')
            .next()
            .and_then(|time| time.parse().ok())
            .unwrap_or(0)
    };
    Duration::from_nanos(tasks.map(|task| of_task(task.unwrap().path())).sum())
}

#[test]
fn a_change_by_another_process_is_seen_within_10_ms_without_busy_polling() {
    const ROUNDS: u64 = 50;
    let database = Database::new();
    let mut other = database.sharer();
    let memory = database
        .builder()
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    let near = memory.synced(&number("n"));
    near.set(0).unwrap();
    let mut took: Vec<Duration> = Vec::new();
    // How late this machine wakes a thread: it wakes the polling thread no earlier.
    let mut late = Duration::ZERO;
    for n in 1..=ROUNDS {
        // The first read makes the slot tracked.
        eventually(DEADLINE, "it is current", || {
            near.get().is_ok() && near.staleness() == Some(Duration::ZERO)
        });
        assert_eq!(other.ask(format!("set n {n}")), "Stored");
        let began = Instant::now();
        while near.get().unwrap() != n {
            let (slept, nap) = (Instant::now(), Duration::from_micros(200));
            thread::sleep(nap);
            late = late.max(slept.elapsed().saturating_sub(nap));
            assert!(began.elapsed() < DEADLINE, "{n} is seen");
        }
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
    // The CPU time of a process that does nothing for a while.
    let before = (Instant::now(), time_on_cpu(&other));
    eventually(DEADLINE, "a second has passed", || {
        before.0.elapsed() >= Duration::from_secs(1)
    });
    let share = time_on_cpu(&other).saturating_sub(before.1).as_secs_f64()
        / before.0.elapsed().as_secs_f64();
    println!(
        "seen after {median:?} in the median, {most:?} at most; idle it takes {:.1} % of a CPU",
        share * 100.0
    );
    assert!(
        median <= Duration::from_millis(10) + late,
        "{median:?}, at most {most:?}; late by {late:?}"
    );
    assert!(share < 0.1, "{:.1} % of a CPU", share * 100.0);
}

//! What near reads and scopes cost in memory. The allocator of this program
//! counts, so its tests run one after the other. `SYNCED_MEMORY_SOAK=1` is the long form.

use std::alloc::System;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cap::Cap;
use support::{Server, eventually};
use synced_memory::{Key, Memory, ReadPolicy, SyncedMemory, WritePolicy};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const DEADLINE: Duration = Duration::from_secs(10);

/// Fewer bytes than this may be left of dropped scopes, wherever they were held.
const NEGLIGIBLE: usize = 64 << 10;

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(SyncedMemory)]
struct Session {
    #[synced(near, default)]
    count: u64,
    #[synced(near)]
    items: Vec<String>,
    name: Option<String>,
}

/// The threads of the library.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names
        .filter(|name| name.starts_with("synced-memory"))
        .count()
}

fn connections(server: &Server) -> usize {
    let listed: String =
        redis::from_redis_value(server.cli(&["CLIENT", "LIST", "TYPE", "normal"])).unwrap();
    // One of them is the test's own.
    listed.lines().count() - 1
}

/// Opens this many scopes, uses one field of each, and drops them all.
fn open_use_and_drop(what: &str, memory: &Memory, scopes: usize, use_it: impl Fn(&SyncedSession)) {
    let open = |scopes: usize| -> Vec<SyncedSession> {
        let open = |number| {
            let session = Session::attach(&memory.scope(&format!("session{number}")));
            use_it(&session);
            session
        };
        (0..scopes).map(open).collect()
    };
    drop(open(100));
    let before = ALLOCATOR.allocated();
    let opened = open(scopes);
    let each = ALLOCATOR.allocated().saturating_sub(before) / scopes;
    assert_eq!(threads(), 1, "a scope has no thread");
    drop(opened);
    let left = || ALLOCATOR.allocated().saturating_sub(before);
    let mut least = left();
    // Invalidations that arrive meanwhile allocate, and free it again.
    let began = Instant::now();
    while least >= NEGLIGIBLE {
        assert!(
            began.elapsed() < DEADLINE,
            "{what}: {least} bytes are left, of {each} for each of {scopes} scopes"
        );
        thread::sleep(Duration::from_millis(1));
        least = least.min(left());
    }
    println!("{scopes} scopes, {what}: {each} bytes each, {least} bytes left");
    assert!(each <= 2 << 10, "{each} bytes for a scope");
}

#[test]
fn a_hundred_thousand_scopes_take_2_kb_each_and_leave_nothing() {
    let _alone = alone();
    let memory = Memory::open("memory:").unwrap();
    open_use_and_drop("one field read", &memory, 100_000, |session| {
        assert_eq!(session.count().unwrap(), 0);
    });
}

#[test]
fn all_scopes_share_one_connection_for_their_invalidations() {
    let _alone = alone();
    let scopes = if std::env::var_os("SYNCED_MEMORY_SOAK").is_some() {
        100_000
    } else {
        10_000
    };
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).unwrap();
    open_use_and_drop("one field read", &memory, scopes, |session| {
        assert_eq!(session.count().unwrap(), 0);
    });
    assert_eq!(connections(&server), 1);
    open_use_and_drop("one field written", &memory, scopes, |session| {
        _ = session.set_count(1).unwrap();
    });
    open_use_and_drop("one field written and read", &memory, scopes, |session| {
        session.set_count(2).unwrap();
        assert_eq!(session.count().unwrap(), 2);
    });
    assert_eq!(connections(&server), 1);
    // The server's records of this writer are dropped with the scopes that it wrote to.
    let sidecars = || {
        let fields = |n: &usize| {
            server.cli(&[
                "HLEN",
                &format!("synced-memory/{{memory:session{n}:count}}"),
            ])
        };
        (0..scopes)
            .step_by(97)
            .filter(|n| fields(n) != redis::Value::Int(0))
            .count()
    };
    eventually(DEADLINE, "the records are dropped", || sidecars() <= 2);
    let session = Session::attach(&memory.scope("session7"));
    assert_eq!(session.count().unwrap(), 2);
    server.set_raw("memory:session7:count", "9");
    eventually(DEADLINE, "the change is seen", || {
        session.count().unwrap() == 9
    });
}

/// In its long form a million names take no more than the limit and 20 MB.
#[test]
fn names_that_were_used_once_take_no_more_than_the_limit() {
    const LIMIT: usize = 16 << 20;
    let _alone = alone();
    let (names, room) = if std::env::var_os("SYNCED_MEMORY_SOAK").is_some() {
        (1_000_000, 20 << 20)
    } else {
        (100_000, 4 << 20)
    };
    let server = Server::redis().start();
    let memory = Memory::builder()
        .url(server.url())
        .cache_limit(LIMIT)
        .write_policy(WritePolicy::Behind)
        .build()
        .unwrap();
    memory.set(&Key::new("first"), 1).unwrap();
    memory.flush(DEADLINE).unwrap();
    let before = ALLOCATOR.allocated();
    for name in 0..names {
        memory
            .set(&Key::named(format!("name{name}")), name)
            .unwrap();
        if name % 1_000 == 0 {
            memory.flush(DEADLINE).unwrap();
        }
    }
    memory.flush(DEADLINE).unwrap();
    let taken = || ALLOCATOR.allocated().saturating_sub(before);
    println!(
        "{names} names: {} bytes, counted {}",
        taken(),
        memory.status().cache_bytes
    );
    eventually(DEADLINE, "they take no more", || taken() <= LIMIT + room);
}

#[test]
fn a_near_read_of_a_number_allocates_nothing() {
    const READS: u64 = 1_000;
    let _alone = alone();
    let server = Server::redis().start();
    for url in [server.url(), "memory:".to_owned()] {
        let memory = Memory::builder()
            .url(url)
            .read_policy(ReadPolicy::Near)
            .build()
            .unwrap();
        let session = Session::attach(&memory);
        session.set_count(5).unwrap();
        let held = memory.synced(&Key::<u64>::new("count"));
        let is_current =
            || session.count().is_ok() && held.get().is_ok() && memory.status().stale == 0;
        eventually(DEADLINE, "it is current", is_current);
        let reads: [(&str, &dyn Fn() -> u64); 2] = [
            ("the getter", &|| session.count().unwrap()),
            ("a held view", &|| held.get().unwrap()),
        ];
        for (what, read) in reads {
            // Other threads allocate at times (the heartbeat, the test harness). A read that
            // allocates would do so each time.
            let allocated = |_| {
                let before = ALLOCATOR.total_allocated();
                (0..READS).for_each(|_| assert_eq!(read(), 5));
                ALLOCATOR.total_allocated() - before
            };
            assert_eq!((0..20).map(allocated).min(), Some(0), "{what} allocates");
        }
    }
}

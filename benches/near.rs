//! Near reads, behind writes and watches against their peers, on one server.
//!
//! `cargo bench -p synced-memory-benches --bench near`

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis::AsyncCommands;
use rustix::time::{ClockId, clock_gettime};
use support::{Server, eventually, python};
use synced_memory::{Key, Memory, SyncedMemory, WritePolicy};
use synced_memory_benches::{Side, medians, print, report};

const ROUNDS: usize = 15;
const READS: u32 = 1_000_000;
const THREADS: usize = 8;
const KEYS: u32 = 20_000;
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(SyncedMemory)]
struct State {
    #[synced(near)]
    count: u64,
}

fn main() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).expect("the server is there");
    let state = State::attach(&memory);
    state.set_count(7).expect("the server takes writes");
    eventually(DEADLINE, "the slot is current", || {
        state.count().is_ok() && state.synced_count().staleness() == Some(Duration::ZERO)
    });
    one_thread(&server, &state);
    many_threads(&state);
    behind(&server);
    watches(&server);
}

fn one_thread(server: &Server, state: &SyncedState) {
    let swap = ArcSwap::from_pointee(7_u64);
    let moka = moka::sync::Cache::<&str, u64>::new(100);
    moka.insert("count", 7);
    let view = state.synced_count().clone();
    let mut sides: Vec<Side<'_>> = vec![
        ("ArcSwap::load_full", each(|| *black_box(&swap).load_full())),
        (
            "near read, by getter",
            each(|| black_box(state).count().expect("it is set")),
        ),
        (
            "near read, by held view",
            each(|| black_box(&view).get().expect("it is set")),
        ),
        (
            "moka",
            each(|| black_box(&moka).get("count").expect("it is there")),
        ),
    ];
    let figures = medians(ROUNDS, READS, &mut sides);
    print(&sides, &figures);
    report(
        "near read by getter / ArcSwap::load_full, one thread",
        figures[1] / figures[0],
        "<= 1",
    );
    report(
        "near read by held view / ArcSwap::load_full, one thread",
        figures[2] / figures[0],
        "<= 1",
    );
    report("moka / near read", figures[3] / figures[1], ">= 4");

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let client = redis::Client::open(format!("{}?protocol=resp3", server.url())).expect("a URL");
    let config =
        redis::AsyncConnectionConfig::new().set_cache_config(redis::caching::CacheConfig::new());
    let connection = runtime.block_on(client.get_multiplexed_async_connection_with_config(&config));
    let mut connection = connection.expect("the server is there");
    let mut sides: Vec<Side<'_>> = vec![
        (
            "near read, by getter",
            each(|| black_box(state).count().expect("it is set")),
        ),
        (
            "redis-rs, client-side cache",
            Box::new(|count| {
                runtime.block_on(async {
                    for _ in 0..count {
                        let _: String =
                            black_box(connection.get("memory:count").await.expect("it is set"));
                    }
                });
            }),
        ),
    ];
    let figures = medians(ROUNDS, READS / 10, &mut sides);
    print(&sides, &figures);
    report(
        "redis-rs, client-side cache / near read",
        figures[1] / figures[0],
        ">= 8",
    );
    let theirs = python(
        server,
        "
import time
from synced_memory import Memory
m = Memory()
def read():
    start = time.perf_counter()
    for _ in range(200): m.count
    return (time.perf_counter() - start) / 200
print(sorted(read() for _ in range(5))[2])
",
    );
    let theirs: f64 = theirs.trim().parse().expect("a number");
    report(
        "the Python package's read / near read",
        theirs / figures[0],
        ">= 10000",
    );
}

/// Repeats an operation the given number of times.
fn each<'a, T>(mut operate: impl FnMut() -> T + 'a) -> Box<dyn FnMut(u32) + 'a> {
    Box::new(move |count| {
        for _ in 0..count {
            black_box(operate());
        }
    })
}

/// The CPU time that a read costs each of 8 threads: the machine may have fewer processors.
fn many_threads(state: &SyncedState) {
    let cpu_time = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(time).expect("a time").as_secs_f64() * 1e9
    };
    let cost = |threads: usize| {
        let barrier = Arc::new(Barrier::new(threads));
        let reads = || {
            barrier.wait();
            let began = cpu_time();
            for _ in 0..READS {
                black_box(black_box(state).count().expect("it is set"));
            }
            (cpu_time() - began) / f64::from(READS)
        };
        thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(reads)).collect();
            running
                .into_iter()
                .map(|thread| thread.join().expect("no thread panics"))
                .fold(0.0, f64::max)
        })
    };
    let (mut alone, mut together): (Vec<_>, Vec<_>) =
        (0..ROUNDS).map(|_| (cost(1), cost(THREADS))).unzip();
    alone.sort_unstable_by(f64::total_cmp);
    together.sort_unstable_by(f64::total_cmp);
    let (alone, together) = (alone[ROUNDS / 2], together[ROUNDS / 2]);
    println!(
        "near read, CPU time: one thread {alone:.1} ns, the slowest of {THREADS} threads {together:.1} ns"
    );
    report(
        "near read, each of 8 threads / one thread, CPU time",
        together / alone,
        "<= 1.2",
    );
}

fn behind(server: &Server) {
    let memory = Memory::builder()
        .url(server.url())
        .write_policy(WritePolicy::Behind)
        .build()
        .expect("a memory");
    let same = memory.synced(&Key::<u64>::new("same"));
    let mut sides: Vec<Side<'_>> = vec![(
        "behind set of one key",
        Box::new(|count| (0..count).for_each(|n| _ = same.set(n.into()).expect("it is queued"))),
    )];
    let figures = medians(ROUNDS, READS / 10, &mut sides);
    print(&sides, &figures);
    println!(
        "behind sets of one key: {:.2} M/s   (bar: >= 1)",
        1e-6 / figures[0]
    );
    memory.flush(DEADLINE).expect("all is delivered");

    // Measured until the server has them all, against bare pipelined SETs of the same bytes.
    let views: Vec<_> = (0..KEYS)
        .map(|n| memory.synced(&Key::<u64>::named(format!("distinct{n}"))))
        .collect();
    let envelope = r#"{"value": 12345,"last_modified": 1719400000000000000}"#;
    let mut bare = redis::Client::open(server.url())
        .and_then(|client| client.get_connection())
        .expect("a connection");
    let mut sides: Vec<Side<'_>> = vec![
        (
            "behind sets of distinct keys, until delivered",
            Box::new(|_| {
                for view in &views {
                    view.set(12_345).expect("it is queued");
                }
                memory.flush(DEADLINE).expect("all is delivered");
            }),
        ),
        (
            "bare pipelined SETs",
            Box::new(|_| {
                for keys in (0..KEYS).collect::<Vec<_>>().chunks(500) {
                    let mut pipeline = redis::pipe();
                    for key in keys {
                        pipeline.set(format!("memory:bare{key}"), envelope).ignore();
                    }
                    pipeline
                        .query::<()>(&mut bare)
                        .expect("the server is there");
                }
            }),
        ),
    ];
    let figures = medians(7, 1, &mut sides);
    for ((name, _), figure) in sides.iter().zip(&figures) {
        println!("{name:<62} {:>8.1} K/s", 1e-3 * f64::from(KEYS) / figure);
    }
    report(
        "behind, distinct keys / bare pipelined SETs",
        figures[1] / figures[0],
        ">= 0.2",
    );
}

/// How long after a write the watch of another connection fires.
fn watches(server: &Server) {
    let (writer, watcher) = (Memory::open(&server.url()), Memory::open(&server.url()));
    let (writer, watcher) = (writer.expect("a memory"), watcher.expect("a memory"));
    let key = Key::<u64>::new("watched");
    writer.set(&key, 0).expect("the server is there");
    let mut watch = watcher.watch(&key);
    watch.recv().expect("a value");
    let (mut fired, mut round_trips) = (Vec::new(), Vec::new());
    for n in 1..=2_000 {
        let (seen, when_seen) = std::sync::mpsc::channel();
        let (watch, fired) = (&mut watch, &mut fired);
        thread::scope(|scope| {
            scope.spawn(move || {
                while watch.recv().expect("a value") != Some(n) {}
                seen.send(Instant::now()).expect("the test waits");
            });
            let began = Instant::now();
            writer.set(&key, n).expect("the server is there");
            fired.push(when_seen.recv().expect("it fires") - began);
        });
        let began = Instant::now();
        writer.get(&key).expect("the server is there");
        round_trips.push(began.elapsed());
    }
    fired.sort_unstable();
    round_trips.sort_unstable();
    let (fired, round_trip) = (fired[fired.len() / 2], round_trips[round_trips.len() / 2]);
    println!(
        "a watch of another connection fires after {fired:?}, a round trip takes {round_trip:?}"
    );
    report(
        "watch / one round trip",
        fired.as_secs_f64() / round_trip.as_secs_f64(),
        "<= 3",
    );
}

//! Rules 1, 9 and 14: near reads during writes at the worst moment, during very frequent writes,
//! and during outages.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::caching::CacheConfig;
use redis::{AsyncConnectionConfig, Commands};
use support::{Canary, Direction, Dragonfly, Server, Stop, eventually};
use synced_memory::{Key, Memory, ReadPolicy, Synced, WritePolicy, Written};

use crate::line::{DEADLINE, Line, quick, wait_connected, wait_disconnected};
use crate::outages::Stopwatch;

fn races() -> usize {
    if std::env::var_os("SYNCED_MEMORY_SOAK").is_some() {
        1_000
    } else {
        200
    }
}

/// A little more than two round trips: a write within this time may meet a read at any step.
const APART: Duration = Duration::from_micros(200);

/// A writer that sets one key after the other, each when its first read begins.
struct Racer {
    go: AtomicUsize,
    done: AtomicUsize,
    /// The reader or the writer has failed, or all is done.
    over: Stop,
}

impl Racer {
    fn name(race: usize) -> String {
        format!("race{race}")
    }

    /// Runs `read` for each race while its key is set from 1 to 2 (and then to 3, if it `goes_on`).
    fn run(server: &Server, races: usize, goes_on: bool, mut read: impl FnMut(usize)) {
        let all = Self {
            go: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            over: Stop::default(),
        };
        let mut connection = redis::Client::open(server.url())
            .unwrap()
            .get_connection()
            .unwrap();
        for race in 0..races {
            let () = connection
                .set(format!("memory:{}", Self::name(race)), 1)
                .unwrap();
        }
        thread::scope(|scope| {
            let over = all.over.on_drop();
            scope.spawn(|| {
                let _over = all.over.on_drop();
                for race in 0..races {
                    while all.go.load(Ordering::Acquire) <= race {
                        if all.over.is_set() {
                            return;
                        }
                        std::hint::spin_loop();
                    }
                    for value in if goes_on { 2..=3 } else { 2..=2 } {
                        let at = Instant::now() + APART.mul_f64(fastrand::f64());
                        while Instant::now() < at {
                            std::hint::spin_loop();
                        }
                        let () = connection
                            .set(format!("memory:{}", Self::name(race)), value)
                            .unwrap();
                    }
                    all.done.store(race + 1, Ordering::Release);
                }
            });
            for race in 0..races {
                all.go.store(race + 1, Ordering::Release);
                read(race);
                let is_done = || all.done.load(Ordering::Acquire) > race;
                while !is_done() {
                    assert!(!all.over.is_set() || is_done(), "the writer goes on");
                    thread::yield_now();
                }
            }
            drop(over);
        });
    }
}

/// How many keys redis-rs shows, and keeps showing, as they were before the last write.
fn stuck_in_redis_rs(server: &Server) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = AsyncConnectionConfig::new().set_cache_config(CacheConfig::new());
    let client = redis::Client::open(format!("{}?protocol=resp3", server.url())).unwrap();
    let mut connection: MultiplexedConnection = runtime
        .block_on(client.get_multiplexed_async_connection_with_config(&config))
        .unwrap();
    let mut get = |race: usize| -> u32 {
        let key = format!("memory:{}", Racer::name(race));
        runtime
            .block_on(redis::cmd("GET").arg(key).query_async(&mut connection))
            .unwrap()
    };
    Racer::run(server, races(), false, |race| _ = get(race));
    // Invalidations under way have time to arrive.
    let until = Instant::now() + Duration::from_millis(300);
    let mut stuck: Vec<usize> = (0..races()).collect();
    while Instant::now() < until && !stuck.is_empty() {
        stuck.retain(|race| get(*race) != 2);
    }
    stuck.len()
}

fn assert_none_is_stuck(server: &Server, url: &str, goes_on: bool) {
    // The writer and the server may occupy both CPUs for a while.
    let memory = quick(url)
        .timeout(Duration::from_secs(5))
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    wait_connected(&memory);
    let views: Vec<Synced<u32>> = (0..races())
        .map(|race| memory.synced(&Key::<u32>::named(Racer::name(race))))
        .collect();
    Racer::run(server, races(), goes_on, |race| {
        assert!((1..=3).contains(&views[race].get().unwrap()));
    });
    let last = if goes_on { 3 } else { 2 };
    let stuck = || {
        views
            .iter()
            .filter(|view| view.get().unwrap() != last)
            .count()
    };
    eventually(DEADLINE, "no read is stuck", || stuck() == 0);
    eventually(DEADLINE, "all are current", || memory.status().stale == 0);
}

#[test]
fn a_write_that_meets_a_first_read_leaves_no_reader_stuck() {
    let server = Server::redis().start();
    for goes_on in [false, true] {
        assert_none_is_stuck(&server, &server.url(), goes_on);
        assert_none_is_stuck(&server, &Dragonfly::over(&server).url(), goes_on);
    }
    let peer = stuck_in_redis_rs(&server);
    eprintln!(
        "of {0} races each: 0 stuck here; with redis-rs's client-side cache {peer} of {0}",
        races()
    );
}

#[test]
fn a_key_written_every_30_us_stays_readable_and_is_read_again_once_at_a_time() {
    const EVERY: Duration = Duration::from_micros(30);
    const LATENCY: Duration = Duration::from_millis(5);
    const LENGTH: Duration = Duration::from_secs(1);
    let line = Line::new();
    for direction in [Direction::ToServer, Direction::ToClient] {
        line.proxy.delay(direction, LATENCY);
    }
    let memory = line
        .builder()
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    let (hot, calm) = (
        memory.synced(&Key::<u64>::new("hot")),
        memory.synced(&Key::<u64>::new("calm")),
    );
    let (canary, stop) = (Canary::start(), Stop::default());
    thread::scope(|scope| {
        let stop_writing = stop.on_drop();
        let writes = scope.spawn(|| {
            let mut connection = redis::Client::open(line.server.url())
                .unwrap()
                .get_connection()
                .unwrap();
            let (began, mut written) = (Instant::now(), 0_u32);
            while !stop.is_set() {
                written += 1;
                // Ten at a time, so that none waits for the answer to the one before.
                let mut ten = redis::pipe();
                (0..10).for_each(|n| _ = ten.set("memory:hot", 10 * written + n).ignore());
                let () = ten.query(&mut connection).unwrap();
                while began.elapsed() < EVERY * 10 * written {
                    thread::yield_now();
                }
            }
            10 * written
        });
        eventually(DEADLINE, "it is read", || hot.find().unwrap().is_some());
        line.server.reset_stats();
        canary.lateness();
        let (began, stopwatch, mut reads) = (Instant::now(), Stopwatch::of_this_thread(), 0);
        let (mut longest, mut slow) = (Duration::ZERO, 0);
        let (mut seen, mut changes) = (0, 0);
        while began.elapsed() < LENGTH {
            let took = stopwatch.time(|| {
                let now = hot.get().unwrap();
                assert!(now >= seen, "{now} after {seen}");
                changes += u32::from(now != seen);
                seen = now;
            });
            reads += 1;
            longest = longest.max(took.time);
            slow += u32::from(took.time > Duration::from_millis(1));
        }
        let (took, lateness) = (began.elapsed(), canary.lateness());
        // Another key is kept current all the same.
        line.server.set_raw("memory:calm", "5");
        eventually(DEADLINE, "another key is read", || {
            calm.find().unwrap() == Some(5)
        });
        line.server.set_raw("memory:calm", "6");
        eventually(DEADLINE, "the change of another key is seen", || {
            calm.find().unwrap() == Some(6)
        });
        let asked = line.server.command_count("get");
        drop(stop_writing);
        let written = writes.join().unwrap();
        eprintln!(
            "{written} writes; {reads} reads in {took:?} saw {changes} values, the longest took {longest:?} on a machine \
             that was late by {lateness:?}; {asked} GETs"
        );
        // At most one in a thousand waits, if only for a lock whose holder has no CPU; a round trip
        // takes 10 ms.
        assert!(
            slow < 1 + reads / 1_000,
            "{slow} of {reads} reads took longer than 1 ms"
        );
        assert!(changes > 5, "only {changes} values were seen");
        // One GET per round trip, and some for the other key.
        let most = began.elapsed().as_millis() / (2 * LATENCY).as_millis() + 10;
        assert!(
            u128::from(asked) <= most,
            "{asked} GETs in {:?}",
            began.elapsed()
        );
    });
    let last: u64 = line.server.get_text("memory:hot").unwrap().parse().unwrap();
    eventually(DEADLINE, "the last write is seen", || {
        hot.get().unwrap() == last
    });
    eventually(DEADLINE, "all are current", || memory.status().stale == 0);
}

/// Reads and writes until `stop` is set; returns how many rounds there were, and the longest read.
fn read_and_write_on(memory: &Memory, own: &str, stop: &Stop) -> (u64, Duration) {
    let (own, shared) = (
        memory.synced(&Key::<u64>::named(own.to_owned())),
        memory.synced(&Key::<u64>::new("shared")),
    );
    let stopwatch = Stopwatch::of_this_thread();
    let (mut reads, mut longest) = (0, Duration::ZERO);
    while !stop.is_set() {
        reads += 1;
        if reads % 16 == 1 {
            assert_eq!(own.set(reads).unwrap(), Written::Queued);
        }
        let (last, before) = (reads - (reads - 1) % 16, longest);
        for read in [&mut || assert_eq!(own.get().unwrap(), last), &mut || {
            assert!(shared.get().unwrap() > 0);
        }] as [&mut dyn FnMut(); 2]
        {
            longest = longest.max(stopwatch.time(read).time);
        }
        if longest == before {
            thread::yield_now();
        }
    }
    (reads, longest)
}

#[test]
fn in_outages_no_near_read_fails_or_takes_longer_than_1_ms_and_each_shows_own_writes() {
    // After a restart without its data the server would rightly have nothing of the earlier writes.
    let line = Line::durable();
    let memory = line
        .builder()
        .read_policy(ReadPolicy::Near)
        .write_policy(WritePolicy::Behind)
        .build()
        .unwrap();
    let direct = line.open_directly();
    direct.set(&Key::<u64>::new("shared"), 1).unwrap();
    eventually(DEADLINE, "it is known", || {
        memory.get(&Key::<u64>::new("shared")).unwrap() == Some(1)
    });
    for own in ["own0", "own1"] {
        let own = memory.synced(&Key::<u64>::new(own));
        own.set(1).unwrap();
        // The first read of a key asks the server.
        eventually(DEADLINE, "it is kept current", || {
            own.get().is_ok() && own.staleness() == Some(Duration::ZERO)
        });
    }
    let (stop, canary) = (Stop::default(), Canary::start());
    let (mut reads, mut longest, mut lateness) = (0, Duration::ZERO, Duration::ZERO);
    thread::scope(|scope| {
        let stop_reading = stop.on_drop();
        let threads =
            ["own0", "own1"].map(|own| scope.spawn(|| read_and_write_on(&memory, own, &stop)));
        let mut outage = |begin: &dyn Fn(), end: &dyn Fn()| {
            begin();
            wait_disconnected(&memory);
            end();
            wait_connected(&memory);
            memory.flush(DEADLINE).unwrap();
            lateness = lateness.max(canary.lateness());
        };
        for round in 2..=4 {
            outage(&|| line.server.freeze(), &|| line.server.thaw());
            outage(&|| line.down(&memory), &|| line.up());
            outage(&|| line.proxy.stall(true), &|| line.proxy.stall(false));
            outage(&|| line.server.kill(), &|| {
                line.server.start();
                line.server.set_raw("memory:shared", round.to_string());
            });
            let shared = || memory.get(&Key::<u64>::new("shared")).unwrap();
            eventually(DEADLINE, "changes are seen again", || {
                shared() == Some(round)
            });
        }
        drop(stop_reading);
        for thread in threads {
            let (read, took) = thread
                .join()
                .expect("no near read fails, and each shows what was written");
            reads += read;
            longest = longest.max(took);
        }
    });
    eprintln!(
        "{reads} rounds in twelve outages; the longest read took {longest:?}; this machine was late by {lateness:?}"
    );
    // Without the time that the thread itself waited for a CPU; the holder of a lock may wait for
    // one, too.
    assert!(
        longest < Duration::from_millis(1) + 3 * lateness,
        "a near read took {longest:?}; late by {lateness:?}"
    );
}

//! What grows with the number of processes, and with the number of keys.

use std::thread;
use std::time::{Duration, Instant};

use support::Server;
use synced_memory::{Key, Memory, WritePolicy};
use synced_memory_benches::processes::{Fleet, MEMORIES, cpu_of, info, memory_of, now};
use synced_memory_benches::{quantile, report_at_most};

const DEADLINE: Duration = Duration::from_secs(600);

/// How long the server is away: as short as a restart, and so long that the waits between tries to
/// reconnect are at their longest.
const OUTAGES: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(15)];
/// The default of `backoff`.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long 150 memories take to find a server that was restarted.
pub fn restart() {
    for outage in OUTAGES {
        let server = Server::redis().start();
        let mut fleet = Fleet::of_memories(&server);
        fleet.ask("hold 1");
        server.stop();
        fleet.ask("down");
        thread::sleep(outage);
        let before = Instant::now();
        server.start();
        let (start, ready) = (before.elapsed(), now());
        let mut when = fleet.numbers("up");
        #[allow(clippy::cast_precision_loss)]
        let seconds = |when: f64| (when - ready as f64).max(0.0) / 1e9;
        let (median, last) = (quantile(&mut when, 0.5), quantile(&mut when, 1.0));
        println!(
            "after an outage of {outage:?}: half of {MEMORIES} memories are connected and current \
             {:.0} ms after the server is there, all {:.0} ms; it started in {start:.0?} and used \
             {:.0} ms of CPU time",
            1e3 * seconds(median),
            1e3 * seconds(last),
            1e3 * cpu_of(&server),
        );
        report_at_most(
            "the last one / the longest wait of `backoff`",
            seconds(last) / LONGEST_WAIT.as_secs_f64(),
            1.1,
        );
    }
}

/// What several processes do together on one key.
pub fn contention() {
    for (kind, changes) in [("add", 8_000), ("push", 2_000), ("closure", 4_000)] {
        for processes in [1, 8, 64] {
            let server = Server::redis().start();
            let mut fleet = Fleet::start(&server, "through", processes, 1);
            if kind == "closure" {
                // It needs a value to change.
                let memory = Memory::open(&server.url()).expect("the server is there");
                let written = memory.set(&Key::<u64>::new("key"), 0);
                written.expect("the server is there");
            }
            server.reset_stats();
            let (began, cpu) = (Instant::now(), cpu_of(&server));
            let answers = fleet.numbers(&format!("change {kind} key {}", changes / processes));
            let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_of(&server) - cpu);
            let sum = |at: usize| answers.iter().skip(at).step_by(2).sum::<f64>();
            let (stored, given_up) = (sum(0), sum(1));
            #[allow(clippy::cast_precision_loss)]
            let calls = (server.command_count("eval") + server.command_count("evalsha")) as f64;
            println!(
                "{kind:<8} {processes:>2} processes: {:>7.0} a second together, {:.2} attempts for \
                 each, {given_up} given up, {:.0} us of the server's CPU time for each",
                stored / elapsed,
                calls / stored,
                1e6 * cpu / stored,
            );
        }
    }
}

/// What a key and the records beside it take on the server.
pub fn records() {
    const KEYS: u32 = 10_000;
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).expect("the server is there");
    let of_keys = |memory: &Memory, from: u32| {
        let keys = (from..from + KEYS).map(|n| Key::<u32>::named(format!("key{n:08}")));
        let views: Vec<_> = keys.map(|key| memory.synced(&key)).collect();
        for (n, view) in (from..).zip(&views) {
            view.set(n).expect("the server is there");
        }
        views
    };
    let before = memory_of(&server);
    let held = of_keys(&memory, 0);
    let with_records = (memory_of(&server) - before) / f64::from(KEYS);
    let before = memory_of(&server);
    for n in KEYS..2 * KEYS {
        let envelope = format!(r#"{{"value": {n},"last_modified": 1719400000000000000}}"#);
        server.set_raw(&format!("memory:key{n:08}"), envelope);
    }
    let bare = (memory_of(&server) - before) / f64::from(KEYS);
    println!(
        "a key of 12 characters with a number: {bare:.0} bytes as a bare key, {with_records:.0} \
              with the record of one writer beside it"
    );
    drop(held);

    for writers in [1, 8, 64] {
        let key = format!("by{writers}");
        let mut fleet = Fleet::start(&server, "through", writers, 1);
        fleet.ask(&format!("change add {key} 1"));
        let usage = |key: &str| -> u64 {
            let answer = server.cli(&["MEMORY", "USAGE", key, "SAMPLES", "0"]);
            redis::from_redis_value(answer).expect("a number")
        };
        println!(
            "a key with {writers} known writers: {} bytes, and {} beside it",
            usage(&format!("memory:{key}")),
            usage(&format!("synced-memory/{{memory:{key}}}")),
        );
    }
}

/// What a connection takes on the server.
pub fn connections() {
    let server = Server::redis().start();
    let before = memory_of(&server);
    let _fleet = Fleet::of_memories(&server);
    #[allow(clippy::cast_precision_loss)]
    let each = (memory_of(&server) - before) / MEMORIES as f64;
    println!("an idle memory takes {each:.0} bytes on the server");
}

/// What a near key takes, on the server and in a process.
pub fn near_keys() {
    const HELD: usize = 100_000;
    let server = Server::redis().start();
    let mut fleet = Fleet::of_memories(&server);
    let before = memory_of(&server);
    fleet.ask("hold 1000");
    let table = memory_of(&server) - before;
    let (keys, items) = (
        info(&server, "stats", "tracking_total_keys"),
        info(&server, "stats", "tracking_total_items"),
    );
    println!(
        "1,000 keys, each held near by {MEMORIES} memories: {keys} tracked keys, {items} entries, \
         {:.0} bytes a key",
        table / 1_000.0
    );
    drop(fleet);

    let memory = Memory::builder()
        .url(server.url())
        .write_policy(WritePolicy::Behind);
    let memory = memory.build().expect("a memory");
    for n in 0..HELD {
        let key = Key::<usize>::named(format!("near{n}"));
        memory.set(&key, n).expect("it is queued");
    }
    memory.flush(DEADLINE).expect("the server is there");
    let mut fleet = Fleet::start(&server, "near", 1, 1);
    let (before, began) = (memory_of(&server), Instant::now());
    let grown = fleet.numbers(&format!("hold {HELD}"))[0];
    #[allow(clippy::cast_precision_loss)]
    let held = HELD as f64;
    println!(
        "{HELD} keys held near by one process: {:.0} bytes a key in the process, {:.0} on the \
         server; all were current after {:?}",
        grown / held,
        (memory_of(&server) - before) / held,
        began.elapsed()
    );
}

/// What memories cost that do nothing.
pub fn idle() {
    const WINDOW: Duration = Duration::from_secs(20);
    for (what, held) in [("nothing held", 0), ("one key held near", 1)] {
        let server = Server::redis().start();
        let mut fleet = Fleet::of_memories(&server);
        if held > 0 {
            fleet.ask("hold 1");
        }
        let commands = || info(&server, "stats", "total_commands_processed");
        let members = |fleet: &mut Fleet| fleet.numbers("cpu").iter().sum::<f64>();
        let before = (commands(), cpu_of(&server), members(&mut fleet));
        let began = Instant::now();
        thread::sleep(WINDOW);
        let after = (commands(), cpu_of(&server), members(&mut fleet));
        #[allow(clippy::cast_precision_loss)]
        let each = |all: f64| all / began.elapsed().as_secs_f64() / MEMORIES as f64;
        println!(
            "an idle memory ({what}), in a second: {:.2} commands, {:.1} us of the server's CPU \
             time, {:.1} us of its process's",
            each(after.0 - before.0),
            1e6 * each(after.1 - before.1),
            1e6 * each(after.2 - before.2),
        );
    }
}

/// What scans the whole server, with a million keys on it.
pub fn scans() {
    const KEYS: usize = 1_000_000;
    const SCOPE: usize = 1_000;
    let server = Server::redis()
        .arg("latency-tracking-info-percentiles", "50 99 100")
        .start();
    let memory = Memory::builder()
        .url(server.url())
        .write_policy(WritePolicy::Behind);
    let memory = memory.build().expect("a memory");
    let began = Instant::now();
    for n in 0..KEYS {
        let key = Key::<usize>::named(format!("key{n:08}"));
        memory.set(&key, n).expect("it is queued");
        if n % 50_000 == 0 {
            memory.flush(DEADLINE).expect("the server is there");
        }
    }
    let small = memory.scope("small");
    for n in 0..SCOPE {
        let key = Key::<usize>::named(format!("key{n}"));
        small.set(&key, n).expect("it is queued");
    }
    memory.flush(DEADLINE).expect("the server is there");
    println!(
        "{KEYS} keys were written in {:.1} s; the server has {:.0} MB and {}",
        began.elapsed().as_secs_f64(),
        memory_of(&server) / 1e6,
        server.info("keyspace").lines().nth(1).unwrap_or_default()
    );

    let names = |of: &Memory| of.names().expect("the server is there").len();
    let purge = |of: &Memory| of.purge().expect("the server is there");
    beside(&server, "names of all", || assert_eq!(names(&memory), KEYS));
    beside(&server, "names of a scope of 1,000 keys", || {
        assert_eq!(names(&small), SCOPE);
    });
    beside(&server, "purge of a scope of 1,000 keys", || {
        assert_eq!(purge(&small), SCOPE as u64);
    });
    beside(&server, "purge of all", || {
        assert_eq!(purge(&memory), KEYS as u64);
    });
}

/// Does something once, and prints how long it took, how long the server was busy with one call of
/// it, and what another process noticed of it.
fn beside(server: &Server, what: &str, act: impl FnOnce() + Send) {
    let other = Memory::builder().url(server.url()).prefix("other:").build();
    let other = other.expect("the server is there");
    let other = other.synced(&Key::<u32>::new("number"));
    other.set(1).expect("the server is there");
    let read = || {
        let began = Instant::now();
        other.get().expect("the server is there");
        began.elapsed()
    };
    let mut quiet: Vec<_> = (0..5_000).map(|_| read()).collect();
    server.reset_stats();
    let cpu = cpu_of(server);
    let (elapsed, mut disturbed) = thread::scope(|scope| {
        let acting = scope.spawn(|| {
            let began = Instant::now();
            act();
            began.elapsed()
        });
        let mut disturbed = Vec::new();
        while !acting.is_finished() {
            disturbed.push(read());
        }
        (acting.join().expect("it does not panic"), disturbed)
    });
    println!(
        "{what}: {:.2} s, {:.2} s of the server's CPU time with the reads beside it; 99 of \
         100 reads of another memory took at most {:?} meanwhile, and {:?} before",
        elapsed.as_secs_f64(),
        cpu_of(server) - cpu,
        quantile(&mut disturbed, 0.99),
        quantile(&mut quiet, 0.99),
    );
    for name in ["scan", "evalsha"] {
        let calls = server.command_count(name);
        let latencies = server.info("latencystats");
        let start = format!("latency_percentiles_usec_{name}:");
        let line = latencies.lines().find_map(|line| line.strip_prefix(&start));
        if let Some(line) = line.filter(|_| calls > 0) {
            println!("  {calls} calls of {name}, in us: {line}");
        }
    }
}

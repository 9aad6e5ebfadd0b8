//! Rule 14: whatever happens to the server, the listener and the line, the
//! last item of a watch is what the server has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Direction, Dragonfly, Server, eventually};
use synced_memory::{ErrorKind, Memory, SyncedMemory, Watch, WritePolicy};

use crate::line::{DEADLINE, Line, on_every_backend, quick};
use crate::together::draw;

#[derive(SyncedMemory, Debug)]
struct Sample {
    #[synced(default)]
    count: i64,
    items: Vec<i64>,
    map: BTreeMap<String, i64>,
    /// Rises at each quiet point.
    #[synced(default)]
    quiet: u64,
}

/// The last item of a watch, received by a thread that does nothing else.
#[derive(Debug)]
struct Follower<T> {
    /// Nothing yet, or one item.
    last: Arc<Mutex<Vec<Option<T>>>>,
    thread: JoinHandle<()>,
}

impl<T: Clone + PartialEq + std::fmt::Debug + Send + 'static> Follower<T> {
    fn of(watch: Watch<T>) -> Self {
        let last = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&last);
        let thread = thread::spawn(move || {
            for item in watch {
                match item {
                    Ok(value) => *seen.lock().unwrap() = vec![value],
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
                }
            }
        });
        Self { last, thread }
    }

    fn is_at(&self, expected: Option<T>) -> bool {
        self.last.lock().unwrap()[..] == [expected]
    }
}

/// Watches of every kind, on one memory.
struct Followers {
    count: Follower<i64>,
    first: Follower<i64>,
    map: Follower<BTreeMap<String, i64>>,
    /// The fields that the watch of the whole handle has named since the last quiet point; it has
    /// named `quiet` itself.
    named: Arc<Mutex<BTreeSet<&'static str>>>,
    handle: JoinHandle<()>,
    before: [Option<Value>; 3],
}

impl Followers {
    fn of(memory: &Memory) -> Self {
        let state = Sample::attach(memory);
        let named = Arc::<Mutex<BTreeSet<&'static str>>>::default();
        let (naming, watch) = (Arc::clone(&named), state.watch());
        let handle = thread::spawn(move || {
            // The last one is `Closed`.
            watch
                .into_iter()
                .map_while(Result::ok)
                .for_each(|names| naming.lock().unwrap().extend(names.unwrap()));
        });
        Self {
            count: Follower::of(state.synced_count().watch()),
            first: Follower::of(state.items().at(0).watch()),
            map: Follower::of(state.map().watch()),
            named,
            handle,
            before: [None, None, None],
        }
    }

    /// Asserts, after the last write, that the last items are what there is.
    fn agree(
        &mut self,
        writer: &SyncedSample,
        what_is_there: impl Fn() -> [Option<Value>; 3],
        when: &str,
    ) {
        let deadline = Instant::now() + DEADLINE;
        let now = loop {
            let [count, items, map] = what_is_there();
            let as_map = |map: &Value| serde_json::from_value(map.clone()).unwrap();
            if self
                .count
                .is_at(count.as_ref().map(|count| count.as_i64().unwrap()))
                && self
                    .first
                    .is_at(items.as_ref().and_then(|items| items[0].as_i64()))
                && self.map.is_at(map.as_ref().map(as_map))
            {
                break [count, items, map];
            }
            let Self {
                count: seen,
                first,
                map: all,
                ..
            } = self;
            assert!(
                Instant::now() < deadline,
                "{when}: {count:?} {items:?} {map:?}, but {seen:?} {first:?} {all:?}"
            );
            thread::sleep(Duration::from_millis(1));
        };
        // The watch looks at all fields at once: once it has named `quiet`, it has seen the last
        // values of the others.
        self.named.lock().unwrap().remove("quiet");
        writer.update_quiet(|quiet| *quiet += 1).unwrap();
        let is_named = |name| self.named.lock().unwrap().contains(name);
        eventually(
            DEADLINE,
            &format!("{when}: the quiet point is seen"),
            || is_named("quiet"),
        );
        for ((name, before), now) in Sample::NAMES.iter().zip(&self.before).zip(&now) {
            eventually(
                DEADLINE,
                &format!("{when}: the change of {name} is seen"),
                || before == now || is_named(name),
            );
        }
        self.named.lock().unwrap().clear();
        self.before = now;
    }

    fn end(self) {
        for thread in [
            self.count.thread,
            self.first.thread,
            self.map.thread,
            self.handle,
        ] {
            thread.join().expect("it ends by itself");
        }
    }
}

fn change_at_random(state: &SyncedSample, random: &mut u64) {
    let n = i64::try_from(draw(random, 1_000)).unwrap();
    let name = (n % 7).to_string();
    match draw(random, 12) {
        0..=2 => state.set_count(n).map(drop),
        3 => state.add_count(n).map(drop),
        4 => state.synced_count().delete().map(drop),
        5 => state.items().push(n).map(drop),
        6 => state.items().insert(0, n).map(drop),
        7 => state.items().pop().map(drop),
        8 => state.items().clear().map(drop),
        9..=10 => state.map().insert(name, n).map(drop),
        _ => state.map().remove(&name).map(drop),
    }
    // The element or type that a change was recorded on may be gone; and nothing is taken while the
    // server is away.
    .or_else(|error| match error.kind() {
        ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::InDoubt => Ok(()),
        _ => Err(error),
    })
    .unwrap();
}

/// The value that the server holds under a name, in an envelope or bare.
fn stored(server: &Server, name: &str) -> Option<Value> {
    let stored: Value = serde_json::from_str(&server.get_text(&format!("memory:{name}"))?).unwrap();
    Some(
        stored
            .get("last_modified")
            .map_or(&stored, |_| &stored["value"])
            .clone(),
    )
}

#[test]
fn the_last_value_is_seen_after_ten_thousand_changes_and_whatever_faults_happen_meanwhile() {
    let line = Line::new();
    assert_last_values_are_seen(&line, line.open(), 100);
}

#[test]
fn the_same_holds_by_dragonflys_rules() {
    let line = Line::new();
    let dragonfly = Dragonfly::over(&line.proxy);
    assert_last_values_are_seen(&line, quick(dragonfly.url()).build().unwrap(), 50);
}

/// Makes rounds of changes with a fault, with a quiet point after each. `watched`: a memory on this
/// line.
fn assert_last_values_are_seen(line: &Line, watched: Memory, rounds: usize) {
    const WRITERS: usize = 4;
    const CHANGES: usize = 25;

    let (server, proxy) = (&line.server, &line.proxy);
    let mut followers = Followers::of(&watched);
    let behind = || {
        quick(server.url())
            .write_policy(WritePolicy::Behind)
            .build()
            .unwrap()
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| Sample::attach(&behind())).collect();
    let mut random = 5;
    for round in 0..rounds {
        let fault = draw(&mut random, 10);
        thread::scope(|scope| {
            for (n, writer) in writers.iter().enumerate() {
                let mut random = (round * WRITERS + n) as u64;
                scope.spawn(move || {
                    for _ in 0..CHANGES {
                        change_at_random(writer, &mut random);
                        thread::sleep(Duration::from_micros(draw(&mut random, 400)));
                    }
                    writer.memory().flush(DEADLINE).unwrap();
                });
            }
            thread::sleep(Duration::from_micros(draw(&mut random, 10_000)));
            match fault {
                0 => proxy.cut(),
                1 => _ = server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]),
                2 => proxy.cut_after_bytes(Direction::ToClient, draw(&mut random, 3_000)),
                3 => proxy.cut_after_bytes(Direction::ToServer, draw(&mut random, 500)),
                4 => {
                    line.down(&watched);
                    thread::sleep(Duration::from_micros(draw(&mut random, 20_000)));
                    line.up();
                }
                5 => {
                    server.kill();
                    server.start();
                }
                6 => proxy.delay(
                    Direction::ToClient,
                    Duration::from_millis(draw(&mut random, 20)),
                ),
                7 => _ = server.cli(&["FLUSHALL"]),
                8 => server.set_raw("memory:count", draw(&mut random, 1_000).to_string()),
                _ => {}
            }
        });
        proxy.do_not_cut();
        proxy.delay(Direction::ToClient, Duration::ZERO);
        let what_is_there = || ["count", "items", "map"].map(|name| stored(server, name));
        followers.agree(
            &writers[0],
            what_is_there,
            &format!("round {round}, fault {fault}"),
        );
    }
    drop(watched);
    followers.end();
}

#[test]
fn the_last_value_is_seen_on_every_backend() {
    on_every_backend("watched", |one, other| {
        let mut followers = Followers::of(one);
        let writers = [Sample::attach(one), Sample::attach(other)];
        for round in 0..10 {
            thread::scope(|scope| {
                for (n, writer) in (0..).zip(&writers) {
                    let mut random = round * 2 + n;
                    scope
                        .spawn(move || (0..50).for_each(|_| change_at_random(writer, &mut random)));
                }
            });
            // On a busy machine one may have been queued.
            for writer in &writers {
                writer.memory().flush(DEADLINE).unwrap();
            }
            let json = |value: Value| Some(value).filter(|value| !value.is_null());
            let what_is_there = || {
                let state = &writers[1];
                let (count, items, map) = (
                    state.synced_count().find(),
                    state.items().find(),
                    state.map().find(),
                );
                [
                    json!(count.unwrap()),
                    json!(items.unwrap()),
                    json!(map.unwrap()),
                ]
                .map(json)
            };
            followers.agree(&writers[1], what_is_there, &format!("round {round}"));
        }
        // The caller drops its memory only later; this ends the watches now.
        one.close(DEADLINE).unwrap();
        followers.end();
    });
}

//! What has changed of a long value comes, and not the whole: to who reads it, to who follows it,
//! and to who is refused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::json;
use support::Direction::{ToClient, ToServer};
use support::{Logs, Proxy, Python, Server, eventually};
use synced_memory::{Key, Memory, ReadPolicy, Synced};

use crate::line::{DEADLINE, commits, quick};

const LONG: u64 = 20_000;
const ROUNDS: u64 = 100;
/// More than a whole value has, in bytes: one that is followed by its changes is read as a whole
/// once a minute.
const WHOLE: u64 = 500_000;

fn list(memory: &Memory) -> Synced<Vec<u64>> {
    memory.synced(&Key::new("list"))
}

fn map(memory: &Memory) -> Synced<BTreeMap<String, u64>> {
    memory.synced(&Key::new("map"))
}

fn near(url: String) -> Memory {
    let builder = quick(url).read_policy(ReadPolicy::Near);
    builder.build().unwrap()
}

/// How many bytes go each way while `work` is done.
fn traffic(proxy: &Proxy, work: impl FnOnce()) -> [u64; 2] {
    let count = || [ToServer, ToClient].map(|way| proxy.bytes(way));
    let before = count();
    work();
    let after = count();
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn a_long_value_that_has_not_changed_is_not_sent() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        let proxy = Proxy::to(&server);
        let (memory, other) = (quick(proxy.url()), quick(server.url()));
        let (memory, other) = (memory.build().unwrap(), other.build().unwrap());
        let mut expected: Vec<u64> = (0..LONG).collect();
        list(&other).set(expected.clone()).unwrap();
        assert_eq!(list(&memory).get().unwrap(), expected);
        let [out, back] = traffic(&proxy, || {
            for _ in 0..ROUNDS {
                assert_eq!(list(&memory).get().unwrap().len(), 20_000);
            }
        });
        assert!(
            out < 250 * ROUNDS && back < 50 * ROUNDS + WHOLE,
            "{out}, {back}"
        );

        // And a little, if a little has changed.
        let [out, back] = traffic(&proxy, || {
            for n in 0..ROUNDS {
                list(&other).push(n).unwrap();
                expected.push(n);
                assert_eq!(list(&memory).get().unwrap(), expected);
            }
        });
        assert!(
            out < 250 * ROUNDS && back < 300 * ROUNDS + WHOLE,
            "{out}, {back}"
        );
    }
}

#[test]
fn who_follows_a_long_value_gets_what_others_change() {
    const FEWER: u64 = ROUNDS / 3;
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        let proxy = Proxy::to(&server);
        let (follower, other) = (near(proxy.url()), quick(server.url()).build().unwrap());
        let name = |n: u64| format!("entry {n}");
        let mut expected: BTreeMap<String, u64> = (0..LONG).map(|n| (name(n), 0)).collect();
        map(&other).set(expected.clone()).unwrap();
        let view = map(&follower);
        eventually(DEADLINE, "it is near", || view.get().unwrap() == expected);
        let [out, back] = traffic(&proxy, || {
            for n in 0..FEWER {
                // A new one, one with the same length, one that is longer, and one less.
                map(&other).insert(name(LONG + n), n).unwrap();
                map(&other).insert(name(3 * n), 1).unwrap();
                map(&other).insert(name(3 * n + 1), 1_000_000).unwrap();
                map(&other).remove(&name(3 * n + 2)).unwrap();
                expected.extend([
                    (name(LONG + n), n),
                    (name(3 * n), 1),
                    (name(3 * n + 1), 1_000_000),
                ]);
                expected.remove(&name(3 * n + 2));
                eventually(DEADLINE, "it has what has changed", || {
                    view.with(|map| *map == expected).unwrap()
                });
            }
        });
        // Each is read once or twice.
        assert!(
            out < 8 * 400 * FEWER && back < 8 * 400 * FEWER + WHOLE,
            "{out}, {back}"
        );

        // Its own changes, too, and those that are refused because of others.
        let [out, back] = traffic(&proxy, || {
            for n in 0..FEWER {
                map(&other).insert(name(n), 7).unwrap();
                view.insert(name(n + 1), 8).unwrap();
                expected.extend([(name(n), 7), (name(n + 1), 8)]);
            }
            eventually(DEADLINE, "it has what has changed", || {
                view.with(|map| *map == expected).unwrap()
            });
        });
        assert!(
            out < 4_000 * FEWER && back < 2_500 * FEWER + WHOLE,
            "{out}, {back}"
        );
    }
}

/// A value does not become shorter each time, which the server would do by storing it anew.
#[test]
fn what_is_removed_from_a_long_value_is_not_sent_nor_is_what_stays() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let memory = quick(proxy.url()).build().unwrap();
    let name = |n: u64| format!("entry {n}");
    let mut expected: BTreeMap<String, u64> = (0..LONG).map(|n| (name(n), n)).collect();
    let mut queue: Vec<u64> = (0..LONG).collect();
    map(&memory).set(expected.clone()).unwrap();
    list(&memory).set(queue.clone()).unwrap();
    // Of what it has stored, it has not seen how the server has it.
    assert_eq!(map(&memory).get().unwrap(), expected);
    assert_eq!(list(&memory).get().unwrap(), queue);
    let [out, back] = traffic(&proxy, || {
        for n in 0..ROUNDS {
            map(&memory).remove(&name(7 * n)).unwrap();
            expected.remove(&name(7 * n));
            assert_eq!(list(&memory).pop().unwrap(), queue.pop());
            if n % 10 == 0 {
                list(&memory).update(|list| list.remove(0)).unwrap();
                queue.remove(0);
            }
        }
    });
    assert!(
        out < 2 * 1_000 * ROUNDS && back < 2 * 400 * ROUNDS + WHOLE,
        "{out}, {back}"
    );
    let other = quick(server.url()).build().unwrap();
    assert_eq!(map(&other).get().unwrap(), expected);
    assert_eq!(list(&other).get().unwrap(), queue);

    // As much as a quarter of it: then all of it is stored, without spaces.
    let keys: Vec<_> = expected.keys().take(15_000).cloned().collect();
    for keys in keys.chunks(1_000) {
        let mut removed: Vec<&String> = keys.iter().collect();
        map(&memory)
            .update(|map| removed.drain(..).for_each(|key| _ = map.remove(key)))
            .unwrap();
        let stored = server.get_text("memory:map").unwrap();
        let spaces = stored.matches(' ').count() - stored.matches("entry ").count();
        assert!(spaces <= stored.len() / 4 + 100, "{spaces}");
    }
    expected.retain(|key, _| !keys.contains(key));
    assert_eq!(map(&other).get().unwrap(), expected);
}

#[test]
fn what_others_store_between_two_changes_is_read_as_it_is() {
    let server = Server::redis().start();
    let (follower, reader) = (near(server.url()), quick(server.url()).build().unwrap());
    let other = quick(server.url()).build().unwrap();
    let mut python = Python::against(&server);
    python.run("from synced_memory import Memory; m = Memory()");
    list(&other).set((0..LONG).collect()).unwrap();
    let expect = |expected: &[u64]| {
        assert_eq!(list(&reader).get().unwrap(), expected);
        eventually(DEADLINE, "it has what is stored", || {
            // It may see that the key was gone.
            list(&follower)
                .with(|list| list == expected)
                .unwrap_or(false)
        });
    };
    for round in 0..10 {
        let mut expected: Vec<u64> = (round..6_000).collect();
        python.run(&format!("m.list = list(range({round}, 6000))"));
        expect(&expected);
        for n in 0..3 {
            list(&other).push(n).unwrap();
            expected.push(n);
            expect(&expected);
        }
        // The key is gone, and is there again, between two looks at it.
        list(&other).delete().unwrap();
        list(&other).set(expected.clone()).unwrap();
        list(&other).push(round).unwrap();
        expected.push(round);
        expect(&expected);
    }
}

/// Somebody writes a value with the stamp and the length that are there already.
#[test]
fn what_is_edited_by_hand_is_seen_by_who_follows_it() {
    let server = Server::redis().start();
    let (follower, other) = (near(server.url()), quick(server.url()).build().unwrap());
    list(&other).set((0..LONG).collect()).unwrap();
    let has = |item: u64| list(&follower).with(|list| list.contains(&item)).unwrap();
    eventually(DEADLINE, "it is near", || has(19_999));
    for n in 0..20 {
        if n % 2 == 1 {
            // Also after changes that came as changes.
            list(&other).push(n).unwrap();
            eventually(DEADLINE, "it has the push", || {
                list(&follower)
                    .with(|list| list.last() == Some(&n))
                    .unwrap()
            });
        }
        let text = server.get_text("memory:list").unwrap();
        let edited = text.replace(&format!(",{},", 10_000 + n), &format!(",{},", 90_000 + n));
        assert!(edited != text && edited.len() == text.len());
        server.set_raw("memory:list", &edited);
        eventually(DEADLINE, "it has what was edited", || has(90_000 + n));
    }
}

#[test]
fn a_server_that_has_forgotten_a_script_or_has_another_value_is_read_all_the_same() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    list(&memory).set((0..LONG).collect()).unwrap();
    let other = quick(server.url()).build().unwrap();
    for round in 0..5 {
        assert_eq!(list(&memory).get().unwrap().len(), 20_000 + round);
        server.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(list(&memory).get().unwrap().len(), 20_000 + round);
        list(&other).push(1).unwrap();
    }
    server.cli(&["DEL", "memory:list"]);
    assert_eq!(memory.get(&Key::<Vec<u64>>::new("list")).unwrap(), None);
    list(&other).set((0..LONG).collect()).unwrap();
    assert_eq!(list(&memory).get().unwrap().len(), 20_000);
    server.cli(&["DEL", "memory:list"]);
    server.cli(&["RPUSH", "memory:list", "x"]);
    let error = list(&memory).get().unwrap_err();
    assert_eq!(error.kind(), synced_memory::ErrorKind::Rejected, "{error}");
    server.cli(&["DEL", "memory:list"]);
    list(&other).set(vec![1]).unwrap();
    assert_eq!(list(&memory).get().unwrap(), [1]);
}

#[test]
fn without_the_right_to_ask_for_changes_all_of_a_value_is_read() {
    let logs = Logs::capture();
    for right in ["-strlen", "-hget"] {
        let server = Server::redis()
            .user("plain", &format!("on >pw ~* +@all {right}"))
            .start();
        let prefix = format!("without{right}:");
        let open = |url: String, policy| {
            let builder = quick(url).prefix(&prefix).read_policy(policy);
            builder.build().unwrap()
        };
        let url = server.url_as("plain", "pw");
        let memory = open(url.clone(), ReadPolicy::Through);
        let follower = open(url, ReadPolicy::Near);
        let other = open(server.url(), ReadPolicy::Through);
        list(&other).set((0..LONG).collect()).unwrap();
        for n in 0..3 {
            list(&other).push(n).unwrap();
            let expected: Vec<u64> = (0..LONG).chain(0..=n).collect();
            assert_eq!(list(&memory).get().unwrap(), expected);
            eventually(DEADLINE, "it has the push", || {
                list(&follower).with(|list| *list == expected).unwrap()
            });
        }
        let events = logs.containing(&prefix);
        let warnings = events.iter();
        let warnings = warnings.filter(|event| event.message.contains("whole values"));
        // Each memory says it once.
        assert_eq!(warnings.count(), 2, "{events:?}");
    }
}

/// Many writers and readers of one value, each read compared with what the history allows.
#[test]
fn readers_and_followers_see_each_change_once_and_in_order() {
    const WRITERS: u64 = 4;
    let server = Server::redis().start();
    let other = quick(server.url()).build().unwrap();
    list(&other).set(vec![0; 3_000]).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| quick(server.url()).timeout(DEADLINE).build().unwrap())
        .collect();
    let readers = [near(server.url()), quick(server.url()).build().unwrap()];
    let is_whole = |seen: &[u64]| {
        // The items of each writer are there up to one, in order.
        (1..=WRITERS).all(|writer| {
            let own: Vec<_> = seen
                .iter()
                .filter(|item| **item / 1_000 == writer)
                .collect();
            own.iter()
                .copied()
                .copied()
                .eq((1_000 * writer..).take(own.len()))
        })
    };
    let written = AtomicU64::new(0);
    thread::scope(|scope| {
        for (number, memory) in (1..).zip(&writers) {
            let written = &written;
            scope.spawn(move || {
                for n in 0..ROUNDS {
                    list(memory).push(1_000 * number + n).unwrap();
                    if n % 10 == number {
                        let at = usize::try_from(n).unwrap();
                        list(memory).update(move |list| list[at] += 1).unwrap();
                    }
                }
                written.fetch_add(1, Ordering::Relaxed);
            });
        }
        for memory in &readers {
            let (written, is_whole) = (&written, &is_whole);
            scope.spawn(move || {
                let mut longest = 0;
                while written.load(Ordering::Relaxed) < WRITERS {
                    let seen = list(memory).get().unwrap();
                    assert!(is_whole(&seen) && seen.len() >= longest);
                    longest = seen.len();
                }
            });
        }
    });
    let stored = server.get_text("memory:list").unwrap();
    let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
    assert_eq!(stored["value"].as_array().unwrap().len(), 3_400);
    for memory in &readers {
        eventually(DEADLINE, "it has all", || {
            json!(list(memory).get().unwrap()) == stored["value"]
        });
    }
}

/// Each knows the map as it was before the insert of the other one.
#[test]
fn new_keys_of_a_long_map_are_inserted_at_once_whatever_others_insert() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        let proxy = Proxy::to(&server);
        let memories = [server.url(), proxy.url()].map(|url| quick(url).build().unwrap());
        let mut expected: BTreeMap<String, u64> =
            (0..2_000).map(|n| (format!("key {n}"), n)).collect();
        map(&memories[0]).set(expected.clone()).unwrap();
        for memory in &memories {
            assert_eq!(map(memory).get().unwrap(), expected);
        }
        let calls = || ["eval", "evalsha"].map(|name| server.command_count(name));
        let made = |before: [u64; 2]| {
            let now = calls();
            now[0] + now[1] - before[0] - before[1]
        };
        let before = calls();
        for n in 0..40 {
            // Also as many of one in a row as the log has, and in each spelling of JSON.
            for key in [
                format!("new {n}"),
                format!("é \" {n}"),
                format!("\u{1f600}{n}"),
            ] {
                let memory = &memories[usize::from(n % 3 == 0)];
                assert_eq!(map(memory).insert(key.clone(), n).unwrap(), None);
                expected.insert(key, n);
            }
        }
        // One for each; and a second one for a key whose spelling the server does not compare, or
        // if the log says too little.
        assert!(made(before) < 120 + 30, "{} calls", made(before));
        for memory in &memories {
            assert_eq!(map(memory).get().unwrap(), expected);
        }

        // Both insert the same key: the last one is what stays.
        for n in 0..10 {
            for memory in &memories {
                map(memory).insert(format!("both {n}"), n).unwrap();
                map(memory).at(&format!("both {n}")).add(1).unwrap();
            }
            expected.insert(format!("both {n}"), n + 1);
        }
        // The answer is lost, and the insert is made once.
        for n in 0..10 {
            map(&memories[0]).insert(format!("one {n}"), n).unwrap();
            proxy.lose_answer_to(commits);
            map(&memories[1]).insert(format!("other {n}"), n).unwrap();
            memories[1].flush(DEADLINE).unwrap();
            expected.insert(format!("one {n}"), n);
            expected.insert(format!("other {n}"), n);
        }
        for memory in &memories {
            memory.flush(DEADLINE).unwrap();
            assert_eq!(map(memory).get().unwrap(), expected);
        }
    }
}

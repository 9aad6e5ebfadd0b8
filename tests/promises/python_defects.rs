//! What the Python package gets wrong, by numbered items, and this library does not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::Direction::{ToClient, ToServer};
use support::{Child, Python, Server, Stop};
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory, Written};

use crate::line::{DEADLINE, Line, commits, quick, wait_connected, wait_disconnected};

#[derive(SyncedMemory, Debug)]
struct State {
    count: u64,
    #[synced(default = "dark".to_owned())]
    theme: String,
    note: Option<String>,
    items: Vec<i64>,
}

fn key(name: &str) -> Key<u64> {
    Key::named(name.to_owned())
}

/// The stamp of what is stored.
fn stamp(server: &Server, key: &str) -> Option<u64> {
    let stored: serde_json::Value = serde_json::from_str(&server.get_text(key)?).unwrap();
    Some(stored["last_modified"].as_u64().unwrap())
}

#[test]
fn item_1_one_connection_serves_every_operation() {
    let line = Line::new();
    let state = State::attach(&line.open());
    line.server.reset_stats();
    thread::scope(|scope| {
        for thread in 0..4 {
            let state = &state;
            scope.spawn(move || {
                let scoped = state.memory().scope(&format!("s{thread}"));
                for n in 0..50 {
                    state.set_count(n).unwrap();
                    state.count().unwrap();
                    scoped.set(&key("n"), n).unwrap();
                    assert_eq!(scoped.get(&key("n")).unwrap(), Some(n));
                    scoped.delete(&key("n")).unwrap();
                    State::attach(&scoped).snapshot().unwrap_err();
                    scoped.names().unwrap();
                }
            });
        }
    });
    assert_eq!(line.proxy.connections(), 1);
    assert_eq!(line.server.command_count("ping"), 0);
    assert_eq!(line.server.command_count("hello"), 0);
}

#[test]
fn item_2_a_held_list_loses_no_update() {
    let server = Server::redis().start();
    let state = State::open(&server.url()).unwrap();
    let other = State::open(&server.url()).unwrap();
    let held = state.items().clone();
    held.set(vec![1, 2, 3]).unwrap();
    // What the package loses: `h = m.items; m.items; h.append(4)`.
    state.items().to_vec().unwrap();
    held.push(4).unwrap();
    assert_eq!(other.items().to_vec().unwrap(), [1, 2, 3, 4]);
    // The same if the list changes meanwhile, in this process or in another one.
    other.items().insert(0, 0).unwrap();
    held.push(5).unwrap();
    state.set_items(vec![7]).unwrap();
    held.push(8).unwrap();
    other.items().delete().unwrap();
    held.push(9).unwrap();
    let mut python = Python::against(&server);
    python.run("from synced_memory import Memory; m = Memory(); m.items.append(10)");
    assert_eq!(held.to_vec().unwrap(), [9, 10]);
    held.push(11).unwrap();
    assert_eq!(
        python.run("m = Memory(); h = m.items; print(h[:])"),
        "[9, 10, 11]"
    );
    // The package does lose it, so this test covers the defect.
    assert_eq!(
        python.run("m.items; h.append(12); print(Memory().items[:])"),
        "[9, 10, 11]"
    );
}

#[test]
fn item_3_a_remote_delete_is_seen_by_a_process_that_has_read_the_key() {
    let server = Server::redis().start();
    let state = State::open(&server.url()).unwrap();
    let other = Memory::open(&server.url()).unwrap();
    let mut python = Python::against(&server);
    python.run("from synced_memory import Memory; m = Memory()");
    let view = state.synced_theme().clone();
    let deletes: [&mut dyn FnMut(); 3] = [
        &mut || assert!(other.delete(&Key::<String>::new("theme")).unwrap()),
        &mut || _ = python.run("m.theme; del m.theme"),
        &mut || _ = server.cli(&["DEL", "memory:theme"]),
    ];
    for delete in deletes {
        state.set_theme("light".to_owned()).unwrap();
        assert_eq!(
            (state.theme().unwrap(), view.get().unwrap()),
            ("light".to_owned(), "light".to_owned())
        );
        delete();
        assert_eq!(
            (state.theme().unwrap(), view.find().unwrap()),
            ("dark".to_owned(), None)
        );
        assert_eq!(view.last_modified().unwrap(), None);
    }
}

#[test]
fn item_4_two_writers_with_50_appends_each_leave_100_items() {
    let server = Server::redis().start();
    let state = State::open(&server.url()).unwrap();
    let mut writers: Vec<Child> = (0..2)
        .map(|n| {
            Child::spawn(
                env!("CARGO_BIN_EXE_contributor"),
                [server.url(), format!("w{n}")],
            )
        })
        .collect();
    for writer in &mut writers {
        assert_eq!(writer.recv(), "opened");
    }
    for writer in &mut writers {
        writer.send("go 50");
    }
    for writer in &mut writers {
        assert_eq!(writer.recv(), "did");
    }
    let items = state
        .memory()
        .get(&Key::<Vec<String>>::new("items"))
        .unwrap()
        .unwrap();
    assert_eq!(items.len(), 100);
    for writer in ["w0/", "w1/"] {
        let own = items
            .iter()
            .filter_map(|item| item.strip_prefix(writer)?.parse::<u32>().ok());
        assert!(own.eq(0..50), "{items:?}");
    }
}

#[test]
fn item_5_none_that_was_queued_offline_is_stored_as_null() {
    let line = Line::new();
    let state = State::attach(&line.open());
    state.set_note(Some("before".to_owned())).unwrap();
    line.down(state.memory());
    assert_eq!(state.set_note(None).unwrap(), Written::Queued);
    line.up();
    state.memory().flush(DEADLINE).unwrap();
    let stored = line.server.get_text("memory:note").expect("the key exists");
    assert!(stored.starts_with(r#"{"value": null,"#), "{stored}");
    assert_eq!(
        state.synced_note().find().unwrap(),
        Some(None),
        "it is set, and to None"
    );
    assert_eq!(
        Python::against(&line.server).run("from synced_memory import Memory; print(Memory().note)"),
        "None"
    );
}

#[test]
fn item_6_an_error_in_the_middle_of_a_flush_loses_nothing() {
    const KEYS: u64 = 2_000;
    let line = Line::new();
    let memory = line.open();
    let mut cut = 0;
    for direction in [ToServer, ToClient] {
        // About how many bytes such a flush sends in this direction: how much it sends at once
        // depends on the machine.
        let mut whole = None;
        for part in 0..=20 {
            line.down(&memory);
            for n in 0..KEYS {
                memory.set(&key(&format!("k{n}")), n * 100 + part).unwrap();
            }
            line.server.reset_stats();
            let (before, cuts) = (line.proxy.bytes(direction), line.proxy.cuts());
            if let Some(whole) = whole {
                line.proxy.cut_after_bytes(direction, whole * part / 21);
            }
            line.up();
            memory.flush(DEADLINE).unwrap();
            let (is_cut, bytes) = (
                line.proxy.cuts() > cuts,
                line.proxy.bytes(direction) - before,
            );
            cut += u32::from(is_cut);
            if !is_cut {
                whole = Some(whole.unwrap_or(bytes).min(bytes));
            }
            assert_eq!(
                line.server.command_count("set"),
                KEYS,
                "{direction:?}, {part} of 21: none lost, none doubled"
            );
            for n in 0..KEYS {
                let stored = line.server.get_text(&format!("memory:k{n}")).unwrap();
                assert!(
                    stored.starts_with(&format!(r#"{{"value": {},"#, n * 100 + part)),
                    "k{n}: {stored}"
                );
            }
        }
    }
    assert!(cut >= 20, "only {cut} of 40 flushes were cut");
}

#[test]
fn item_7_an_older_queued_write_does_not_resurrect_a_deleted_key() {
    let line = Line::new();
    let memory = line.open();
    let other = line.open_directly();
    let mut peer = Child::spawn_with(env!("CARGO_BIN_EXE_peer"), [""; 0], |peer| {
        peer.env("SYNCED_MEMORY_URL", line.server.url());
    });
    assert_eq!(peer.recv(), "opened");
    let deletes: [&mut dyn FnMut(); 2] = [
        &mut || assert!(other.delete(&key("n")).unwrap()),
        // A delete by another process, and a second one that finds nothing to delete: it counts all
        // the same.
        &mut || {
            assert_eq!(peer.ask("delete n"), "true");
            assert_eq!(peer.ask("delete n"), "false");
        },
    ];
    for (round, delete) in deletes.into_iter().enumerate() {
        wait_connected(&memory);
        assert_eq!(memory.set(&key("n"), 1).unwrap(), Written::Stored);
        line.down(&memory);
        assert_eq!(memory.set(&key("n"), 2).unwrap(), Written::Queued);
        delete();
        line.up();
        memory.flush(DEADLINE).unwrap();
        assert_eq!(line.server.get_raw("memory:n"), None);
        assert_eq!(
            (
                memory.get(&key("n")).unwrap(),
                memory.contains(&key("n")).unwrap()
            ),
            (None, false)
        );
        assert_eq!(memory.status().superseded, round as u64 + 1);
        // A newer write is no resurrection.
        assert_eq!(memory.set(&key("n"), 3).unwrap(), Written::Stored);
        assert_eq!(other.get(&key("n")).unwrap(), Some(3));
    }
    // The tombstone does not hinder the Python package.
    other.delete(&key("n")).unwrap();
    let mut python = Python::against(&line.server);
    python.run("from synced_memory import Memory; m = Memory(); m.n = 4");
    assert_eq!(memory.get(&key("n")).unwrap(), Some(4));
}

#[test]
fn item_8_an_online_write_respects_the_stamps() {
    let line = Line::new();
    let memory = line.open();
    let other = line.open_directly();
    // A write that is older, because it waited or its answer was lost, does not replace a newer
    // one.
    memory.set(&key("n"), 1).unwrap();
    line.down(&memory);
    memory.set(&key("n"), 2).unwrap();
    other.set(&key("n"), 3).unwrap();
    line.up();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(other.get(&key("n")).unwrap(), Some(3));

    wait_connected(&memory);
    memory.get(&key("n")).unwrap();
    line.proxy.refuse(true);
    line.proxy.lose_answer_to(commits);
    assert_eq!(memory.set(&key("n"), 4).unwrap(), Written::Queued);
    other.set(&key("n"), 5).unwrap();
    line.up();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(
        (
            other.get(&key("n")).unwrap(),
            memory.get(&key("n")).unwrap()
        ),
        (Some(5), Some(5))
    );

    // A write that is made online is the latest, and its stamp is above the stored one.
    let ahead = stamp(&line.server, "memory:n").unwrap() + 3_600_000_000_000;
    line.server.set_raw(
        "memory:n",
        format!(r#"{{"value": 6, "last_modified": {ahead}}}"#),
    );
    assert_eq!(memory.set(&key("n"), 7).unwrap(), Written::Stored);
    assert_eq!(other.get(&key("n")).unwrap(), Some(7));
    assert!(stamp(&line.server, "memory:n").unwrap() > ahead);
}

#[test]
fn item_9_a_scope_loads_nothing_of_other_scopes() {
    let server = Server::redis().start();
    let filler = Memory::open(&server.url()).unwrap();
    for scope in 0..50 {
        State::attach(&filler.scope(&format!("other{scope}")))
            .restore(State {
                count: 1,
                theme: "x".repeat(1_000),
                note: None,
                items: vec![],
            })
            .unwrap();
    }
    filler.close(DEADLINE).unwrap();
    server.reset_stats();
    let memory = Memory::open(&server.url()).unwrap();
    let before = transferred(&server);
    let mine = State::attach(&memory.scope("mine"));
    assert_eq!(mine.theme().unwrap(), "dark");
    assert_eq!(mine.count().unwrap_err().kind(), ErrorKind::Unset);
    mine.set_count(5).unwrap();
    assert_eq!(mine.count().unwrap(), 5);
    let after = transferred(&server);
    // Of a key that was never read it asks for the first part alone. The script asks once, too.
    let reads = (server.command_count("get"), server.command_count("exists"));
    assert_eq!(reads, (1, 3), "one read of its own key each time");
    for command in ["scan", "keys", "mget", "client|tracking"] {
        assert_eq!(server.command_count(command), 0, "{command}");
    }
    assert!(
        after - before < 30_000,
        "{} bytes for one scope",
        after - before
    );
}

/// How many bytes the server has sent, including the answers to the test's own INFO.
fn transferred(server: &Server) -> u64 {
    let stats = server.info("stats");
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.expect("it is counted").trim().parse().unwrap()
}

#[test]
fn item_10_the_queue_is_bounded() {
    let line = Line::new();
    let memory = line.builder().outbox_limit(100_000).build().unwrap();
    line.down(&memory);
    // The limit counts keys, not writes.
    for n in 0..10_000 {
        assert_eq!(memory.set(&key("n"), n).unwrap(), Written::Queued);
    }
    let mut accepted = 0;
    let refusal = loop {
        match memory.set(&key(&format!("k{accepted}")), accepted) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(
            accepted < 1_000,
            "100,000 bytes do not hold any number of writes"
        );
    };
    assert_eq!(refusal.kind(), ErrorKind::OutboxFull);
    line.up();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.get(&key("n")).unwrap(), Some(9_999));
    for n in 0..accepted {
        assert_eq!(memory.get(&key(&format!("k{n}"))).unwrap(), Some(n));
    }
}

#[test]
fn item_10_the_compare_and_set_is_atomic_among_writes_that_come_back_together() {
    const KEYS: u64 = 50;
    let line = Line::new();
    let memories: Vec<Memory> = (0..6).map(|_| line.open()).collect();
    for round in 0..5 {
        line.proxy.refuse(true);
        line.proxy.cut();
        memories.iter().for_each(wait_disconnected);
        let mut newest = vec![(0, 0); usize::try_from(KEYS).unwrap()];
        // The writers take a different order for each key.
        for n in 0..KEYS {
            for step in 0..memories.len() as u64 {
                let writer = (n + step * 5 + round) % memories.len() as u64;
                let view =
                    memories[usize::try_from(writer).unwrap()].synced(&key(&format!("k{n}")));
                view.set(writer * 1_000 + n).unwrap();
                let stamp = view.last_modified().unwrap().expect("it is queued");
                let newest = &mut newest[usize::try_from(n).unwrap()];
                *newest = (*newest).max((stamp, writer * 1_000 + n));
            }
        }
        line.up();
        for memory in &memories {
            memory.flush(DEADLINE).unwrap();
        }
        for (n, (newest, value)) in newest.into_iter().enumerate() {
            let stored = line.server.get_text(&format!("memory:k{n}")).unwrap();
            assert!(
                stored.starts_with(&format!(r#"{{"value": {value},"#)),
                "k{n}, round {round}: {stored}"
            );
            assert_eq!(stamp(&line.server, &format!("memory:k{n}")), Some(newest));
        }
        for n in 0..KEYS {
            let key = key(&format!("k{n}"));
            let shown: Vec<_> = memories
                .iter()
                .map(|memory| memory.get(&key).unwrap())
                .collect();
            assert!(
                shown.iter().all(|value| *value == shown[0]),
                "k{n}: {shown:?}"
            );
        }
    }
    let superseded: u64 = memories
        .iter()
        .map(|memory| memory.status().superseded)
        .sum();
    eprintln!("{superseded} of {} writes met a newer one", 6 * 5 * KEYS);
    assert!(superseded > 0, "the writers did meet");
}

#[test]
fn item_10_the_compare_and_set_is_atomic_among_online_writers() {
    let server = Server::redis().start();
    // With a long timeout none of them is queued, even on a busy machine.
    let open = || quick(server.url()).timeout(DEADLINE).build().unwrap();
    let memories: Vec<Memory> = (0..4).map(|_| open()).collect();
    let (done, seen) = (Stop::default(), AtomicU64::new(0));
    thread::scope(|scope| {
        let all_done = done.on_drop();
        let watching = scope.spawn(|| {
            while !done.is_set() {
                let now = stamp(&server, "memory:n").unwrap_or(0);
                let before = seen.fetch_max(now, Ordering::Relaxed);
                assert!(now >= before, "the stamp went from {before} to {now}");
            }
        });
        let writers: Vec<_> = memories
            .iter()
            .enumerate()
            .flat_map(|(number, memory)| [(number, memory), (number + 10, memory)])
            .map(|(number, memory)| {
                scope.spawn(move || {
                    let view = memory.synced(&key("n"));
                    let mut newest = (0, 0);
                    for n in 0..500 {
                        let value = number as u64 * 1_000 + n;
                        assert_eq!(
                            view.set(value).unwrap(),
                            Written::Stored,
                            "an online write is the latest"
                        );
                        newest = newest.max((view.last_modified().unwrap().unwrap(), value));
                    }
                    newest.0
                })
            })
            .collect();
        let newest = writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .max()
            .unwrap();
        drop(all_done);
        watching.join().unwrap();
        assert_eq!(
            stamp(&server, "memory:n"),
            Some(newest),
            "the largest stamp is there at the end"
        );
    });
}

#[test]
fn item_10_the_exit_is_bounded() {
    let server = Server::redis().start();
    let mut peer = Child::spawn_with(env!("CARGO_BIN_EXE_peer"), [""; 0], |peer| {
        peer.env(
            "SYNCED_MEMORY_URL",
            format!("{}?shutdown_timeout=700ms", server.url()),
        );
    });
    assert_eq!(peer.recv(), "opened");
    assert_eq!(peer.ask("set n 1"), "Stored");
    server.kill();
    assert_eq!(peer.ask("set n 2"), "Queued");
    let started = Instant::now();
    peer.hang_up();
    assert!(peer.wait(DEADLINE).success());
    let took = started.elapsed();
    eprintln!("the process ended after {took:?}");
    assert!(took >= Duration::from_millis(600), "it tried: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn item_10_redis_prefix_is_read() {
    let server = Server::redis().start();
    let mut peer = Child::spawn_with(env!("CARGO_BIN_EXE_peer"), [""; 0], |peer| {
        peer.env_remove("SYNCED_MEMORY_URL")
            .env("REDIS_HOST", "127.0.0.1");
        peer.env("REDIS_PORT", server.port().to_string())
            .env("REDIS_PREFIX", "app:");
    });
    assert_eq!(peer.recv(), "opened");
    assert_eq!(peer.ask("set n 1"), "Stored");
    assert!(
        server
            .get_text("app:n")
            .unwrap()
            .starts_with(r#"{"value": 1,"#)
    );
    assert_eq!(server.get_raw("memory:n"), None);
    assert_eq!(peer.ask("get n"), "Some(Number(1))");
}

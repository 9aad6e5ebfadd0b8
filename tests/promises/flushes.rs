//! Rules 2, 3, 4, 6 and 10: a flush survives cuts, and loses, doubles and erases nothing.

use std::thread;
use std::time::Duration;

use support::Direction::{self, ToClient, ToServer};
use support::{Server, Stop, eventually};
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory, Written};

use crate::clocks::time;
use crate::line::{
    DEADLINE, Line, commit_count, commits, quick, wait_connected, wait_disconnected,
};
use crate::sizes::{Size, with_both_sizes};

const HOUR: u64 = 3_600_000_000_000;

/// The number that is stored at `memory:<name>`.
fn stored(server: &Server, name: &str) -> Option<u64> {
    let text = server.get_text(&format!("memory:{name}"))?;
    let stored: serde_json::Value = serde_json::from_str(&text).unwrap();
    Some(stored.get("value").unwrap_or(&stored).as_u64().unwrap())
}

fn key(name: &'static str) -> Key<u64> {
    Key::new(name)
}

/// Delivers queued writes again and again over a connection that is cut one byte later each time,
/// from the first byte of its handshake to the last answer; the server counts its commands. In the
/// short form it is three bytes later, and with a push onto a large list among the writes a share
/// of all bytes.
fn cut_at_every_byte(direction: Direction, size: Size) {
    let line = Line::new();
    let memory = line.open_for(size);
    let list = memory.synced(&Key::<Vec<u64>>::new("list"));
    let mut expected: Vec<u64> = size.filler(20_000).map(u64::from).collect();
    let is_long_form = std::env::var_os("SYNCED_MEMORY_SOAK").is_some();
    let mut distance = if is_long_form { 1 } else { 3 };
    if size == Size::Large {
        list.set(expected.clone()).unwrap();
        line.down(&memory);
        assert_eq!(list.push(0).unwrap(), Written::Queued);
        expected.push(0);
        let before = line.proxy.bytes(direction);
        line.deliver(&memory);
        let whole = line.proxy.bytes(direction) - before;
        distance += whole / size.scaled(600, 10);
    }
    let mut round = 0;
    loop {
        line.down(&memory);
        if size == Size::Large {
            assert_eq!(list.push(round).unwrap(), Written::Queued);
            expected.push(round);
        }
        assert_eq!(memory.set(&key("a"), round).unwrap(), Written::Queued);
        assert_eq!(memory.set(&key("b"), 2 * round).unwrap(), Written::Queued);
        let deletes = round % 2 == 1;
        if deletes {
            assert!(memory.delete(&key("c")).unwrap());
        } else {
            assert_eq!(memory.set(&key("c"), round).unwrap(), Written::Queued);
        }
        line.server.reset_stats();
        let cuts = line.proxy.cuts();
        line.proxy.cut_after_bytes(direction, distance * round);
        line.up();
        memory
            .flush(DEADLINE)
            .unwrap_or_else(|error| panic!("cut after {round}: {error}"));
        line.proxy.do_not_cut();
        let now = ["a", "b", "c"].map(|name| stored(&line.server, name));
        assert_eq!(
            now,
            [Some(round), Some(2 * round), (!deletes).then_some(round)],
            "cut after {round}"
        );
        match size {
            Size::Small => {
                let done = ["set", "del"].map(|name| line.server.command_count(name));
                let once = if deletes { [2, 1] } else { [3, 0] };
                assert_eq!(
                    done, once,
                    "cut after {round}: each write was executed once"
                );
            }
            Size::Large => {
                let list = line.open_patiently().get(&Key::<Vec<u64>>::new("list"));
                assert_eq!(list.unwrap().unwrap(), expected, "cut after {round}");
            }
        }
        if line.proxy.cuts() == cuts {
            break;
        }
        round += 1;
    }
    eprintln!("{direction:?}: a flush has {round} times {distance} bytes");
    assert!(round > size.scaled(200, 8), "the connection was cut");
    let status = memory.status();
    assert_eq!(
        (status.pending, status.superseded, status.dead_letters),
        (0, 0, 0),
        "{status:?}"
    );
}

with_both_sizes!(
    a_flush_whose_requests_are_cut_at_any_byte_loses_nothing_and_doubles_nothing,
    a_flush_whose_answers_are_cut_at_any_byte_loses_nothing_and_doubles_nothing,
);

fn a_flush_whose_requests_are_cut_at_any_byte_loses_nothing_and_doubles_nothing(size: Size) {
    cut_at_every_byte(ToServer, size);
}

fn a_flush_whose_answers_are_cut_at_any_byte_loses_nothing_and_doubles_nothing(size: Size) {
    cut_at_every_byte(ToClient, size);
}

/// An action of another process between an attempt and its retry, the value that it leaves, and
/// whether it is newer than our write: then it wins even if our attempt has not arrived.
type Foreign = (&'static str, fn(&Line, &Memory), Option<u64>, bool);

const FOREIGN: [Foreign; 5] = [
    (
        "SET of a bare value",
        |line, _| line.server.set_raw("memory:n", "99"),
        Some(99),
        false,
    ),
    (
        "SET of an older stamp",
        |line, _| {
            line.server
                .set_raw("memory:n", r#"{"value": 98, "last_modified": 5}"#);
        },
        Some(98),
        false,
    ),
    (
        "DEL",
        |line, _| _ = line.server.cli(&["DEL", "memory:n"]),
        None,
        false,
    ),
    (
        "a newer write",
        |_, other| _ = other.set(&key("n"), 97).unwrap(),
        Some(97),
        true,
    ),
    (
        "a newer delete",
        |_, other| _ = other.delete(&key("n")).unwrap(),
        None,
        true,
    ),
];

/// Makes our own write or delete, whose attempt or answer is cut.
fn write(memory: &Memory, value: Option<u64>) {
    match value {
        Some(value) => _ = memory.set(&key("n"), value).unwrap(),
        None => _ = memory.delete(&key("n")).unwrap(),
    }
}

/// Waits until the server has handled the requests of closed connections.
fn wait_until_settled(line: &Line) {
    eventually(
        DEADLINE,
        "only the connections of the test are open",
        || {
            line.proxy.open() == 0
                && line
                    .server
                    .info("clients")
                    .contains("connected_clients:2\r\n")
        },
    );
}

fn a_foreign_write_between_the_cut_and_the_retry_stays(direction: Direction) {
    let line = Line::new();
    let memory = line.open();
    let other = line.open_directly();
    let (mut arrived, mut missed) = (0, 0);
    for mine in [Some(1), None] {
        for bytes in 0.. {
            let mut cut = false;
            for (what, foreign, leaves, is_newer) in FOREIGN {
                let what = format!("{mine:?}, cut after {bytes}, then {what}");
                wait_connected(&memory);
                memory.set(&key("n"), 50).unwrap();
                memory.flush(DEADLINE).unwrap();
                line.proxy.refuse(true);
                let cuts = line.proxy.cuts();
                line.proxy.cut_after_bytes(direction, bytes);
                write(&memory, mine);
                cut = memory.status().pending > 0;
                if !cut {
                    // The answer was complete before the cut.
                    break;
                }
                eventually(DEADLINE, "the proxy has cut the connection", || {
                    line.proxy.cuts() > cuts
                });
                wait_disconnected(&memory);
                wait_until_settled(&line);
                let now = stored(&line.server, "n");
                let had_arrived = now == mine;
                assert!(had_arrived || now == Some(50), "{what}: {now:?}");
                *if had_arrived {
                    &mut arrived
                } else {
                    &mut missed
                } += 1;
                foreign(&line, &other);
                line.up();
                memory.flush(DEADLINE).unwrap();
                let expected = if had_arrived || is_newer {
                    leaves
                } else {
                    mine
                };
                assert_eq!(
                    stored(&line.server, "n"),
                    expected,
                    "{what}; the attempt had arrived: {had_arrived}"
                );
                assert_eq!(
                    memory.get(&key("n")).unwrap(),
                    expected,
                    "{what}: the memory reads it too"
                );
            }
            // There was a cut after every byte of the shortest answer.
            assert!(cut || bytes >= ":1\r\n".len() as u64, "{mine:?}: {bytes}");
            line.proxy.do_not_cut();
            line.up();
            if !cut {
                break;
            }
        }
    }
    eprintln!("{direction:?}: {arrived} attempts had arrived, {missed} had not");
    assert!(
        arrived >= 10 && (direction == ToClient || missed > 2_000),
        "{arrived} {missed}"
    );
}

#[test]
fn a_retry_never_erases_what_another_process_stored_after_a_cut_at_any_byte_of_the_request() {
    a_foreign_write_between_the_cut_and_the_retry_stays(ToServer);
}

#[test]
fn a_retry_never_erases_what_another_process_stored_after_a_cut_at_any_byte_of_the_answer() {
    a_foreign_write_between_the_cut_and_the_retry_stays(ToClient);
}

#[test]
fn a_retry_whose_first_answer_was_lost_is_stored_and_erases_nothing() {
    let line = Line::new();
    let memory = line.open();
    let other = line.open_directly();
    for (what, foreign, leaves, _) in FOREIGN {
        wait_connected(&memory);
        memory.set(&key("n"), 50).unwrap();
        line.proxy.refuse(true);
        line.proxy.lose_answer_to(commits);
        assert_eq!(
            memory.set(&key("n"), 51).unwrap(),
            Written::Queued,
            "{what}"
        );
        assert_eq!(
            stored(&line.server, "n"),
            Some(51),
            "{what}: the attempt has arrived"
        );
        foreign(&line, &other);
        assert_eq!(
            memory.get(&key("n")).unwrap(),
            Some(51),
            "{what}: a process reads its own writes"
        );
        line.up();
        memory.flush(DEADLINE).unwrap();
        assert_eq!(stored(&line.server, "n"), leaves, "{what}");
        assert_eq!(memory.get(&key("n")).unwrap(), leaves, "{what}");
    }
}

/// Makes a write whose attempt is held back on a connection that is closed.
fn leave_late_attempt(line: &Line, memory: &Memory, mine: Option<u64>) {
    line.proxy.hold_requests();
    thread::scope(|scope| {
        let writing = scope.spawn(|| write(memory, mine));
        eventually(DEADLINE, "the attempt was sent", || line.proxy.held() > 0);
        line.proxy.cut();
        writing.join().expect("the write is queued");
    });
}

/// Lets the attempt arrive that [`leave_late_attempt`] held back.
fn let_it_arrive(line: &Line) {
    let calls = || line.server.command_count("evalsha") + line.server.command_count("eval");
    let before = calls();
    line.proxy.release();
    eventually(DEADLINE, "the late attempt arrives", || calls() > before);
}

#[test]
fn a_late_attempt_of_a_dead_connection_erases_nothing() {
    let line = Line::new();
    let memory = line.open();
    let other = line.open_directly();
    for mine in [Some(51), None] {
        for (what, foreign, leaves, _) in FOREIGN {
            wait_connected(&memory);
            memory.set(&key("n"), 50).unwrap();
            leave_late_attempt(&line, &memory, mine);
            memory.flush(DEADLINE).unwrap();
            assert_eq!(
                stored(&line.server, "n"),
                mine,
                "{what}: the retry has arrived first"
            );
            foreign(&line, &other);
            let_it_arrive(&line);
            assert_eq!(stored(&line.server, "n"), leaves, "{what}");
            assert_eq!(memory.get(&key("n")).unwrap(), leaves, "{what}");
        }
    }
}

#[test]
fn a_late_attempt_of_a_memory_that_was_closed_erases_nothing() {
    for mine in [Some(51), None] {
        let line = Line::new();
        let memory = line.open();
        memory.set(&key("n"), 50).unwrap();
        leave_late_attempt(&line, &memory, mine);
        memory.close(DEADLINE).unwrap();
        assert_eq!(stored(&line.server, "n"), mine);
        line.server.set_raw("memory:n", "99");
        let_it_arrive(&line);
        assert_eq!(stored(&line.server, "n"), Some(99));
    }
}

#[test]
fn a_late_attempt_of_a_write_that_was_superseded_erases_nothing() {
    for (what, foreign, leaves, _) in FOREIGN {
        let line = Line::new();
        let memory = line.open();
        let other = line.open_directly();
        memory.set(&key("n"), 50).unwrap();
        line.proxy.refuse(true);
        leave_late_attempt(&line, &memory, Some(51));
        other.set(&key("n"), 60).unwrap();
        line.up();
        memory.flush(DEADLINE).unwrap();
        assert_eq!(
            (stored(&line.server, "n"), memory.status().superseded),
            (Some(60), 1),
            "{what}"
        );
        foreign(&line, &other);
        let_it_arrive(&line);
        assert_eq!(stored(&line.server, "n"), leaves, "{what}");
    }
}

/// Two fields that one call writes in this order: once the marker is queued, the number is too.
#[derive(SyncedMemory, Clone, Copy)]
struct Pair {
    n: u64,
    marker: u64,
}

/// Writes 1, and 2 while the attempt of 1 is under way; calls `then` when both are pending.
fn write_behind_an_attempt(line: &Line, memory: &Memory, then: impl FnOnce()) -> [Written; 2] {
    let pair = Pair::attach(memory);
    thread::scope(|scope| {
        let first = scope.spawn(|| pair.set_n(1).unwrap());
        eventually(DEADLINE, "the attempt is under way", || {
            line.proxy.held() > 0 || stored(&line.server, "n") == Some(1)
        });
        let second = scope.spawn(|| pair.restore(Pair { n: 2, marker: 1 }).unwrap());
        eventually(DEADLINE, "the second write is pending too", || {
            memory.status().pending == 2
        });
        then();
        [first.join().unwrap(), second.join().unwrap()]
    })
}

#[test]
fn a_write_made_while_an_attempt_is_under_way_is_neither_lost_nor_doubled() {
    let line = Line::new();
    let memory = line.open();
    memory.set(&key("other"), 1).unwrap();
    line.server.reset_stats();
    line.proxy.delay(ToClient, Duration::from_millis(100));
    let written = write_behind_an_attempt(&line, &memory, || ());
    assert_eq!(written, [Written::Stored, Written::Stored]);
    assert_eq!(stored(&line.server, "n"), Some(2));
    assert_eq!(
        line.server.command_count("set"),
        3,
        "`n` twice, and the marker"
    );
}

#[test]
fn a_write_is_frozen_at_its_first_attempt_and_a_later_one_is_not_mistaken_for_it() {
    // Either its answer is lost, or the attempt never arrives.
    for arrives in [true, false] {
        let line = Line::new();
        let memory = line.open();
        memory.set(&key("other"), 1).unwrap();
        line.server.reset_stats();
        line.proxy.refuse(true);
        if arrives {
            line.proxy.swallow_answers(true);
        } else {
            line.proxy.hold_requests();
        }
        let written = write_behind_an_attempt(&line, &memory, || line.proxy.cut());
        line.proxy.swallow_answers(false);
        assert_eq!(written, [Written::Queued, Written::Queued]);
        wait_disconnected(&memory);
        assert_eq!(memory.set(&key("n"), 3).unwrap(), Written::Queued);
        assert_eq!(memory.get(&key("n")).unwrap(), Some(3));
        line.up();
        memory.flush(DEADLINE).unwrap();
        assert_eq!(stored(&line.server, "n"), Some(3));
        // 1, which was sent; 2 if it was sent before it was replaced by 3; 3; and the marker.
        let sets = line.server.command_count("set");
        assert!((3..=4).contains(&sets), "{sets}");
        assert_eq!(memory.status().superseded, 0);
    }
}

#[test]
fn a_write_stays_behind_an_earlier_one_that_was_stamped_anew() {
    let line = Line::new();
    let memory = line.open();
    memory.set(&key("other"), 1).unwrap();
    let ahead = memory
        .synced(&key("other"))
        .last_modified()
        .unwrap()
        .unwrap()
        + HOUR;
    line.server.set_raw(
        "memory:n",
        format!(r#"{{"value": 9, "last_modified": {ahead}}}"#),
    );
    // The refusal of 1 arrives late, when 2 waits behind it, and the answer to the next attempt of
    // 1 is lost.
    line.proxy.delay(ToClient, Duration::from_millis(100));
    line.proxy
        .lose_answer_to(|requests| commit_count(requests) == 3);
    let pair = Pair::attach(&memory);
    thread::scope(|scope| {
        let before = line.server.command_count("evalsha");
        scope.spawn(|| pair.set_n(1).unwrap());
        eventually(DEADLINE, "the attempt was refused", || {
            line.server.command_count("evalsha") > before
        });
        scope.spawn(|| pair.restore(Pair { n: 2, marker: 1 }).unwrap());
        eventually(DEADLINE, "the connection is lost", || {
            line.proxy.cuts() == 1
        });
    });
    line.proxy.delay(ToClient, Duration::ZERO);
    memory.flush(DEADLINE).unwrap();
    assert_eq!(stored(&line.server, "n"), Some(2));
    assert_eq!(memory.status().superseded, 0);
}

#[test]
fn a_server_that_forgets_its_scripts_costs_no_write_and_no_connection() {
    let line = Line::new();
    let memory = line.open();
    for n in 1..=20 {
        assert_eq!(memory.set(&key("n"), n).unwrap(), Written::Stored);
        line.server.cli(&["SCRIPT", "FLUSH"]);
    }
    line.down(&memory);
    for n in 0..5_000 {
        memory.set(&Key::<u64>::named(format!("k{n}")), n).unwrap();
    }
    line.server.reset_stats();
    let stop = Stop::default();
    thread::scope(|scope| {
        let _stop = stop.on_drop();
        scope.spawn(|| {
            while !stop.is_set() {
                line.server.cli(&["SCRIPT", "FLUSH"]);
            }
        });
        line.up();
        memory.flush(DEADLINE).unwrap();
    });
    assert_eq!(line.server.command_count("set"), 5_000);
    for n in 0..5_000 {
        let stored = line.server.get_text(&format!("memory:k{n}")).unwrap();
        assert!(
            stored.starts_with(&format!(r#"{{"value": {n},"#)),
            "k{n} holds {stored}"
        );
    }
    assert_eq!(
        line.proxy.connections(),
        2,
        "no connection was given up because of it"
    );
}

/// The transfer takes longer than the timeouts of heartbeats and calls, which wait behind it.
#[test]
fn a_large_value_is_delivered_over_a_slow_line_while_reads_go_on() {
    let line = Line::new();
    let memory = line.open();
    memory.set(&key("n"), 5).unwrap();
    line.proxy.pace(ToServer, Some(1_500_000));
    let (text, large) = ("x".repeat(4_000_000), Key::<String>::new("large"));
    assert_eq!(memory.set(&large, text.clone()).unwrap(), Written::Queued);
    eventually(DEADLINE, "the large value is delivered", || {
        assert_eq!(memory.get(&key("n")).unwrap(), Some(5));
        memory.set(&key("m"), 6).unwrap();
        memory.status().pending == 0
    });
    assert_eq!(
        line.proxy.connections(),
        1,
        "the transfer was not started again"
    );
    line.proxy.pace(ToServer, None);
    assert!(line.open_directly().get(&large).unwrap() == Some(text));
    assert_eq!(line.open_directly().get(&key("m")).unwrap(), Some(6));
}

#[test]
fn a_full_outbox_refuses_a_write_and_keeps_what_is_queued() {
    let line = Line::new();
    let memory = line.builder().outbox_limit(4_096).build().unwrap();
    let text = |name: &str| Key::<String>::named(name.to_owned());
    memory.set(&text("first"), "known".to_owned()).unwrap();
    line.down(&memory);
    let mut queued = 0;
    let refusal = loop {
        match memory.set(&text(&format!("k{queued}")), "x".repeat(100)) {
            Ok(written) => assert_eq!(written, Written::Queued),
            Err(error) => break error,
        }
        queued += 1;
    };
    eprintln!("4,096 bytes hold {queued} writes of 100 bytes");
    assert_eq!(refusal.kind(), ErrorKind::OutboxFull);
    assert!(
        refusal.to_string().contains(&format!("memory:k{queued}")),
        "{refusal}"
    );
    assert!(queued >= 5, "{queued}");
    assert_eq!(memory.status().pending, queued);

    // A refused write changes nothing, whether its key was stored, queued or unknown.
    let full = |answer: synced_memory::Result<Written>| {
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::OutboxFull);
    };
    full(memory.set(&text("first"), "y".repeat(500)));
    full(memory.set(&text("k0"), "y".repeat(1_000)));
    assert_eq!(
        memory.get(&text("first")).unwrap().as_deref(),
        Some("known")
    );
    assert_eq!(memory.get(&text("k0")).unwrap(), Some("x".repeat(100)));
    let refused = memory.get(&text(&format!("k{queued}")));
    assert_eq!(
        refused.unwrap_err().kind(),
        ErrorKind::Unavailable,
        "its value is unknown"
    );
    assert_eq!(memory.status().pending, queued);
    // A write that needs no more room than the one it replaces is accepted.
    assert_eq!(
        memory.set(&text("k1"), "z".repeat(100)).unwrap(),
        Written::Queued
    );

    line.up();
    memory.flush(DEADLINE).unwrap();
    for n in 0..queued {
        let letter = if n == 1 { "z" } else { "x" };
        assert_eq!(
            memory.get(&text(&format!("k{n}"))).unwrap(),
            Some(letter.repeat(100))
        );
    }
    assert_eq!(
        memory.set(&text("first"), "y".repeat(500)).unwrap(),
        Written::Stored
    );
    assert_eq!(
        line.server.get_raw(&format!("memory:k{queued}")),
        None,
        "what was refused is never applied"
    );
}

#[test]
fn a_queued_write_that_meets_a_newer_one_is_superseded_and_counted() {
    let line = Line::new();
    let memory = line.open();
    let other = line.open_directly();
    memory.set(&key("n"), 1).unwrap();
    line.down(&memory);
    memory.set(&key("n"), 2).unwrap();
    memory.set(&key("m"), 2).unwrap();
    other.set(&key("n"), 3).unwrap();
    assert_eq!(
        memory.get(&key("n")).unwrap(),
        Some(2),
        "a process reads its own writes"
    );
    line.up();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(
        (memory.get(&key("n")).unwrap(), stored(&line.server, "n")),
        (Some(3), Some(3))
    );
    assert_eq!(memory.get(&key("m")).unwrap(), Some(2));
    assert_eq!(memory.status().superseded, 1);
    // Online again, its writes are the newest.
    assert_eq!(memory.set(&key("n"), 4).unwrap(), Written::Stored);
    assert_eq!(other.get(&key("n")).unwrap(), Some(4));
}

#[test]
fn an_online_write_that_meets_a_stamp_an_hour_ahead_is_stored_above_it() {
    let line = Line::new();
    let memory = line.open();
    let view = memory.synced(&key("n"));
    view.set(1).unwrap();
    let ahead = view.last_modified().unwrap().unwrap() + HOUR;
    for n in 2..10 {
        let ahead = ahead + n * HOUR;
        line.server.set_raw(
            "memory:n",
            format!(r#"{{"value": 0, "last_modified": {ahead}}}"#),
        );
        assert_eq!(view.set(n).unwrap(), Written::Stored);
        assert_eq!(stored(&line.server, "n"), Some(n));
        let stamp = view.last_modified().unwrap().unwrap();
        assert!(
            (ahead + 1..ahead + 1_000).contains(&stamp),
            "just above: {ahead}, {stamp}"
        );
    }
    // A write that waited out an outage keeps its stamp, and is superseded by the one ahead.
    line.down(&memory);
    memory.set(&key("m"), 1).unwrap();
    line.server.set_raw(
        "memory:m",
        format!(r#"{{"value": 0, "last_modified": {ahead}}}"#),
    );
    line.up();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(
        (stored(&line.server, "m"), memory.status().superseded),
        (Some(0), 1)
    );
}

#[test]
fn the_later_of_two_writes_wins_even_if_one_line_is_slow_in_one_direction() {
    // Half of the round trip is a bad estimate of when the server read its clock: it is 100 ms off.
    // A busy machine makes every estimate a little worse.
    const APART: u64 = 50_000_000;
    let wait_apart = |server: &Server| {
        let before = time(server);
        eventually(DEADLINE, "the server's clock has moved on", || {
            time(server) > before + APART
        });
    };
    for direction in [ToServer, ToClient] {
        let line = Line::new();
        line.proxy.delay(direction, Duration::from_millis(200));
        let memory = line
            .builder()
            .timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        let other = line.open_directly();
        memory.set(&key("n"), 1).unwrap();
        line.down(&memory);
        memory.set(&key("n"), 2).unwrap();
        wait_apart(&line.server);
        other.set(&key("n"), 3).unwrap();
        other.set(&key("m"), 3).unwrap();
        wait_apart(&line.server);
        memory.set(&key("m"), 4).unwrap();
        line.up();
        memory.flush(DEADLINE).unwrap();
        assert_eq!(
            (stored(&line.server, "n"), stored(&line.server, "m")),
            (Some(3), Some(4)),
            "{direction:?}"
        );
    }
}

#[test]
fn a_write_waits_for_a_server_that_was_never_reachable() {
    let server = Server::redis().start();
    server.kill();
    let memory = quick(server.url()).build().unwrap();
    for n in 0..100 {
        assert_eq!(memory.set(&key("n"), n).unwrap(), Written::Queued);
        assert_eq!(memory.delete(&key("m")).unwrap(), n > 0);
        assert_eq!(memory.set(&key("m"), n).unwrap(), Written::Queued);
    }
    server.start();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(
        (stored(&server, "n"), stored(&server, "m")),
        (Some(99), Some(99))
    );
    assert_eq!(server.command_count("set"), 2);
}

//! Rule 16: one key's trouble is its own.

use std::time::{Duration, Instant};

use support::Direction::ToClient;
use support::{Server, eventually};
use synced_memory::{Key, Memory, Written};

use crate::line::{DEADLINE, Line, quick, wait_connected};

const MIB: usize = 1 << 20;

fn number(n: usize) -> Key<usize> {
    Key::named(format!("n{n}"))
}

fn large() -> Key<String> {
    Key::new("large")
}

/// A server that closes the connection on which more than 1 MiB arrives at once.
fn narrow(line: &Line, is_narrow: bool) {
    let limit = if is_narrow { "1mb" } else { "1gb" };
    let set = ["CONFIG", "SET", "client-query-buffer-limit", limit];
    line.server.cli(&set);
}

fn last_error(memory: &Memory) -> String {
    let error = memory.status().last_error;
    error.map(|error| error.to_string()).unwrap_or_default()
}

/// Checks that writes go out beside one that cannot, and that it goes out once it can.
fn others_go_out(line: &Line, memory: &Memory, behind: usize) {
    eventually(DEADLINE, "only the one that cannot go out is left", || {
        memory.status().pending == 1
    });
    for n in 0..behind {
        let stored = line.server.get_text(&format!("memory:n{n}"));
        assert!(stored.is_some(), "n{n} was delivered");
    }
    let before = line.proxy.connections();
    eventually(DEADLINE, "the key is named", || {
        last_error(memory).starts_with("`memory:large`")
    });
    eventually(
        DEADLINE,
        "it was tried again, and was the last to be blamed",
        || line.proxy.connections() > before && last_error(memory).starts_with("`memory:large`"),
    );
    // Between two tries nothing is in the way of others.
    wait_connected(memory);
    let (began, mut stored) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(2) {
        stored += usize::from(memory.set(&number(stored), stored).unwrap() == Written::Stored);
    }
    assert!(stored > 50, "{stored} writes were stored in two seconds");
    assert!(
        line.proxy.connections() < before + 8,
        "{} connections",
        line.proxy.connections()
    );

    narrow(line, false);
    memory.flush(DEADLINE).unwrap();
}

#[test]
fn a_write_that_breaks_each_connection_keeps_no_other_from_going_out() {
    let line = Line::new();
    let memory = line.open();
    narrow(&line, true);
    line.down(&memory);
    let (text, behind) = ("x".repeat(2 * MIB), 390);
    memory.set(&large(), text.clone()).unwrap();
    for n in 0..behind {
        memory.set(&number(n), n).unwrap();
    }
    line.up();
    others_go_out(&line, &memory, behind);
    assert!(line.open_directly().get(&large()).unwrap() == Some(text));
}

#[test]
fn a_push_onto_a_list_that_has_grown_too_large_for_the_line_goes_out() {
    let line = Line::new();
    let memory = line.open();
    let list = memory.synced(&Key::<Vec<String>>::new("large"));
    for part in ["a", "b", "c"] {
        list.push(part.repeat(MIB / 2)).unwrap();
    }
    memory.flush(DEADLINE).unwrap();
    narrow(&line, true);
    assert_eq!(list.push("d".to_owned()).unwrap(), Written::Stored);
    narrow(&line, false);
    let theirs = line
        .open_directly()
        .synced(&Key::<Vec<String>>::new("large"));
    assert_eq!(theirs.len().unwrap(), 4, "the push was made once");
}

/// Reads a value of 10 MB over a line of 10 MB/s while others are written and read.
fn reads_beside(line: &Line, memory: &Memory) {
    let text = "x".repeat(10_000_000);
    let theirs = quick(line.server.url()).timeout(DEADLINE).build().unwrap();
    theirs.set(&large(), text.clone()).unwrap();
    memory.set(&number(0), 0).unwrap();
    line.proxy.pace(ToClient, Some(10_000_000));

    let (mut stored, mut calls) = (0, 0);
    eventually(DEADLINE, "it has arrived", || {
        calls += 1;
        stored += u32::from(memory.set(&number(0), calls).unwrap() == Written::Stored);
        assert_eq!(memory.get(&number(0)).unwrap(), Some(calls));
        match memory.get(&large()) {
            Ok(found) => found.expect("it is not unset") == text,
            // Not known yet.
            Err(error) => error.kind() != synced_memory::ErrorKind::Unavailable,
        }
    });
    assert_eq!(stored as usize, calls, "of the writes beside it");
    assert_eq!(
        line.proxy.connections(),
        2,
        "one for others, one for large values"
    );
}

#[test]
fn a_near_value_that_takes_longer_than_timeout_arrives_and_holds_up_nobody() {
    let line = Line::new();
    let memory = line
        .builder()
        .read_policy(synced_memory::ReadPolicy::Near)
        .build()
        .unwrap();
    reads_beside(&line, &memory);
    assert!(
        line.proxy.bytes(ToClient) < 16_000_000,
        "it was asked for once: {} bytes",
        line.proxy.bytes(ToClient)
    );

    // What others make of it is notified as ever.
    line.proxy.pace(ToClient, None);
    let theirs = line.open_directly();
    theirs.set(&large(), "y".repeat(2 * MIB)).unwrap();
    eventually(DEADLINE, "the change is seen", || {
        memory
            .get(&large())
            .unwrap()
            .is_some_and(|text| text.starts_with('y'))
    });
    theirs.set(&large(), "z".to_owned()).unwrap();
    eventually(DEADLINE, "the change to a small one is seen", || {
        memory.get(&large()).unwrap() == Some("z".to_owned())
    });
    theirs.delete(&large()).unwrap();
    eventually(DEADLINE, "the delete is seen", || {
        memory.get(&large()).unwrap().is_none()
    });
}

#[test]
fn a_value_that_takes_longer_than_timeout_arrives_when_each_read_asks() {
    let line = Line::new();
    reads_beside(&line, &line.open());
}

#[test]
fn a_large_value_is_read_as_it_is_by_reads_of_every_kind() {
    let line = Line::new();
    let memory = line.builder().timeout(DEADLINE).build().unwrap();
    let theirs = quick(line.server.url()).timeout(DEADLINE).build().unwrap();
    let mine = memory.synced(&large());
    for (n, size) in [3 * MIB, 10, MIB, 2 * MIB, 0].into_iter().enumerate() {
        let text = n.to_string().repeat(size);
        theirs.set(&large(), text.clone()).unwrap();
        assert!(mine.get().unwrap() == text, "{size}");
        assert!(mine.confirmed().get().unwrap() == text, "confirmed, {size}");
        assert!(mine.get().unwrap() == text, "again, {size}");
    }
    theirs.delete(&large()).unwrap();
    assert_eq!(mine.find().unwrap(), None);
    // What is there and is no value is no unset value.
    line.server.cli(&["SET", "memory:large", ""]);
    assert!(mine.find().is_err());
}

/// Less than what is read apart, on a line on which it takes three times as long as a call waits.
#[test]
fn while_bytes_arrive_no_connection_is_given_up() {
    let line = Line::new();
    let theirs = line.open_directly();
    let text = "x".repeat(900_000);
    theirs.set(&large(), text.clone()).unwrap();
    let memory = line.open();
    line.proxy.pace(ToClient, Some(600_000));
    let error = memory.get(&large()).unwrap_err();
    assert_eq!(error.kind(), synced_memory::ErrorKind::Unavailable);
    // Behind the value: its caller does not wait for so long, and it is made all the same.
    let written = memory.set(&number(1), 1).unwrap();
    assert_eq!(written, Written::Queued);
    eventually(DEADLINE, "the write is answered for", || {
        memory.status().pending == 0
    });
    assert_eq!(line.proxy.connections(), 1);
    assert!(memory.status().connected);
    line.proxy.pace(ToClient, None);
    eventually(DEADLINE, "it is read", || {
        memory
            .get(&large())
            .is_ok_and(|found| found == Some(text.clone()))
    });
}

/// A server that sends nobody more than 1 MiB at once.
#[test]
fn a_value_that_cannot_be_read_is_named_and_others_are_read_and_written() {
    let line = Line::new();
    let theirs = line.open_directly();
    theirs.set(&large(), "x".repeat(8 * MIB)).unwrap();
    let limit = "normal 2mb 2mb 0";
    line.server
        .cli(&["CONFIG", "SET", "client-output-buffer-limit", limit]);
    let memory = line.open();
    for n in 0..200 {
        let error = memory.get(&large()).unwrap_err();
        assert_eq!(error.kind(), synced_memory::ErrorKind::Unavailable);
        assert_eq!(memory.set(&number(n), n).unwrap(), Written::Stored);
        assert_eq!(memory.get(&number(n)).unwrap(), Some(n));
        if n == 3 {
            break;
        }
    }
    assert!(
        last_error(&memory).starts_with("`memory:large`"),
        "{}",
        last_error(&memory)
    );
    assert!(line.proxy.connections() < 8, "{}", line.proxy.connections());
    line.server.cli(&[
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "normal 0 0 0",
    ]);
    eventually(DEADLINE, "it is read", || memory.get(&large()).is_ok());
}

#[test]
fn a_server_that_is_silent_is_noticed_though_it_has_just_sent_something() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    for round in 0..5 {
        memory.set(&number(round), round).unwrap();
        server.freeze();
        let began = Instant::now();
        assert_eq!(memory.set(&number(0), round).unwrap(), Written::Queued);
        eventually(DEADLINE, "the silence is noticed", || {
            !memory.status().connected
        });
        assert!(
            began.elapsed() < Duration::from_millis(1_500),
            "{:?}",
            began.elapsed()
        );
        server.thaw();
        memory.flush(DEADLINE).unwrap();
        wait_connected(&memory);
    }
}

//! Rule 6: what the server remembers of writers stays small, however many
//! come and go.

use std::collections::HashMap;
use std::time::Duration;

use support::{Child, Server, eventually};
use synced_memory::{ErrorKind, Key, Memory, Written};

use crate::line::{DEADLINE, Line, commits, wait_disconnected};

/// How many writers there are in all, and how many of them in one process.
fn writers() -> (usize, usize) {
    if std::env::var_os("SYNCED_MEMORY_SOAK").is_some() {
        (10_000, 200)
    } else {
        (600, 60)
    }
}

const SIDECAR: &str = "synced-memory/{memory:count}";

/// How many fields the sidecar has, and how many bytes it takes.
fn size(server: &Server) -> (usize, usize) {
    let fields = redis::from_redis_value(server.cli(&["HLEN", SIDECAR])).unwrap();
    let bytes: Option<usize> =
        redis::from_redis_value(server.cli(&["MEMORY", "USAGE", SIDECAR, "SAMPLES", "0"])).unwrap();
    (fields, bytes.unwrap_or(0))
}

fn assert_sidecar_stays_small(what: &str, most_fields: usize, go: impl Fn(&mut Child)) {
    let server = Server::redis().start();
    let (all, at_once) = writers();
    let (mut fields, mut bytes) = (0, 0);
    for _ in 0..all / at_once {
        let mut child = Child::spawn(env!("CARGO_BIN_EXE_contributor"), [&server.url(), "w"]);
        assert_eq!(child.recv(), "opened");
        child.send(format!("join {at_once}"));
        assert_eq!(
            child.recv_within(Duration::from_secs(60)).unwrap(),
            "joined"
        );
        let now = size(&server);
        (fields, bytes) = (fields.max(now.0), bytes.max(now.1));
        go(&mut child);
    }
    let (fields_left, bytes_left) = size(&server);
    println!(
        "{all} writers, {what}: at most {fields} fields, {bytes} bytes; then {fields_left} fields, {bytes_left} bytes"
    );
    assert!(fields <= most_fields, "{fields} fields");
    assert!(bytes < 64 << 10, "{bytes} bytes");
    // No write of any of them was lost or doubled.
    let memory = Memory::open(&server.url()).unwrap();
    assert_eq!(memory.get(&Key::<usize>::new("count")).unwrap(), Some(all));
    // The sidecar expires by itself.
    if fields_left > 0 {
        let left: i64 = redis::from_redis_value(server.cli(&["PTTL", SIDECAR])).unwrap();
        assert!(left > 0, "it has an expiry: {left}");
    }
}

#[test]
fn writers_that_close_leave_no_records() {
    let at_once = writers().1;
    // A record has two fields.
    assert_sidecar_stays_small("closed", 2 * at_once, |child| {
        child.send("leave");
        assert_eq!(child.recv_within(Duration::from_secs(60)).unwrap(), "left");
    });
}

#[test]
fn writers_that_are_killed_leave_few_records() {
    // A record for each writer up to a bound, of two fields, `horizon` and `waiting`.
    assert_sidecar_stays_small("killed", 2 * 256 + 2, Child::kill);
}

/// The server's time in seconds, and the microseconds of the second.
fn time(server: &Server) -> (u64, u64) {
    redis::from_redis_value(server.cli(&["TIME"])).unwrap()
}

#[test]
fn an_attempt_in_doubt_whose_record_may_be_gone_is_a_dead_letter_and_never_doubled() {
    let line = Line::new();
    let memory = line.open();
    let count = Key::<usize>::new("count");
    memory.add(&count, 1).unwrap();
    let mut child = Child::spawn(env!("CARGO_BIN_EXE_contributor"), [&line.server.url(), "w"]);
    assert_eq!(child.recv(), "opened");
    // Records hold the time in seconds. The attempt and the writes after it fall into one second,
    // and the retry into the beginning of the next one, less than a second later.
    eventually(DEADLINE, "a second has begun", || {
        (50_000..100_000).contains(&time(&line.server).1)
    });
    let (second, _) = time(&line.server);
    line.proxy.refuse(true);
    line.proxy.lose_answer_to(commits);
    assert_eq!(memory.add(&count, 1).unwrap(), Written::Queued);
    wait_disconnected(&memory);
    let records: HashMap<String, String> =
        redis::from_redis_value(line.server.cli(&["HGETALL", SIDECAR])).unwrap();
    let own = records
        .into_keys()
        .find(|field| !field.ends_with('@'))
        .expect("the one record");
    // Enough other writers write that the record of the attempt is dropped.
    assert_eq!(child.ask("join 300"), "joined");
    let exists: bool =
        redis::from_redis_value(line.server.cli(&["HEXISTS", SIDECAR, &own])).unwrap();
    assert!(!exists, "the record of the attempt is gone");
    eventually(DEADLINE, "the next second has begun", || {
        time(&line.server).0 > second
    });
    line.up();
    memory.flush(DEADLINE).unwrap();
    let letters = memory.dead_letters();
    assert_eq!(
        memory.get(&count).unwrap(),
        Some(302),
        "it was made once: {letters:?}"
    );
    assert_eq!(
        (letters.len(), letters[0].reason.kind()),
        (1, ErrorKind::Conflict)
    );
    assert!(letters[0].may_have_been_made(), "its answer was lost");
}

#[test]
fn the_expiry_of_a_sidecar_is_never_shortened() {
    let server = Server::redis().start();
    let (count, day) = (Key::<usize>::new("count"), Duration::from_secs(24 * 3600));
    let open = |ttl: Duration| {
        Memory::builder()
            .url(server.url())
            .tombstone_ttl(ttl)
            .build()
            .unwrap()
    };
    let (long, short) = (open(10 * day), open(day));
    let left = || -> u128 { redis::from_redis_value(server.cli(&["PTTL", SIDECAR])).unwrap() };
    let changes: [fn(&Memory, &Key<usize>); 3] = [
        |memory, key| _ = memory.set(key, 1).unwrap(),
        |memory, key| _ = memory.add(key, 1).unwrap(),
        |memory, key| _ = memory.delete(key).unwrap(),
    ];
    for change in changes {
        change(&short, &count);
        assert!(left() > (day / 2).as_millis());
        change(&long, &count);
        assert!(left() > (9 * day).as_millis(), "{}", left());
        change(&short, &count);
        assert!(left() > (9 * day).as_millis(), "{}", left());
    }
}

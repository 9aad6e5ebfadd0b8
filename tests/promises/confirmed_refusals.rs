//! A confirmed call that the server refuses, or that loses every race, was not made, and its error
//! says why.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use support::Direction::ToClient;
use support::{Proxy, Server, eventually, eventually_some};
use synced_memory::{ErrorKind, Key, Memory, Result, Synced, Written};

use crate::line::{DEADLINE, Line, quick, wait_connected, wait_disconnected};

fn list() -> Key<Vec<u64>> {
    Key::new("list")
}

type Call = fn(&Synced<Vec<u64>>) -> Result<()>;

/// Calls that change the list.
const CALLS: &[Call] = &[
    |list| list.push(9).map(drop),
    |list| list.insert(0, 9).map(drop),
    |list| list.set(vec![9]).map(drop),
    |list| list.update(|list| list.push(9)),
    |list| list.retain(|item| *item != 1).map(drop),
    |list| list.at(0).set(9).map(drop),
    |list| list.pop().map(drop),
];

/// The server refuses every write between `begin` and `end`. No call is queued, and after `end`
/// calls succeed again, although there are no other writes that would probe the server.
fn check_refused_until_end(
    server: &Server,
    code: &str,
    mut begin: impl FnMut(),
    mut end: impl FnMut(),
) {
    let memory = quick(server.url()).build().unwrap();
    let list = memory.synced(&list());
    for call in CALLS {
        list.set(vec![1, 2]).unwrap();
        begin();
        let error = call(&list.confirmed()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{code}: {error}");
        assert!(error.to_string().contains(code), "{error}");
        assert_eq!(
            (memory.status().pending, list.get().unwrap()),
            (0, vec![1, 2]),
            "{code}"
        );
        end();
        eventually_some(DEADLINE, "the server accepts writes again", || {
            call(&list.confirmed()).ok()
        });
        assert_ne!(list.confirmed().get().unwrap(), [1, 2], "it was made");
        assert_eq!(
            list.get()
                .unwrap()
                .iter()
                .filter(|item| **item == 9)
                .count()
                / 2,
            0,
            "it was made once"
        );
    }
    let status = memory.status();
    assert_eq!(
        (status.pending, status.dead_letters, status.superseded),
        (0, 0, 0),
        "{code}: {status:?}"
    );
}

#[test]
fn a_server_without_memory_refuses_confirmed_calls_until_it_has_room_again() {
    let server = Server::redis()
        .arg("maxmemory-policy", "noeviction")
        .start();
    let limit = |bytes: &str| drop(server.cli(&["CONFIG", "SET", "maxmemory", bytes]));
    check_refused_until_end(&server, "OOM", || limit("1"), || limit("0"));
}

#[test]
fn a_replica_refuses_confirmed_calls_until_it_is_a_master() {
    let (server, dead) = (Server::redis().start(), Server::redis().start());
    dead.stop();
    let port = dead.port().to_string();
    let follow = |host: &str, port: &str| drop(server.cli(&["REPLICAOF", host, port]));
    check_refused_until_end(
        &server,
        "READONLY",
        || follow("127.0.0.1", &port),
        || follow("NO", "ONE"),
    );
}

#[test]
fn a_confirmed_call_that_a_replica_refuses_makes_the_memory_reconnect() {
    let (server, dead) = (Server::redis().start(), Server::redis().start());
    dead.stop();
    let proxy = Proxy::to(&server);
    let list = quick(proxy.url()).build().unwrap().synced(&list());
    list.set(vec![1]).unwrap();
    let before = proxy.connections();
    server.cli(&["REPLICAOF", "127.0.0.1", &dead.port().to_string()]);
    assert_eq!(
        list.confirmed().push(2).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    eventually(DEADLINE, "it reconnects", || proxy.connections() > before);
}

#[test]
fn a_server_that_is_loading_refuses_confirmed_calls() {
    let server = Server::redis()
        .slow_loading(Duration::from_millis(10))
        .start();
    let memory = quick(server.url()).build().unwrap();
    let list = memory.synced(&list());
    list.set(vec![1, 2]).unwrap();
    for n in 0..200 {
        server.set_raw(&format!("filler{n}"), [b'x'; 2_000]);
    }
    server.stop();
    wait_disconnected(&memory);
    server.launch();
    wait_connected(&memory);
    for call in CALLS {
        assert_eq!(
            call(&list.confirmed()).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }
    assert_eq!(
        list.confirmed().get().unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert!(
        server.info("persistence").contains("loading:1"),
        "the server finished loading before the end of the test"
    );
    assert_eq!(
        (memory.status().pending, list.get().unwrap()),
        (0, vec![1, 2])
    );
    server.wait_ready();
    wait_connected(&memory);
    assert_eq!(list.confirmed().get().unwrap(), [1, 2], "no call was made");
    assert_eq!(list.confirmed().push(3).unwrap(), Written::Stored);
}

#[test]
fn a_server_without_memory_still_answers_confirmed_reads() {
    let server = Server::redis()
        .arg("maxmemory-policy", "noeviction")
        .start();
    let memory = quick(server.url()).build().unwrap();
    let list = memory.synced(&list());
    list.set(vec![1]).unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(list.push(2).unwrap(), Written::Queued);
    assert_eq!(list.get().unwrap(), [1, 2]);
    for _ in 0..100 {
        assert_eq!(
            list.confirmed().get().unwrap(),
            [1],
            "a queued write is not stored"
        );
    }
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    memory.flush(DEADLINE).unwrap();
    assert_eq!(list.confirmed().get().unwrap(), [1, 2]);
}

#[test]
fn a_confirmed_call_that_the_server_refuses_for_good_is_rejected_and_withdrawn() {
    let line = Line::new();
    let memory = line.open();
    let (mine, theirs) = (memory.synced(&list()), Key::<u64>::new("other"));
    mine.set(vec![1, 2]).unwrap();
    line.server
        .cli(&["ACL", "SETUSER", "default", "resetkeys", "%R~*", "~*other*"]);
    for call in CALLS {
        let error = call(&mine.confirmed()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert_eq!(
            (memory.status().pending, mine.get().unwrap()),
            (0, vec![1, 2])
        );
    }
    assert_eq!(
        memory.synced(&theirs).confirmed().set(1).unwrap(),
        Written::Stored
    );
    line.server.cli(&["ACL", "SETUSER", "default", "resetkeys"]);
    assert_eq!(
        mine.confirmed().get().unwrap_err().kind(),
        ErrorKind::Rejected
    );
    line.server.cli(&["ACL", "SETUSER", "default", "allkeys"]);
    assert_eq!(mine.confirmed().get().unwrap(), [1, 2]);
    assert_eq!(
        memory.status().dead_letters,
        0,
        "{:?}",
        memory.dead_letters()
    );
}

#[test]
fn a_refusal_that_arrives_after_its_caller_gave_up_is_no_dead_letter() {
    let line = Line::new();
    line.open_directly().set(&list(), vec![1, 2]).unwrap();
    for call in CALLS {
        line.proxy.delay(ToClient, Duration::ZERO);
        let memory = line
            .builder()
            .timeout(Duration::from_millis(500))
            .build()
            .unwrap();
        line.proxy.delay(ToClient, Duration::from_millis(300));
        line.server
            .cli(&["ACL", "SETUSER", "default", "resetkeys", "%R~*"]);
        // The call reads first, so that the answer to its write comes after its timeout.
        let error = call(&memory.synced(&list()).confirmed()).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::InDoubt | ErrorKind::Rejected),
            "{error}"
        );
        memory.flush(DEADLINE).unwrap();
        line.server.cli(&["ACL", "SETUSER", "default", "allkeys"]);
        assert_eq!(
            memory.status().dead_letters,
            0,
            "{:?}",
            memory.dead_letters()
        );
    }
    assert_eq!(line.open_directly().get(&list()).unwrap().unwrap(), [1, 2]);
}

/// Many threads write at once; every call that succeeded was made.
#[test]
fn under_contention_a_confirmed_call_succeeds_or_is_a_conflict() {
    let line = Line::new();
    let memories: Vec<Memory> = (0..4).map(|_| line.open()).collect();
    let number = Key::<u64>::new("number");
    let totals = thread::scope(|scope| {
        let calls = |(n, memory): (usize, &Memory)| {
            let (list, set) = (
                memory.synced(&list()),
                memory.synced(&Key::<HashSet<u64>>::new("set")),
            );
            let (list, set, number) = (
                list.confirmed(),
                set.confirmed(),
                memory.synced(&number).confirmed(),
            );
            let mut made = [0_u64; 3];
            for round in 0..60 {
                let value = n as u64 * 1_000 + round;
                let results = [
                    list.push(value).map(drop),
                    set.insert(value).map(drop),
                    number.update(|number| *number += 1),
                ];
                for (result, made) in results.into_iter().zip(&mut made) {
                    match result {
                        Ok(()) => *made += 1,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                    }
                }
            }
            made
        };
        memories[0].set(&number, 0).unwrap();
        let threads: Vec<_> = memories
            .iter()
            .enumerate()
            .flat_map(|one| [one, (one.0 + 10, one.1)])
            .map(|one| scope.spawn(move || calls(one)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .fold([0; 3], |sum: [u64; 3], made| {
                [0, 1, 2].map(|at| sum[at] + made[at])
            })
    });
    let other = line.open_directly();
    assert_eq!(other.get(&list()).unwrap().unwrap().len() as u64, totals[0]);
    assert_eq!(
        other
            .get(&Key::<HashSet<u64>>::new("set"))
            .unwrap()
            .unwrap()
            .len() as u64,
        totals[1]
    );
    assert_eq!(other.get(&number).unwrap(), Some(totals[2]));
    assert_eq!(
        line.proxy.connections(),
        4,
        "no connection was given up as silent"
    );
    eprintln!("of 480 calls each {totals:?} were made");
}

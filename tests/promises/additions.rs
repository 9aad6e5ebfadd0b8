//! Pushes and adds that are made to whatever is there: what they cost, and that each is made once.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Barrier;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use futures_executor::block_on;
use serde_json::Value;
use support::Direction::{ToClient, ToServer};
use support::{Python, Server, eventually};
use synced_memory::{ErrorKind, Key, Memory, ReadPolicy, Result, Synced, SyncedMemory, Written};

use crate::line::{
    DEADLINE, Line, commits, on_every_backend, quick, wait_connected, wait_disconnected,
};

/// So many items that their list is not sent for a push.
const LONG: u64 = 20_000;

const PUSHES: u64 = 100;

#[derive(SyncedMemory)]
struct Shared {
    #[synced(default)]
    count: i64,
    #[synced(default)]
    small: u8,
    list: Vec<u64>,
}

fn list(memory: &Memory) -> Synced<Vec<u64>> {
    memory.synced(&Key::new("list"))
}

fn count(memory: &Memory) -> Synced<i64> {
    memory.synced(&Key::new("count"))
}

/// Has others write first, so that what `memory` adds from now on is sent as an addition.
fn contend(memory: &Memory, other: &Memory) {
    count(memory).add(1).unwrap();
    count(other).add(1).unwrap();
    assert_eq!(count(memory).add(1).unwrap(), Written::Stored);
    assert!(!memory.status().contended.is_empty());
}

#[test]
fn a_push_onto_a_long_list_carries_what_it_adds_and_no_more() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        let proxy = support::Proxy::to(&server);
        let memory = quick(proxy.url()).build().unwrap();
        let list = list(&memory);
        list.set((0..LONG).collect()).unwrap();
        let item = 10_000_000_000;
        list.push(item).unwrap();
        let before = [ToServer, ToClient].map(|way| proxy.bytes(way));
        for n in 0..PUSHES {
            assert_eq!(list.push(item + n).unwrap(), Written::Stored);
        }
        let after = [ToServer, ToClient].map(|way| proxy.bytes(way));
        for (before, after) in before.into_iter().zip(after) {
            // A push is at most 400 bytes and twice its item.
            let each = (after - before) / PUSHES;
            assert!(each <= 400 + 2 * 11, "{each} bytes a push");
        }
        let other = quick(server.url()).build().unwrap();
        let expected: Vec<u64> = (0..LONG)
            .chain([item])
            .chain((0..PUSHES).map(|n| item + n))
            .collect();
        assert_eq!(list.get().unwrap(), expected);
        assert_eq!(
            other.get(&Key::<Vec<u64>>::new("list")).unwrap(),
            Some(expected)
        );
    }
}

#[test]
fn pushes_and_adds_of_many_writers_are_hardly_ever_refused() {
    const WRITERS: u64 = 16;
    const CHANGES: u64 = 50;
    let server = Server::redis().start();
    let open = |_| {
        let memory = quick(server.url()).timeout(DEADLINE).build().unwrap();
        Shared::attach(&memory)
    };
    let writers: Vec<_> = (0..WRITERS).map(open).collect();
    let barrier = Barrier::new(writers.len());
    server.reset_stats();
    thread::scope(|scope| {
        for (writer, state) in (0..).zip(&writers) {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                for n in 0..CHANGES {
                    assert_eq!(state.add_count(1).unwrap(), Written::Stored);
                    let pushed = state.list().push(writer * CHANGES + n).unwrap();
                    assert_eq!(pushed, Written::Stored);
                }
            });
        }
    });
    let attempts = server.command_count("eval") + server.command_count("evalsha");
    let changes = 2 * WRITERS * CHANGES;
    assert!(
        attempts < changes * 3 / 2,
        "{attempts} attempts for {changes} changes"
    );

    let state = Shared::open(&server.url()).unwrap();
    assert_eq!(u64::try_from(state.count().unwrap()), Ok(WRITERS * CHANGES));
    let list = state.list().get().unwrap();
    // Those of one writer are in its order.
    for writer in 0..WRITERS {
        let own = list.iter().filter(|item| **item / CHANGES == writer);
        assert!(own.copied().eq(writer * CHANGES..(writer + 1) * CHANGES));
    }
}

#[test]
fn an_addition_whose_answer_is_lost_is_made_once() {
    type Change = fn(&Memory) -> Result<Written>;
    let push: Change = |memory| list(memory).push(77);
    let add: Change = |memory| count(memory).add(1_000);
    for change in [push, add] {
        let line = Line::new();
        let (memory, other) = (line.open(), line.open_directly());
        list(&other).set((0..LONG).collect()).unwrap();
        contend(&memory, &other);
        let before = count(&other).get().unwrap();
        list(&memory).push(1).unwrap();
        // The server makes the change, but its answer never arrives.
        let cuts = line.proxy.cuts();
        line.proxy.lose_answer_to(commits);
        line.proxy.refuse(true);
        change(&memory).unwrap();
        wait_disconnected(&memory);
        eventually(DEADLINE, "the answer is lost", || line.proxy.cuts() > cuts);
        for _ in 0..3 {
            push(&other).unwrap();
            add(&other).unwrap();
        }
        line.deliver(&memory);
        let own = |is_it: bool| usize::from(is_it);
        let is_push = std::ptr::fn_addr_eq(change, push);
        let pushed = list(&other).get().unwrap();
        let pushed = pushed.iter().skip(usize::try_from(LONG).unwrap());
        let pushed = pushed.filter(|item| **item == 77).count();
        assert_eq!(pushed, 3 + own(is_push));
        let sum = 3_000 + if is_push { 0 } else { 1_000 };
        assert_eq!(count(&other).get().unwrap(), before + sum);
        for memory in [&memory, &other] {
            assert_eq!(
                (memory.status().pending, memory.status().dead_letters),
                (0, 0)
            );
        }
    }
}

/// A process does not know what others have pushed before it, and does not ask.
#[test]
fn a_process_sees_its_own_pushes_on_top_of_what_it_knows() {
    let line = Line::new();
    let other = line.open_directly();
    list(&other).set((0..LONG).collect()).unwrap();
    let memory = line
        .builder()
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    let near = self::list(&memory);
    eventually(DEADLINE, "it is near", || {
        near.get().unwrap().len() == 20_000
    });
    near.push(1).unwrap();
    let mut known: Vec<u64> = (0..LONG).chain([1]).collect();
    assert_eq!(near.get().unwrap(), known);
    // What the other pushes is not heard of before the line is back.
    line.proxy.stall(true);
    list(&other).push(2).unwrap();
    assert_eq!(near.get().unwrap(), known);
    line.proxy.stall(false);
    near.push(3).unwrap();
    let seen = near.get().unwrap();
    known.push(3);
    let expected: Vec<u64> = (0..LONG).chain([1, 2, 3]).collect();
    assert!(
        seen == known || seen == expected,
        "{:?}",
        seen.get(20_000..)
    );
    eventually(DEADLINE, "it has what others have pushed", || {
        near.get().unwrap() == expected
    });
    // A closure runs on what is there, whatever was on top.
    list(&other).push(4).unwrap();
    near.push(5).unwrap();
    near.update(|list| list.retain(|item| *item > 1)).unwrap();
    let expected: Vec<u64> = (2..LONG).chain([2, 3, 4, 5]).collect();
    assert_eq!(list(&other).get().unwrap(), expected);
}

/// So many items that their list is read apart from everything else.
const LARGE: u64 = 200_000;

/// A list of so many items and 1, as this memory knows it, and 2, which another one has pushed.
fn list_with_more(line: &Line, memory: &Memory, items: u64) -> Synced<Vec<u64>> {
    let list = list(memory);
    list.set((0..items).collect()).unwrap();
    list.push(1).unwrap();
    assert_eq!(list.get().unwrap().len() as u64, items + 1);
    self::list(&line.open_patiently()).push(2).unwrap();
    list
}

type Read<'a> = Pin<Box<dyn Future<Output = Result<Vec<u64>>> + Send + 'a>>;

/// A read that is sent, and goes on when it is polled again.
fn sent_read(list: &Synced<Vec<u64>>) -> Read<'_> {
    let mut read: Read = Box::pin(list.get_async());
    let polled = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    read
}

/// What was sent over the next connection may be in the answer, although it was sent later.
#[test]
fn a_read_that_is_answered_over_a_line_that_was_given_up_shows_no_push_twice() {
    let line = Line::new();
    let memory = line.open();
    let list = list_with_more(&line, &memory, LONG);
    let before = line.proxy.connections();
    line.proxy.hold_requests();
    let read = sent_read(&list);
    eventually(DEADLINE, "the silent line is given up", || {
        line.proxy.connections() > before
    });
    // It is made over the next one.
    list.push(3).unwrap();
    memory.flush(DEADLINE).unwrap();
    let passed = line.proxy.bytes(ToClient);
    line.proxy.release();
    eventually(DEADLINE, "the late answer has passed", || {
        line.proxy.bytes(ToClient) > passed
    });
    // The I/O thread has handled what came before the answer to this.
    list.push(4).unwrap();
    memory.flush(DEADLINE).unwrap();
    // Its time is over: if it is not made again, it shows what is known here.
    let shown = block_on(read).unwrap().split_off(20_000);
    assert!(shown == [1, 3, 4] || shown == [1, 2, 3, 4], "{shown:?}");
    eventually(DEADLINE, "all is read", || {
        list.get().unwrap().split_off(20_000) == [1, 2, 3, 4]
    });
}

/// A large value is read some time after it was asked for, in no order with what is sent meanwhile.
#[test]
fn a_push_during_the_read_of_a_large_list_is_seen_once() {
    let line = Line::new();
    let memory = line.builder().timeout(DEADLINE).build().unwrap();
    let list = list_with_more(&line, &memory, LARGE);
    // The read takes two requests, one after the other.
    line.proxy.delay(ToServer, Duration::from_millis(300));
    let read = sent_read(&list);
    thread::scope(|scope| {
        let read = scope.spawn(|| block_on(read));
        assert_eq!(list.push(3).unwrap(), Written::Stored);
        let seen = read.join().unwrap().unwrap();
        assert_eq!(seen.get(200_000..), Some(&[1, 2, 3][..]));
    });
    assert_eq!(list.get().unwrap().get(200_000..), Some(&[1, 2, 3][..]));
}

#[test]
fn what_others_store_between_two_pushes_is_pushed_onto() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    let list = list(&memory);
    list.set((0..LONG).collect()).unwrap();
    list.push(1).unwrap();
    list.push(2).unwrap();
    let mut python = Python::against(&server);
    python
        .run("from synced_memory import Memory; m = Memory(); m.list = list(range(5000)) + [1, 2]");
    let mut expected: Vec<u64> = (0..5_000).chain([1, 2]).collect();
    assert_eq!(list.get().unwrap(), expected);
    for n in 3..6 {
        assert_eq!(list.push(n).unwrap(), Written::Stored);
        expected.push(n);
        assert_eq!(list.get().unwrap(), expected);
    }
    // Somebody edits by hand, and keeps stamp and length.
    let text = server.get_text("memory:list").unwrap();
    let edited = text.replace(",4,5]", ",[4]]");
    assert_eq!(edited.len(), text.len());
    server.set_raw("memory:list", &edited);
    let pushed = list.push(6);
    let stored = server.get_text("memory:list").unwrap();
    let value: Value = serde_json::from_str(&stored).unwrap();
    // It is not a list of numbers any more, but nothing is damaged.
    let newest = value["value"].as_array().unwrap().last().unwrap();
    assert!(pushed.is_err() || *newest == 6, "{pushed:?} {newest}");
}

#[test]
fn an_addition_that_does_not_apply_is_reported_as_ever() {
    on_every_backend("additions", |memory, other| {
        list(memory).set((0..LONG).collect()).unwrap();
        list(memory).push(1).unwrap();
        let any = other.synced(&Key::<Value>::new("list"));
        any.set(serde_json::json!({"a": vec![0; 5_000]})).unwrap();
        let error = list(memory).push(2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(any.get().unwrap()["a"].as_array().unwrap().len(), 5_000);

        let (state, others) = (Shared::attach(memory), Shared::attach(other));
        state.set_small(250).unwrap();
        for _ in 0..2 {
            others.add_small(1).unwrap();
            state.add_small(1).unwrap();
        }
        let error = state.add_small(2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(state.small().unwrap(), 254);
        assert_eq!(state.add_small(1).unwrap(), Written::Stored);
    });
}

#[test]
fn a_push_goes_behind_the_assignment_before_it_and_onto_what_an_outage_has_left() {
    let line = Line::new();
    let (memory, other) = (line.open(), line.open_directly());
    let list = list(&memory);
    for _ in 0..20 {
        list.set((0..LONG).collect()).unwrap();
        list.push(1).unwrap();
        assert_eq!(list.get().unwrap().len(), 20_001);
    }
    line.down(&memory);
    assert_eq!(list.push(2).unwrap(), Written::Queued);
    assert_eq!(list.push(3).unwrap(), Written::Queued);
    self::list(&other).push(4).unwrap();
    line.deliver(&memory);
    let expected: Vec<u64> = (0..LONG).chain([1, 4, 2, 3]).collect();
    assert_eq!(list.get().unwrap(), expected);

    // Deleted meanwhile: the push is older than that.
    line.down(&memory);
    assert_eq!(list.push(5).unwrap(), Written::Queued);
    assert!(self::list(&other).delete().unwrap());
    line.up();
    wait_connected(&memory);
    eventually(DEADLINE, "it is a dead letter", || {
        memory.status().dead_letters == 1
    });
    assert!(!other.contains(&Key::<Vec<u64>>::new("list")).unwrap());
}

#[test]
fn without_the_right_to_change_a_part_of_a_value_all_of_it_is_sent() {
    let server = Server::redis()
        .user("plain", "on >pw ~* +@all -setrange")
        .start();
    let memory = Memory::open(&server.url_as("plain", "pw")).unwrap();
    let list = list(&memory);
    list.set((0..LONG).collect()).unwrap();
    for n in 0..3 {
        assert_eq!(list.push(n).unwrap(), Written::Stored);
    }
    let pushed: BTreeSet<u64> = list.get().unwrap().into_iter().skip(20_000).collect();
    assert_eq!(pushed, BTreeSet::from([0, 1, 2]));
    assert_eq!(
        (memory.status().pending, memory.status().dead_letters),
        (0, 0)
    );
}

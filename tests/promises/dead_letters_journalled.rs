//! With a journal, dead letters outlive the process, and a letter that ended stays ended.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::json;
use support::Direction::ToClient;
use support::eventually;
use synced_memory::{DeadLetter, Key, Memory, SyncedMemory, Written};
use tempfile::TempDir;

use crate::dead_letters_retried::{State, Two, ids};
use crate::line::{DEADLINE, Line};

/// The list of the state, written behind.
#[derive(SyncedMemory)]
#[synced(behind)]
struct Behind {
    list: Vec<i64>,
}

fn journalled() -> (TempDir, Two) {
    let directory = TempDir::new().unwrap();
    let two = Two::on(Line::new(), |line| {
        line.builder().journal(directory.path()).build().unwrap()
    });
    (directory, two)
}

fn reopen(two: &mut Two, directory: &TempDir) {
    let _ = two.memory.close(Duration::ZERO);
    // The journal is unlocked only after its last memory is dropped.
    two.memory = Memory::open("memory:").unwrap();
    two.mine = State::attach(&two.memory);
    two.line.up();
    two.memory = two
        .line
        .builder()
        .journal(directory.path())
        .build()
        .unwrap();
    two.mine = State::attach(&two.memory);
}

#[test]
fn dead_letters_in_a_journal_and_their_ends_outlive_the_process() {
    let (directory, mut two) = journalled();
    two.down();
    two.mine.list().push(2).unwrap();
    two.mine.add_number(1).unwrap();
    two.mine.set_brief("brief".to_owned()).unwrap();
    two.allow("%R~*");
    two.up();
    two.line
        .server
        .cli(&["ACL", "SETUSER", "default", "allkeys"]);
    let contents = |memory: &Memory| {
        let content = |letter: DeadLetter| {
            let write = (
                letter.changes(),
                letter.value(),
                letter.ttl,
                letter.last_modified,
            );
            (letter.id, (letter.key, write))
        };
        memory
            .dead_letters()
            .into_iter()
            .map(content)
            .collect::<BTreeMap<_, _>>()
    };
    let before = contents(&two.memory);
    assert_eq!(before.len(), 3);
    two.memory.close(DEADLINE).unwrap();
    for _ in 0..2 {
        reopen(&mut two, &directory);
        assert_eq!(contents(&two.memory), before);
    }
    let by_key = |memory: &Memory, key: &str| {
        memory
            .dead_letters()
            .into_iter()
            .find(|letter| letter.key == key)
            .unwrap()
    };
    by_key(&two.memory, "memory:list").forget().unwrap();
    assert_eq!(
        by_key(&two.memory, "memory:number").retry().unwrap(),
        Written::Stored
    );
    reopen(&mut two, &directory);
    assert_eq!(two.memory.dead_letters().len(), 1);
    let last = two.one_letter();
    assert_eq!(
        (last.key.as_str(), last.value()),
        ("memory:brief", Some(json!("brief")))
    );
    // The retry is still queued when the process ends, and the next process delivers it.
    two.down();
    assert_eq!(last.retry().unwrap(), Written::Queued);
    drop(last);
    reopen(&mut two, &directory);
    assert_eq!(ids(&two.memory), [0; 0]);
    two.memory.flush(DEADLINE).unwrap();
    assert_eq!(
        (two.theirs.number().unwrap(), two.theirs.brief().unwrap()),
        (101, "brief".to_owned())
    );
    assert_eq!(two.theirs.list().to_vec().unwrap(), [1]);
    two.memory.close(DEADLINE).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_retry_that_waits_behind_another_write_survives_a_crash() {
    let (directory, mut two) = journalled();
    let letter = two.letter_of_a_push(9);
    two.replace("list", vec![1]);
    let behind = Behind::attach(&two.memory);
    two.mine.list().get().unwrap();
    two.line.proxy.delay(ToClient, Duration::from_millis(300));
    assert_eq!(behind.list().push(2).unwrap(), Written::Queued);
    eventually(DEADLINE, "the first push is under way", || {
        two.theirs.list().len().unwrap() == 2
    });
    assert_eq!(behind.list().push(3).unwrap(), Written::Queued);
    thread::scope(|scope| {
        let retry = scope.spawn(|| letter.retry());
        eventually(DEADLINE, "the second push is made", || {
            two.theirs.list().len().unwrap() == 3
        });
        // The second push is answered, and the retry is held back.
        two.line.proxy.hold_requests();
        eventually(DEADLINE, "the retry is on its way", || {
            two.line.proxy.held() > 0
        });
        two.line.proxy.refuse(true);
        two.line.proxy.cut();
        assert_eq!(retry.join().unwrap().unwrap(), Written::Queued);
    });
    two.line.proxy.delay(ToClient, Duration::ZERO);
    drop((letter, behind));
    reopen(&mut two, &directory);
    two.memory.flush(DEADLINE).unwrap();
    assert_eq!(
        (two.theirs.list().to_vec().unwrap(), ids(&two.memory)),
        (vec![1, 2, 3, 9], vec![])
    );
}

#[test]
fn a_retry_that_is_queued_behind_another_write_is_made_once_after_a_crash() {
    let (directory, mut two) = journalled();
    let letter = two.letter_of_a_push(9);
    two.replace("list", vec![1]);
    assert_eq!(two.mine.list().to_vec().unwrap(), [1]);
    two.down();
    assert_eq!(two.mine.list().push(2).unwrap(), Written::Queued);
    assert_eq!(letter.retry().unwrap(), Written::Queued);
    drop(letter);
    reopen(&mut two, &directory);
    two.memory.flush(DEADLINE).unwrap();
    assert_eq!(
        (two.theirs.list().to_vec().unwrap(), ids(&two.memory)),
        (vec![1, 2, 9], vec![])
    );
}

#[test]
fn dead_letters_that_were_dropped_for_room_are_still_in_the_journal() {
    let directory = TempDir::new().unwrap();
    let open = |line: &Line| {
        line.builder()
            .outbox_limit(64_000)
            .journal(directory.path())
            .build()
            .unwrap()
    };
    let mut two = Two::on(Line::new(), open);
    two.down();
    for number in 0..30 {
        two.memory
            .set(
                &Key::<String>::named(format!("key{number}")),
                "x".repeat(1_000),
            )
            .unwrap();
    }
    two.allow("%R~*");
    two.up();
    assert!(two.memory.status().dropped_dead_letters > 0);
    two.memory.close(DEADLINE).unwrap();
    reopen(&mut two, &directory);
    assert_eq!(two.memory.dead_letters().len(), 30);
}

//! Rule 13: a write that may have been made is not handed out as one that was not.

use std::thread;
use std::time::Duration;

use support::{eventually, eventually_some};
use synced_memory::{DeadLetter, ErrorKind, Key, Memory, Written};
use tempfile::TempDir;

use crate::line::{DEADLINE, Line, commits, wait_disconnected};

fn list() -> Key<Vec<u64>> {
    Key::new("list")
}

/// Takes the right to write away from everybody.
fn refuse(line: &Line) {
    let refuse = ["ACL", "SETUSER", "default", "-eval", "-evalsha"];
    line.server.cli(&refuse);
}

/// The one dead letter: of a push that was made, and may have been.
fn letter_of_doubt(line: &Line, memory: &Memory) {
    let letters = || memory.dead_letters();
    eventually(DEADLINE, "the retry is refused", || letters().len() == 1);
    let letter: &DeadLetter = &letters()[0];
    assert_eq!(letter.reason.kind(), ErrorKind::Rejected, "{letter:?}");
    assert!(letter.may_have_been_made(), "{letter:?}");
    assert_eq!(letter.retry().unwrap_err().kind(), ErrorKind::InDoubt);
    line.server.cli(&["ACL", "SETUSER", "default", "+@all"]);
    let theirs = line.open_directly().synced(&list()).to_vec().unwrap();
    assert_eq!(theirs, [1, 2], "it was made");
}

#[test]
fn a_push_whose_answer_was_lost_and_whose_retry_is_refused_may_have_been_made() {
    let line = Line::new();
    let memory = line.open();
    memory.synced(&list()).push(1).unwrap();
    line.proxy.lose_answer_to(commits);
    line.proxy.refuse(true);
    let written = memory.synced(&list()).push(2).unwrap();
    assert_eq!(written, Written::Queued);
    wait_disconnected(&memory);
    refuse(&line);
    line.up();
    letter_of_doubt(&line, &memory);
}

#[test]
fn the_caller_that_waits_for_such_a_push_is_not_told_that_it_was_withdrawn() {
    let line = Line::new();
    let memory = line.builder().timeout(DEADLINE).build().unwrap();
    memory.synced(&list()).push(1).unwrap();
    line.proxy.swallow_answer_after(commits);
    let written = thread::scope(|scope| {
        let pushing = scope.spawn(|| memory.synced(&list()).push(2));
        eventually(DEADLINE, "the answer is lost", || {
            line.proxy.swallowed() > 0
        });
        refuse(&line);
        line.proxy.cut();
        pushing.join().unwrap()
    });
    assert_eq!(written.unwrap(), Written::Queued);
    letter_of_doubt(&line, &memory);
}

#[test]
fn a_push_in_doubt_that_another_process_adopts_and_that_is_refused_may_have_been_made() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let open = || {
        line.builder()
            .journal(directory.path())
            .shutdown_timeout(Duration::ZERO)
            .build()
            .unwrap()
    };
    let first = open();
    first.synced(&list()).push(1).unwrap();
    line.proxy.lose_answer_to(commits);
    line.proxy.refuse(true);
    let written = first.synced(&list()).push(2).unwrap();
    assert_eq!(written, Written::Queued);
    wait_disconnected(&first);
    drop(first);
    refuse(&line);
    // The journal is free once the I/O thread of the first has ended.
    let second = eventually_some(DEADLINE, "the journal is adopted", || {
        let memory = open();
        (memory.status().pending > 0).then_some(memory)
    });
    line.up();
    letter_of_doubt(&line, &second);
}

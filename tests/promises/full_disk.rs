//! Rules 2 and 11 on a disk that is full: a full disk may have room again, so that what is queued
//! stays queued, and whoever asks is told why; a confirmed call is not made.

use std::fs;
use std::time::Duration;

use support::{Tmpfs, eventually};
use synced_memory::{ErrorKind, Key, Memory, Written};

use crate::line::{DEADLINE, quick};

fn long(name: &str) -> Key<String> {
    Key::named(name.to_owned())
}

#[track_caller]
fn says_that_it_is_full(error: &synced_memory::Error, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains("full"), "{error}");
}

#[test]
fn everybody_is_told_of_a_full_disk_and_what_waits_is_stored_once_there_is_room() {
    let disk = Tmpfs::of(4_096);
    let url = format!("sqlite:{}", disk.path().join("state.db").display());
    // It tries again all the time, so that most of what follows happens while it does.
    let often = Duration::from_micros(1);
    let open = || {
        let builder = quick(&url).timeout(DEADLINE);
        builder.backoff(often, often).build().unwrap()
    };
    let memory: Memory = open();
    memory.set(&long("early"), "early".to_owned()).unwrap();
    let jobs = memory.synced(&Key::<Vec<u64>>::new("jobs"));
    jobs.set(vec![1, 2]).unwrap();
    let filler = disk.fill();
    let mut count = 0;
    eventually(DEADLINE, "there is no room", || {
        count += 1;
        let text = "x".repeat(50_000);
        memory.set(&long(&format!("more{count}")), text).unwrap() == Written::Queued
    });

    // Whenever that is asked.
    for _ in 0..200 {
        let error = memory.flush(Duration::from_millis(1)).unwrap_err();
        says_that_it_is_full(&error, ErrorKind::Timeout);
        let status = memory.status();
        assert!(status.connected && status.pending > 0, "{status:?}");
        says_that_it_is_full(&status.last_error.unwrap(), ErrorKind::Unavailable);
    }
    // What is there is read.
    assert_eq!(memory.get(&long("early")).unwrap().unwrap(), "early");
    assert_eq!(jobs.to_vec().unwrap(), [1, 2]);
    // A call whose answer is a fact is not made, and is not made later.
    let confirmed = memory.synced(&long("confirmed")).confirmed();
    let error = confirmed.set("x".repeat(50_000)).unwrap_err();
    says_that_it_is_full(&error, ErrorKind::Unavailable);

    fs::remove_file(&filler).unwrap();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.get(&long("confirmed")).unwrap(), None);
    assert_eq!(jobs.pop().unwrap(), Some(2));

    let filler = disk.fill();
    eventually(DEADLINE, "there is no room again", || {
        count += 1;
        let text = "x".repeat(50_000);
        memory.set(&long(&format!("more{count}")), text).unwrap() == Written::Queued
    });
    let error = memory.close(Duration::from_millis(10)).unwrap_err();
    says_that_it_is_full(&error, ErrorKind::Timeout);
    assert!(
        error.to_string().contains(&format!("more{count}")),
        "{error}"
    );
    drop((jobs, confirmed, memory));

    fs::remove_file(&filler).unwrap();
    let memory = open();
    for name in (1..count).map(|n| format!("more{n}")) {
        let text = memory.get(&long(&name)).unwrap().unwrap();
        assert_eq!(text.len(), 50_000, "{name}");
    }
}

/// The journal is on the full disk, and its memory loses the backend: what was awaited until then
/// is queued, and cannot be journalled.
#[test]
fn close_does_not_say_of_what_could_not_be_journalled_that_it_is_kept() {
    use crate::line::{Line, commits};

    let (line, disk) = (Line::new(), Tmpfs::of(256));
    let memory = line.builder().journal(disk.path()).build().unwrap();
    let list = memory.synced(&Key::<Vec<String>>::new("items"));
    list.push("a".to_owned()).unwrap();
    let filler = disk.fill();
    line.proxy.lose_answer_to(commits);
    line.proxy.refuse(true);
    // It may have been made, so that it cannot be withdrawn.
    assert_eq!(list.push("x".repeat(10_000)).unwrap(), Written::Queued);
    let error = memory.flush(Duration::ZERO).unwrap_err();
    assert!(!error.to_string().contains("kept"), "{error}");
    fs::remove_file(filler).unwrap();
    let error = memory.flush(Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("kept in the journal"), "{error}");
}

//! With a journal, an element that was taken in doubt goes back even if its process is gone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use support::Direction::ToServer;
use support::{Child, eventually};
use synced_memory::{ErrorKind, Key, Memory, Synced};
use tempfile::TempDir;

use crate::line::{DEADLINE, Line, commits};
use crate::sizes::{Size, with_both_sizes};

fn jobs() -> Key<Vec<u64>> {
    Key::new("jobs")
}

/// A process on the line that takes jobs, with its journal in `directory`.
fn taker(line: &Line, directory: &Path) -> Child {
    let url = format!(
        "{}?timeout=20s&journal={}",
        line.proxy.url(),
        directory.display()
    );
    let mut child = Child::spawn(env!("CARGO_BIN_EXE_taker"), [url]);
    assert_eq!(child.recv(), "opened");
    child
}

/// The next memory with that journal.
fn next(line: &Line, directory: &Path) -> Memory {
    line.builder().journal(directory).build().unwrap()
}

fn three_jobs(line: &Line) -> Synced<Vec<u64>> {
    let direct = line.open_directly().synced(&jobs());
    direct.set(vec![1, 2, 3]).unwrap();
    direct
}

fn assert_nothing_is_left(memory: &Memory, directory: &Path) {
    let status = memory.status();
    assert_eq!(
        (status.pending, status.dead_letters),
        (0, 0),
        "{:?}",
        memory.dead_letters()
    );
    memory.close(DEADLINE).unwrap();
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
}

#[test]
fn an_element_that_a_killed_process_took_and_did_not_receive_goes_back() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let direct = three_jobs(&line);
    let mut child = taker(&line, directory.path());
    line.proxy.swallow_answer_after(commits);
    child.send("take");
    eventually(DEADLINE, "it is taken", || direct.len().unwrap() == 2);
    child.kill();
    let memory = next(&line, directory.path());
    memory.flush(DEADLINE).unwrap();
    assert_eq!(direct.get().unwrap(), [1, 2, 3]);
    assert_eq!(memory.synced(&jobs()).remove(0).unwrap(), Some(1));
    assert_nothing_is_left(&memory, directory.path());
    assert_eq!(direct.get().unwrap(), [2, 3]);
}

#[test]
fn an_element_that_a_killed_process_received_does_not_go_back() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let direct = three_jobs(&line);
    let mut child = taker(&line, directory.path());
    assert_eq!(child.ask("take"), "Ok(Some(1))");
    child.kill();
    let memory = next(&line, directory.path());
    memory.flush(DEADLINE).unwrap();
    assert_eq!(direct.get().unwrap(), [2, 3]);
    assert_nothing_is_left(&memory, directory.path());
}

#[test]
fn a_take_under_way_when_its_process_is_killed_is_never_made_later() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let direct = three_jobs(&line);
    let mut child = taker(&line, directory.path());
    let after_read = line.proxy.bytes(ToServer);
    line.proxy.delay(ToServer, Duration::from_millis(100));
    child.send("take");
    eventually(DEADLINE, "the read has passed", || {
        line.proxy.bytes(ToServer) > after_read
    });
    line.proxy.hold_requests();
    eventually(DEADLINE, "the take is on its way", || line.proxy.held() > 0);
    child.kill();
    line.proxy.delay(ToServer, Duration::ZERO);
    let memory = next(&line, directory.path());
    memory.flush(DEADLINE).unwrap();
    assert_eq!(direct.get().unwrap(), [1, 2, 3]);
    line.proxy.release();
    eventually(DEADLINE, "the late request has arrived", || {
        line.proxy.open() == 1
    });
    assert_eq!(direct.confirmed().get().unwrap(), [1, 2, 3]);
    assert_nothing_is_left(&memory, directory.path());
}

with_both_sizes!(whenever_a_process_is_killed_each_job_is_with_one_process_or_in_the_list,);

fn whenever_a_process_is_killed_each_job_is_with_one_process_or_in_the_list(size: Size) {
    let jobs_given: u64 = match size {
        Size::Small => 300,
        Size::Large => 20_000,
    };
    let (line, directory) = (Line::durable(), TempDir::new().unwrap());
    let direct = line.open_patiently().synced(&jobs());
    direct.set((0..jobs_given).collect()).unwrap();
    let mut all = Vec::new();
    for round in 0..size.scaled(6, 2) {
        let mut child = taker(&line, directory.path());
        child.send("work");
        for _ in 0..(10 + round) {
            all.push(child.recv());
        }
        child.kill();
        all.extend(child.unread_lines());
    }
    let memory = next(&line, directory.path());
    memory.flush(DEADLINE).unwrap();
    assert_nothing_is_left(&memory, directory.path());
    let mut all: Vec<u64> = all
        .iter()
        .map(|line| line.strip_prefix("job ").unwrap().parse().unwrap())
        .collect();
    all.extend(direct.get().unwrap());
    all.sort_unstable();
    // A job that was handed out just before the end, and not printed any more, is with its process.
    let twice = all.windows(2).filter(|two| two[0] == two[1]).count();
    assert_eq!(twice, 0, "{all:?}");
    assert!(
        all.len() as u64 >= jobs_given - 6,
        "{} of {jobs_given}",
        all.len()
    );
}

#[test]
fn an_element_goes_back_once_even_if_one_process_after_the_other_ends_meanwhile() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let direct = three_jobs(&line);
    let memory = next(&line, directory.path());
    line.proxy.lose_answer_to(commits);
    line.proxy.refuse(true);
    assert_eq!(
        memory.synced(&jobs()).remove(0).unwrap_err().kind(),
        ErrorKind::InDoubt
    );
    assert_eq!(
        memory.close(Duration::ZERO).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    drop(memory);
    for round in 0..6 {
        // It asks for the attempt, or puts the element back, and the answer is lost.
        line.up();
        line.proxy.lose_answer_to(commits);
        let cuts = line.proxy.cuts();
        let memory = next(&line, directory.path());
        eventually(DEADLINE, "an answer is lost", || {
            line.proxy.cuts() > cuts || memory.status().pending == 0
        });
        line.proxy.refuse(true);
        line.proxy.cut();
        let _ = memory.close(Duration::ZERO);
        let there = direct.get().unwrap();
        assert!(
            there == [2, 3] || there == [1, 2, 3],
            "round {round}: {there:?}"
        );
    }
    line.up();
    let memory = next(&line, directory.path());
    memory.flush(DEADLINE).unwrap();
    assert_eq!(direct.get().unwrap(), [1, 2, 3]);
    assert_nothing_is_left(&memory, directory.path());
}

#[test]
fn an_element_with_no_place_to_go_back_to_is_a_dead_letter_of_the_next_process() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let direct = three_jobs(&line);
    let map = Key::<BTreeMap<String, u64>>::new("map");
    let of_map = line.open_directly().synced(&map);
    of_map.insert("a".to_owned(), 1).unwrap();
    let memory = next(&line, directory.path());
    line.proxy.lose_answer_to(commits);
    line.proxy.refuse(true);
    assert_eq!(
        memory.synced(&jobs()).splice(..2, []).unwrap_err().kind(),
        ErrorKind::InDoubt
    );
    line.up();
    memory.flush(DEADLINE).unwrap();
    line.proxy.lose_answer_to(commits);
    line.proxy.refuse(true);
    assert_eq!(
        memory.synced(&map).pop().unwrap_err().kind(),
        ErrorKind::InDoubt
    );
    assert_eq!(
        memory.close(Duration::ZERO).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    drop(memory);
    of_map.insert("a".to_owned(), 2).unwrap();
    line.up();
    let memory = next(&line, directory.path());
    memory.flush(DEADLINE).unwrap();
    let taken: Vec<_> = memory
        .dead_letters()
        .iter()
        .map(|letter| letter.taken().unwrap())
        .collect();
    assert_eq!(taken, [json!([1, 2]), json!({"a": 1})]);
    assert_eq!(
        (direct.get().unwrap(), of_map.at("a").get().unwrap()),
        (vec![3], 2)
    );
    for letter in memory.dead_letters() {
        letter.forget().unwrap();
    }
    assert_nothing_is_left(&memory, directory.path());
}

#[test]
fn of_confirmed_calls_only_takes_are_journalled() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let direct = three_jobs(&line);
    let memory = next(&line, directory.path());
    let jobs = memory.synced(&jobs());
    jobs.get().unwrap();
    line.proxy.lose_answer_to(commits);
    line.proxy.refuse(true);
    assert_eq!(
        jobs.confirmed().push(987_654).unwrap_err().kind(),
        ErrorKind::InDoubt
    );
    jobs.push(4).unwrap();
    let journal: Vec<u8> = fs::read_dir(directory.path())
        .unwrap()
        .flat_map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(
        !String::from_utf8_lossy(&journal).contains("987654"),
        "the push is not in the journal"
    );
    assert_eq!(
        memory.close(Duration::ZERO).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    drop((memory, jobs));
    line.up();
    let memory = next(&line, directory.path());
    memory.flush(DEADLINE).unwrap();
    assert_eq!(direct.get().unwrap(), [1, 2, 3, 987_654, 4]);
    assert_nothing_is_left(&memory, directory.path());
}

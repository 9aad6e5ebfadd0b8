//! What a process that forks may rely on (rule 17). Each test runs `src/main.rs`, which forks.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use support::{Child, Server};

const LIMIT: Duration = Duration::from_secs(120);

fn forking(arguments: &[&str]) -> Child {
    Child::spawn(env!("CARGO_BIN_EXE_synced-memory-fork-tests"), arguments)
}

/// Runs a scenario to its end, while no other one takes the processors from it.
fn run(arguments: &[&str]) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    ends_well(forking(arguments));
}

fn ends_well(mut child: Child) {
    let status = child.wait(LIMIT);
    let said = child.unread_lines();
    assert!(status.success(), "{status}: {said:?}");
    assert_eq!(said.last().map(String::as_str), Some("done"));
}

fn sqlite(dir: &Path, name: &str) -> String {
    format!("sqlite:{}", dir.join(name).display())
}

#[test]
fn children_that_open_a_memory_of_their_own_lose_no_write_to_each_other() {
    let server = Server::redis().start();
    run(&["own", &server.url()]);
    run(&["own-beside-the-parents", &server.url()]);
    let dir = tempfile::tempdir().expect("a directory");
    run(&["own", &sqlite(dir.path(), "own.db")]);
}

#[test]
fn a_memory_from_before_a_fork_answers_and_refuses_in_the_child_and_the_parent_goes_on() {
    let server = Server::redis().start();
    run(&["inherited", &server.url()]);
    run(&["inherited", "memory:"]);
    let dir = tempfile::tempdir().expect("a directory");
    run(&["inherited", &sqlite(dir.path(), "inherited.db")]);
}

#[test]
fn a_child_does_not_touch_the_journal_of_its_parent() {
    let server = Server::redis().start();
    let dir = tempfile::tempdir().expect("a directory");
    let journal = dir.path().join("journal").display().to_string();
    run(&["inherited-with-journal", &server.url(), &journal]);

    server.stop();
    let mut parent = forking(&["journal", &server.url(), &journal]);
    assert_eq!(parent.recv(), "queued");
    server.start();
    ends_well(parent);
}

#[test]
fn a_child_is_refused_the_sqlite_file_that_its_parent_had_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let [file, other] = ["file.db", "other.db"].map(|name| sqlite(dir.path(), name));
    run(&["file", &file, &other]);
}

#[test]
fn the_deadline_of_a_task_comes_in_a_child_as_well() {
    run(&["deadline", "redis://127.0.0.1:1"]);
}

#[test]
fn a_child_opens_a_memory_with_a_password_whatever_its_parent_does_with_passwords() {
    run(&["passwords", "redis://:s3cr3t@127.0.0.1:1"]);
}

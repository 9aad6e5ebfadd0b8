//! A process that can start no thread for the events of an I/O thread emits them later: a slow
//! subscriber delays nobody then, either (rule 18).

use support::{Child, Server, eventually};
use tempfile::TempDir;

use crate::line::DEADLINE;
use crate::starts::limited_in_threads;

const LOST: &str = "connection lost, breaker opened";

/// A process that is connected, cannot start threads any more, and then loses its server.
fn cut_off(directory: &TempDir, server: &Server) -> Child {
    let url = format!("redis://127.0.0.1:{}", server.port());
    let mut process = limited_in_threads(directory, &url);
    assert_eq!(process.ask("open"), "open");
    eventually(DEADLINE, "the events until then are emitted", || {
        process.ask("events").contains("connected, breaker closed")
    });
    assert_eq!(process.ask("limit"), "limited");
    server.kill();
    eventually(DEADLINE, "the server is gone", || {
        process.ask("error").contains("onnection refused")
    });
    process
}

#[test]
fn what_happens_while_no_thread_can_be_started_is_logged_once_one_can() {
    let (server, directory) = (Server::redis().start(), TempDir::new().unwrap());
    let mut process = cut_off(&directory, &server);
    let before = process.ask("events");
    assert!(!before.contains(LOST), "{before}");

    assert_eq!(process.ask("free"), "free");
    server.start();
    let mut events = String::new();
    eventually(DEADLINE, "it is logged", || {
        events = process.ask("events");
        events.contains(LOST) && events.ends_with("synced-memory-log: connected, breaker closed")
    });
    let lost = format!("synced-memory-log: {LOST}");
    assert_eq!(events.matches(&lost).count(), 1, "{events}");
    assert!(!events.contains("synced-memory: "), "{events}");
}

#[test]
fn what_happened_while_no_thread_could_be_started_is_logged_when_the_memory_is_dropped() {
    let (server, directory) = (Server::redis().start(), TempDir::new().unwrap());
    let mut process = cut_off(&directory, &server);
    assert_eq!(process.ask("drop"), "dropped");
    eventually(DEADLINE, "it is logged", || {
        process.ask("events").contains(LOST)
    });
}

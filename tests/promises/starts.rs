//! A process that has no descriptors or threads left is told so when it opens a memory, and loses
//! nothing when it reconnects.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use support::{Child, Server, eventually};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

/// A process that is bound by its limit of threads: root is not.
pub(crate) fn limited_in_threads(directory: &TempDir, url: &str) -> Child {
    let program = directory.path().join("limited");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_limited"), &program).unwrap();
    let program = program.to_str().unwrap().to_owned();
    if rustix::process::geteuid().is_root() {
        let nobody = ["--reuid=65534", "--clear-groups", "--", &*program];
        Child::spawn("setpriv", nobody.into_iter().chain(["threads", url]))
    } else {
        Child::spawn(program, ["threads", url])
    }
}

/// Opens in vain, and once more when there is room again.
fn opens_when_there_is_room(mut process: Child, url: &str) {
    assert_eq!(process.ask("limit"), "limited");
    let error = process.ask("open");
    let is_told = error.starts_with("Unavailable: the I/O thread could not start");
    assert!(is_told && error.contains("os error"), "{url}: {error}");
    assert_eq!(process.ask("free"), "free");
    assert_eq!(process.ask("open"), "open", "{url}");
    assert_eq!(process.ask("set"), "Ok(Stored)", "{url}");
}

#[test]
fn to_open_without_descriptors_is_an_error_that_says_so_and_it_opens_when_there_are_some() {
    let (server, directory) = (Server::redis().start(), TempDir::new().unwrap());
    let file = format!("sqlite:{}", directory.path().join("state.db").display());
    for url in [server.url(), file, "memory:".to_owned()] {
        let process = Child::spawn(env!("CARGO_BIN_EXE_limited"), ["descriptors", &url]);
        opens_when_there_is_room(process, &url);
    }
}

#[test]
fn to_open_without_threads_is_an_error_that_says_so_and_it_opens_when_there_are_some() {
    let (server, directory) = (Server::redis().start(), TempDir::new().unwrap());
    for url in [server.url(), "memory:".to_owned()] {
        opens_when_there_is_room(limited_in_threads(&directory, &url), &url);
    }
}

/// The name of the server is resolved on a thread.
#[test]
fn a_reconnect_without_threads_is_tried_again_and_what_is_queued_is_delivered() {
    let (server, directory) = (Server::redis().start(), TempDir::new().unwrap());
    let url = format!("redis://localhost:{}", server.port());
    let mut process = limited_in_threads(&directory, &url);
    assert_eq!(process.ask("open"), "open");
    assert_eq!(process.ask("set"), "Ok(Stored)");
    assert_eq!(process.ask("limit"), "limited");
    server.kill();
    server.start();
    eventually(DEADLINE, "the name cannot be resolved", || {
        process.ask("error").contains("temporarily unavailable")
    });
    assert_eq!(process.ask("set"), "Ok(Queued)");
    assert_eq!(process.ask("free"), "free");
    assert_eq!(process.ask("flush"), "Ok(())");
    assert!(server.get_text("memory:n").is_some());
}

//! No password leaves this process in a text, and one that is missing is asked for in plain words.

use std::error::Error;
use std::fmt::Write;

use support::{Logs, Server, eventually};
use synced_memory::{ErrorKind, Key, Memory};

use crate::line::{DEADLINE, quick};

/// As servers show it, whole or cut short.
const SECRET: &str = "s3cr3t-of-this-test-\"with\"-quotes-and-as-long-as-makes-a-server-cut-it-short-\
                      0123456789-0123456789-0123456789-0123456789-0123456789-0123456789";

/// An error with all its causes, in every form in which it may be printed.
fn everything(error: &synced_memory::Error) -> String {
    let mut said = format!("{error} {error:?} {error:#?}");
    let mut cause = error.source();
    while let Some(next) = cause {
        write!(said, " {next} {next:?}").unwrap();
        cause = next.source();
    }
    said
}

/// A server without HELLO repeats the command, and with it the password.
#[test]
fn a_server_that_repeats_the_login_in_its_error_shows_the_password_to_nobody() {
    let logs = Logs::capture();
    for (builder, secret) in [
        (Server::redis(), "s3cr3t-7"),
        (Server::redis(), SECRET),
        (Server::redis_6(), "s3cr3t-7"),
        (Server::valkey(), SECRET),
    ] {
        let server = builder
            .password(secret)
            .arg("rename-command", "HELLO \"\"")
            .start();
        let opened = Memory::builder()
            .url(server.url())
            .timeout(DEADLINE)
            .build();
        let said = everything(&opened.unwrap_err());
        // Valkey asks for the password before it looks at the command.
        let is_login = said.contains("HELLO") || said.contains("NOAUTH");
        assert!(is_login, "{said}");
        assert!(!said.contains("s3cr3t"), "{said}");
        assert_eq!(logs.containing("s3cr3t").len(), 0);
        assert!(!logs.containing(&server.port().to_string()).is_empty());
    }
}

/// The same where the server was not there at first, so that nobody waits for the error.
#[test]
fn the_status_shows_no_password_that_a_server_repeats() {
    let server = Server::redis()
        .password(SECRET)
        .arg("rename-command", "HELLO \"\"")
        .start();
    server.kill();
    let memory = quick(server.url()).build().unwrap();
    memory.set(&Key::<u64>::new("n"), 1).unwrap();
    server.start();
    eventually(DEADLINE, "the login is refused", || {
        let error = memory.status().last_error.unwrap();
        everything(&error).contains("HELLO")
    });
    let said = format!("{:?} {:?}", memory.status(), memory);
    let undelivered = memory
        .close(std::time::Duration::from_millis(10))
        .unwrap_err();
    let said = said + &everything(&undelivered);
    assert!(!said.contains("s3cr3t"), "{said}");
}

#[test]
fn a_server_that_asks_for_a_password_says_where_to_write_it() {
    let server = Server::redis().password("right").unix_socket().start();
    let port = server.port();
    let socket = server.socket().display().to_string();
    for (url, expected) in [
        (
            format!("redis://127.0.0.1:{port}"),
            format!("write redis://:password@127.0.0.1:{port}/0"),
        ),
        (
            format!("redis+unix://{socket}"),
            format!("write redis+unix://{socket}?password=…"),
        ),
    ] {
        let opened = Memory::builder().url(&url).timeout(DEADLINE).build();
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        let said = error.to_string();
        assert!(
            said.contains(&expected) && said.contains("NOAUTH"),
            "{said}"
        );
    }
}

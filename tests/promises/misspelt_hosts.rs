//! A host that nobody answers at is noticed: rule 11.

use std::process::Command;
use std::time::{Duration, Instant};

use support::{Event, Logs, Proxy, Server, eventually_some};
use synced_memory::{ConnectPolicy, ErrorKind, Key, Memory};

use crate::line::{DEADLINE, Line};

const NOWHERE: &str = "redis://127.0.0.1:1";

fn stderr_of(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_careless"))
        .args(arguments)
        .output()
        .expect("it runs");
    assert!(output.status.success());
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn a_program_without_a_subscriber_that_loses_writes_at_its_end_says_so_in_one_line() {
    let said = stderr_of(&[NOWHERE]);
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in [
        "1 write was not delivered",
        "`memory:n`",
        NOWHERE,
        "Connection refused",
    ] {
        assert!(said.contains(part), "no {part}: {said}");
    }
    assert_eq!(stderr_of(&[NOWHERE, "subscriber"]), "");
    let server = Server::redis().start();
    assert_eq!(stderr_of(&[&server.url()]), "");
}

#[test]
fn opening_fails_within_the_timeout_if_the_backend_is_required_and_nobody_answers() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let open = |url: &str| {
        Memory::builder()
            .url(url)
            .connect(ConnectPolicy::Required)
            .timeout(Duration::from_millis(300))
            .build()
    };
    open(&proxy.url()).expect("it answers");
    open("memory:").expect("it is always there");

    server.freeze();
    for url in [NOWHERE, "redis://no-such-host.invalid", &proxy.url()] {
        let began = Instant::now();
        let error = open(url).expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{url}: {error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{url}");
    }
    server.thaw();

    let url = format!("{NOWHERE}?connect=required&timeout=100ms");
    assert_eq!(
        Memory::open(&url).expect_err("nobody answers").kind(),
        ErrorKind::Unavailable
    );
    let optional = Memory::open(NOWHERE).expect("it is optional by default");
    optional.set(&Key::new("n"), 1).expect("queued");
}

#[test]
fn a_reconnect_says_what_became_of_the_writes_that_waited() {
    let line = Line::new();
    let (memory, other) = (line.open(), line.open_directly());
    let [newest, pushed, closed] = ["newest", "pushed", "closed"].map(Key::<Vec<u64>>::new);
    for key in [&newest, &pushed, &closed] {
        memory.set(key, vec![1]).expect("stored");
    }
    let logs = Logs::capture();
    line.down(&memory);
    memory.set(&newest, vec![2]).expect("queued");
    memory.synced(&pushed).push(2).expect("queued");
    memory
        .synced(&closed)
        .update(|list| list[0] = 2)
        .expect("recorded");
    other.set(&newest, vec![3]).expect("stored");
    other.set(&closed, vec![3]).expect("stored");
    line.deliver(&memory);

    let of_memory =
        |event: &Event| event.field("target") == Some(&format!("{}/0", line.proxy.url()));
    let report = eventually_some(DEADLINE, "it is reported", || {
        let reports = logs.containing("the writes that waited are answered for");
        reports.into_iter().find(of_memory)
    });
    for (name, count) in [
        ("waited", "3"),
        ("delivered", "1"),
        ("superseded", "1"),
        ("expired", "0"),
        ("dead_letters", "1"),
    ] {
        assert_eq!(report.field(name), Some(count), "{name}: {report:?}");
    }
}

//! Opening by way of sentinels: what is needed, and what each mistake says.

use std::time::Duration;

use support::{Authority, Server, Watched, eventually};
use synced_memory::{
    Builder, ConnectPolicy, Credentials, Error, ErrorKind, Key, Memory, ReadPolicy, Written,
};
use tempfile::TempDir;

use crate::line::{DEADLINE, quick};

fn number() -> Key<u64> {
    Key::new("n")
}

/// A sentinel alone, of one server.
fn sentinel_of(server: &Server) -> Server {
    sentinel_with(server, |sentinel| sentinel)
}

fn sentinel_with(
    server: &Server,
    adjust: impl FnOnce(support::Builder) -> support::Builder,
) -> Server {
    let monitor = format!("monitor mymaster 127.0.0.1 {} 1", server.port());
    adjust(Server::redis().sentinel().arg("sentinel", &monitor)).start()
}

fn url(sentinel: &Server) -> String {
    format!("redis-sentinel://127.0.0.1:{}/mymaster", sentinel.port())
}

fn open(builder: Builder) -> Result<Memory, Error> {
    builder.timeout(DEADLINE).build()
}

fn assert_stores(builder: Builder) {
    let memory = open(builder.connect(ConnectPolicy::Required)).unwrap();
    assert_eq!(memory.set(&number(), 7).unwrap(), Written::Stored);
    assert_eq!(memory.get(&number()).unwrap(), Some(7));
}

/// Checks that opening is `Rejected`, with all of these words.
fn assert_rejected(builder: Builder, words: &[&str]) {
    let error = open(builder).expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    let said = error.to_string();
    for word in words {
        assert!(said.contains(word), "no {word}: {said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
}

fn wait_for_error(memory: &Memory, words: &[&str]) {
    eventually(DEADLINE, "the status says what is wrong", || {
        let error = memory.status().last_error;
        error.is_some_and(|error| words.iter().all(|word| error.to_string().contains(word)))
    });
}

#[test]
fn sentinels_and_servers_have_passwords_of_their_own() {
    let server = Server::redis().password("s3cret-server").start();
    let sentinel = sentinel_with(&server, |sentinel| {
        sentinel
            .arg("sentinel", "auth-pass mymaster s3cret-server")
            .password("s3cret-sentinel")
            .user("watcher", "on >s3cret-watcher ~* &* +@all")
    });
    let with_password = url(&sentinel).replacen("://", "://:s3cret-server@", 1);
    let builder = || quick(with_password.clone());
    assert_stores(builder().sentinel_password("s3cret-sentinel"));
    assert_stores(
        builder()
            .sentinel_user("watcher")
            .sentinel_password("s3cret-watcher"),
    );
    let query = "?sentinel_user=watcher&sentinel_password=s3cret-watcher";
    assert_stores(quick(format!("{with_password}{query}")));
    // What is issued is for the servers.
    let issued = quick(url(&sentinel)).sentinel_password("s3cret-sentinel");
    assert_stores(issued.credentials(|| Ok(Credentials::new("", "s3cret-server"))));

    assert_rejected(builder(), &["sentinel", "NOAUTH", "`sentinel_password`"]);
    let wrong = builder().sentinel_password("s3cret-wrong");
    assert_rejected(wrong, &["WRONGPASS", &sentinel.port().to_string()]);
    let no_password = quick(url(&sentinel)).sentinel_password("s3cret-sentinel");
    assert_rejected(
        no_password,
        &[
            "NOAUTH",
            &format!(
                "write redis-sentinel://:password@127.0.0.1:{}",
                sentinel.port()
            ),
        ],
    );
    let wrong = quick(with_password.replace("s3cret-server", "s3cret-no"));
    assert_rejected(
        wrong.sentinel_password("s3cret-sentinel"),
        &[
            "WRONGPASS",
            &format!("the primary 127.0.0.1:{}", server.port()),
        ],
    );
    let shown = format!("{:?}", builder().sentinel_password("s3cret-sentinel"));
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn a_service_that_no_sentinel_knows_is_refused_and_one_that_is_not_known_any_more_is_an_outage() {
    let server = Server::redis().start();
    let sentinel = sentinel_of(&server);
    let wrong = url(&sentinel).replace("mymaster", "hismaster");
    assert_rejected(quick(wrong), &["hismaster", "no such service"]);

    let memory = quick(url(&sentinel)).build().unwrap();
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Stored);
    sentinel.cli(&["SENTINEL", "REMOVE", "mymaster"]);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    wait_for_error(&memory, &["no such service"]);
    assert_eq!(
        memory.status().last_error.unwrap().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(memory.set(&number(), 2).unwrap(), Written::Queued);
    let port = server.port().to_string();
    sentinel.cli(&["SENTINEL", "MONITOR", "mymaster", "127.0.0.1", &port, "1"]);
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.get(&number()).unwrap(), Some(2));
}

#[test]
fn sentinels_that_are_away_are_no_error_of_open() {
    let server = Server::redis().start();
    let sentinel = sentinel_of(&server);
    let port = sentinel.port();
    let with_one = format!("redis-sentinel://127.0.0.1:1,127.0.0.1:{port},[::1]:2/mymaster/3");
    assert_stores(quick(&with_one));
    assert_eq!(
        server
            .info("keyspace")
            .lines()
            .nth(1)
            .map(|line| &line[..4]),
        Some("db3:")
    );

    sentinel.stop();
    let memory = quick(with_one).build().unwrap();
    wait_for_error(
        &memory,
        &[
            "no sentinel says where the primary is",
            "127.0.0.1:1",
            "[::1]:2",
        ],
    );
    assert_eq!(memory.set(&number(), 8).unwrap(), Written::Queued);
    sentinel.start();
    memory.flush(DEADLINE).unwrap();

    // One that hangs costs no more than the others need.
    let hanging = sentinel_of(&server);
    hanging.freeze();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{port}", hanging.port());
    let began = std::time::Instant::now();
    assert_stores(quick(format!("redis-sentinel://{hosts}/mymaster")));
    assert!(began.elapsed() < DEADLINE / 4, "{:?}", began.elapsed());
    hanging.thaw();
}

/// A sentinel that has not heard of a failover.
#[test]
fn a_replica_that_a_sentinel_names_is_not_used() {
    let primary = Server::redis().start();
    let port = primary.port().to_string();
    let replica = Server::redis();
    let replica = replica
        .arg("replicaof", &format!("127.0.0.1 {port}"))
        .start();
    let sentinel = sentinel_of(&replica);
    let memory = quick(url(&sentinel)).build().unwrap();
    wait_for_error(&memory, &["ROLE", &replica.port().to_string()]);
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Queued);
    sentinel.cli(&["SENTINEL", "REMOVE", "mymaster"]);
    sentinel.cli(&["SENTINEL", "MONITOR", "mymaster", "127.0.0.1", &port, "1"]);
    memory.flush(DEADLINE).unwrap();
    assert!(primary.get_text("memory:n").is_some());
}

#[test]
fn a_user_who_may_not_ask_for_the_role_is_no_problem() {
    let server = Server::redis()
        .user("app", "on >pw ~* &* +@all -role")
        .start();
    let sentinel = sentinel_of(&server);
    assert_stores(quick(url(&sentinel).replacen("://", "://app:pw@", 1)));
}

/// The words behind `start` in a block of a page, without line breaks.
fn rights(page: &str, start: &str) -> String {
    let (_, rest) = page.split_once(start).expect("the block is there");
    let block = rest.split("```").next().expect("it ends");
    block.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_rights_that_the_docs_name_are_enough() {
    let of_server = rights(include_str!("../../README.md"), "ACL SETUSER app ");
    let of_sentinel = rights(include_str!("../../synced-memory/servers.md"), "user app ");
    let server = Server::redis().user("app", &format!("{of_server} +role"));
    let server = server.start();
    let sentinel = sentinel_with(&server, |sentinel| sentinel.user("app", &of_sentinel));
    let builder = quick(url(&sentinel).replacen("://", "://app:secret@", 1))
        .sentinel_user("app")
        .sentinel_password("secret");
    assert_stores(builder.read_policy(ReadPolicy::Near));
    for refused in [server.cli(&["ACL", "LOG"]), sentinel.cli(&["ACL", "LOG"])] {
        assert_eq!(refused, redis::Value::Array(Vec::new()));
    }
}

#[test]
fn the_wrong_scheme_for_a_port_says_which_one_to_write() {
    for program in [Server::redis, Server::redis_6, Server::valkey] {
        let server = program().start();
        let monitor = format!("monitor mymaster 127.0.0.1 {} 1", server.port());
        let sentinel = program().sentinel().arg("sentinel", &monitor).start();
        let port = sentinel.port();
        let right = format!("redis-sentinel://127.0.0.1:{port}/mymaster");
        assert_rejected(quick(format!("redis://127.0.0.1:{port}")), &[&right]);
        // The database is chosen before anything else is asked.
        let with_database = quick(format!("redis://127.0.0.1:{port}/2"));
        assert_rejected(with_database, &["sentinel", "redis-sentinel://"]);

        let port = server.port();
        let right = format!("write redis://127.0.0.1:{port}");
        let wrong = format!("redis-sentinel://127.0.0.1:{port}/mymaster");
        assert_rejected(quick(wrong), &[&right, "no sentinel"]);
    }
}

#[test]
fn over_tls_to_the_sentinels_and_to_the_servers_everything_is_the_same() {
    let authority = Authority::new("ours");
    let watched = Watched::start_with_tls(Server::redis, &authority.local(), &authority);
    let ca = authority.file();
    let memory = quick(watched.url()).tls(true).tls_ca(&ca);
    let memory = memory.read_policy(ReadPolicy::Near).build().unwrap();
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Stored);
    let in_url = format!("{}?tls=true&tls_ca={}", watched.url(), ca.display());
    assert_stores(quick(in_url));
    assert_rejected(quick(watched.url()).tls(true), &["UnknownIssuer"]);

    // Without TLS to ports with it, and the other way round.
    let plain = quick(watched.url()).timeout(Duration::from_secs(2));
    let error = plain.connect(ConnectPolicy::Required).build().unwrap_err();
    let right = format!("{}/0?tls=true", watched.url());
    assert!(error.to_string().contains(&right), "{error}");
    let server = Server::redis().start();
    let sentinel = sentinel_of(&server);
    let secure = quick(url(&sentinel)).tls(true).tls_ca(&ca);
    let secure = secure
        .connect(ConnectPolicy::Required)
        .timeout(Duration::from_secs(1));
    let error = secure.build().unwrap_err().to_string();
    assert!(
        error.contains("TLS") && error.contains("without `tls=true`"),
        "{error}"
    );

    watched.fail_over();
    watched.wait_replaced(0);
    let new = &watched.servers()[1];
    eventually(DEADLINE, "the new one is followed", || {
        memory.set(&number(), 2).unwrap() == Written::Stored
            && new
                .try_cli(&["GET", "memory:n"])
                .is_ok_and(|text| format!("{text:?}").contains("\\\"value\\\": 2,"))
    });
}

#[test]
fn a_map_of_addresses_that_panics_is_a_failure_that_is_named() {
    let server = Server::redis().start();
    let sentinel = sentinel_of(&server);
    let memory = quick(url(&sentinel)).addresses(|_, _| panic!("on purpose"));
    let memory = memory.build().unwrap();
    wait_for_error(
        &memory,
        &["`addresses` panicked", &server.port().to_string()],
    );
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Queued);

    // A name that nobody can resolve leads to it all the same.
    let port = server.port();
    sentinel.cli(&["SENTINEL", "REMOVE", "mymaster"]);
    sentinel.cli(&["SENTINEL", "MONITOR", "mymaster", "127.0.0.2", "7", "1"]);
    let mapped = quick(url(&sentinel)).addresses(move |host, named| match (host, named) {
        ("127.0.0.2", 7) => ("localhost".to_owned(), port),
        other => panic!("{other:?}"),
    });
    assert_stores(mapped);
}

/// Sentinels come and go: what is queued belongs to the service.
#[test]
fn a_journal_is_that_of_the_service_whichever_sentinels_the_url_lists() {
    let server = Server::redis().start();
    let (one, other) = (sentinel_of(&server), sentinel_of(&server));
    let directory = TempDir::new().unwrap();
    let journalled = |sentinel: &Server, name: Option<&str>| {
        let builder = quick(url(sentinel)).journal(directory.path());
        let builder = match name {
            Some(name) => builder.name(name),
            None => builder,
        };
        builder.shutdown_timeout(Duration::ZERO).build().unwrap()
    };
    let memory = journalled(&one, None);
    server.stop();
    eventually(DEADLINE, "the loss is noticed", || {
        !memory.status().connected
    });
    assert_eq!(memory.set(&number(), 5).unwrap(), Written::Queued);
    drop(memory);

    server.start();
    let stranger = journalled(&other, Some("another"));
    stranger.flush(DEADLINE).unwrap();
    assert_eq!(
        stranger.get(&number()).unwrap(),
        None,
        "another service of that name"
    );
    let heir = journalled(&other, None);
    heir.flush(DEADLINE).unwrap();
    assert_eq!(heir.get(&number()).unwrap(), Some(5));
}

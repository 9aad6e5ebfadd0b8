//! `client_name`: whoever looks at `CLIENT LIST` of a server finds the process.

use std::sync::mpsc;
use std::time::Duration;

use support::{Logs, Proxy, Server, eventually};
use synced_memory::{Key, Memory, Written};

const DEADLINE: Duration = Duration::from_secs(10);

/// The names of the connections of everybody but the test, in alphabetical order.
fn names(server: &Server) -> Vec<String> {
    let list: String = redis::from_redis_value(server.cli(&["CLIENT", "LIST"])).unwrap();
    let others = list.lines().filter(|line| !line.contains(" user=support "));
    let name = |line: &str| {
        let (_, rest) = line.split_once(" name=").expect("each has one");
        rest.split(' ').next().unwrap_or_default().to_owned()
    };
    let mut names: Vec<_> = others.map(name).collect();
    names.sort_unstable();
    names
}

#[track_caller]
fn assert_names(server: &Server, expected: &[&str]) {
    eventually(DEADLINE, &format!("the names are {expected:?}"), || {
        names(server) == expected
    });
}

fn quick(url: &str) -> Memory {
    Memory::builder()
        .url(url)
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .build()
        .unwrap()
}

#[test]
fn connections_are_called_as_the_program_unless_an_option_says_otherwise() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        let program = std::env::current_exe().unwrap();
        let program = program.file_stem().unwrap().to_str().unwrap();
        assert!(program.starts_with("promises"), "{program}");

        let memory = quick(&server.url());
        assert_names(&server, &[program]);
        memory.close(DEADLINE).unwrap();
        let url = format!("{}?client_name=shop-7", server.url());
        let of_url = quick(&url);
        assert_names(&server, &["shop-7"]);
        let of_builder = Memory::builder().url(&url).client_name("till").build();
        assert_names(&server, &["shop-7", "till"]);
        drop(of_builder);
        assert_names(&server, &["shop-7"]);
        of_url.close(DEADLINE).unwrap();

        let unnamed = Memory::builder().url(server.url()).client_name("").build();
        let unnamed = unnamed.unwrap();
        let key = Key::<u64>::new("n");
        assert_eq!(unnamed.set(&key, 1).unwrap(), Written::Stored);
        assert_eq!(names(&server), [""]);
        assert_eq!(
            server.command_count("client|setname"),
            3 * by_subcommand(&server)
        );
    }
}

/// Redis 6.2 counts commands without their subcommands.
fn by_subcommand(server: &Server) -> u64 {
    u64::from(!server.info("server").contains("redis_version:6."))
}

#[test]
fn a_new_connection_has_the_name_too_and_so_has_that_of_large_values() {
    let server = Server::redis().start();
    let memory = quick(&format!("{}?client_name=shop", server.url()));
    let large = Key::<String>::new("large");
    // Without a stamp, it is read as a whole each time.
    server.set_raw("memory:large", format!("\"{}\"", "x".repeat(2 << 20)));
    for _ in 0..3 {
        // While it is not connected, what is known is read from no connection.
        eventually(DEADLINE, "the two connections have the name", || {
            assert_eq!(memory.get(&large).unwrap().unwrap().len(), 2 << 20);
            names(&server) == ["shop", "shop"]
        });
        server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert_names(&server, &["shop"]);
    }
}

#[test]
fn naming_takes_no_round_trip_of_its_own() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let (sender, sent) = mpsc::channel();
    // It is never true: nothing is lost. It sees what has come each time that something comes.
    proxy.swallow_answer_after(move |bytes| {
        let has = |word: &str| bytes.windows(word.len()).any(|at| at == word.as_bytes());
        if has("SETNAME") {
            _ = sender.send(has("SCRIPT\r\n$4\r\nLOAD"));
        }
        false
    });
    let memory = Memory::open(&proxy.url()).unwrap();
    let first = sent.recv_timeout(DEADLINE).unwrap();
    assert!(first, "the next request did not come with it");
    assert_eq!(memory.set(&Key::new("n"), 1).unwrap(), Written::Stored);
}

#[test]
fn a_user_without_the_right_gets_one_event_and_no_error() {
    let logs = Logs::capture();
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let rules = "on >pw ~* +@all -client +client|tracking";
        let server = builder.user("alice", rules).start();
        let memory = quick(&server.url_as("alice", "pw"));
        let key = Key::<u64>::new("n");
        let refusals = || {
            let events = logs.containing("CLIENT SETNAME");
            let port = server.port().to_string();
            let of_this = events
                .into_iter()
                .filter(|event| event.to_string().contains(&port));
            of_this.collect::<Vec<_>>()
        };
        eventually(DEADLINE, "an event says so", || !refusals().is_empty());
        for n in 0..3 {
            assert_eq!(memory.set(&key, n).unwrap(), Written::Stored);
            let before = denied(&server);
            server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            eventually(DEADLINE, "another connection was refused it", || {
                denied(&server) > before
            });
            eventually(DEADLINE, "it is connected again", || {
                memory.get(&key).is_ok() && memory.status().connected
            });
        }
        assert_eq!(names(&server), [""]);
        let refusals = refusals();
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        assert_eq!(refusals[0].level, tracing::Level::DEBUG);
        assert!(refusals[0].to_string().contains("NOPERM"), "{refusals:?}");
        let status = memory.status();
        assert_eq!((status.pending, status.dead_letters), (0, 0));
        memory.close(DEADLINE).unwrap();
    }
}

/// How often a command was refused for want of a right.
fn denied(server: &Server) -> u64 {
    let errors = server.info("errorstats");
    let count = errors
        .lines()
        .find_map(|line| line.strip_prefix("errorstat_NOPERM:count="));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

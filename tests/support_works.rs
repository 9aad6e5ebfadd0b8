//! A fault that does not happen proves nothing: each fault of `support` really happens.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use redis::Value;
use support::Direction::{ToClient, ToServer};
use support::{
    Address, Child, Cluster, Dragonfly, FakeClock, Logs, Proxy, Python, Server, eventually,
    eventually_some, python,
};

const SOON: Duration = Duration::from_secs(5);

/// A connection that speaks the protocol by hand, so that the tests see every byte.
struct Wire(TcpStream);

impl Wire {
    fn to(address: &impl Address) -> Self {
        let stream =
            TcpStream::connect(("127.0.0.1", address.port())).expect("the port is listening");
        stream
            .set_read_timeout(Some(SOON))
            .expect("a timeout can be set");
        Self(stream)
    }

    fn send(&mut self, line: &str) {
        self.0
            .write_all(format!("{line}\r\n").as_bytes())
            .expect("the connection is open");
    }

    /// The next answer, which is one line.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8(line).expect("answers are text"))
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.line().expect("there is an answer")
    }

    fn is_silent_for(&mut self, time: Duration) -> bool {
        self.0
            .set_read_timeout(Some(time))
            .expect("a timeout can be set");
        let silent = self
            .0
            .read(&mut [0])
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.0
            .set_read_timeout(Some(SOON))
            .expect("a timeout can be set");
        silent
    }

    /// What still comes, up to the end, and whether the end is a reset.
    fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => (bytes, false),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                (bytes, true)
            }
        }
    }
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes
        .windows(part.len())
        .any(|window| window == part.as_bytes())
}

#[test]
fn all_three_servers_start_and_say_their_versions() {
    for (server, version) in [
        (Server::redis().start(), "redis_version:7."),
        (Server::redis_6().start(), "redis_version:6.2.14"),
        (Server::valkey().start(), "valkey_version:9.1."),
    ] {
        let info = server.info("server");
        assert!(info.contains(version), "{info}");
        assert!(server.get_raw("nothing").is_none());
    }
}

#[test]
fn a_stopped_or_killed_server_comes_back_at_its_port_with_what_it_saved() {
    let server = Server::redis()
        .arg("appendonly", "yes")
        .arg("appendfsync", "always")
        .start();
    let port = server.port();
    server.set_raw("k", "1");
    server.stop();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    server.start();
    assert_eq!(server.get_text("k").as_deref(), Some("1"));
    server.cli(&["INCR", "k"]);
    server.kill();
    server.start();
    assert_eq!(server.get_text("k").as_deref(), Some("2"));
    assert_eq!(server.port(), port);
}

#[test]
fn a_server_without_persistence_forgets() {
    let server = Server::redis().start();
    server.set_raw("k", "1");
    server.stop();
    server.start();
    assert_eq!(server.get_raw("k"), None);
}

#[test]
fn a_frozen_server_keeps_connections_and_answers_after_the_thaw() {
    let server = Server::redis().start();
    let mut wire = Wire::to(&server);
    assert_eq!(wire.ask("PING"), "+PONG");
    server.freeze();
    wire.send("INCR n");
    assert!(wire.is_silent_for(Duration::from_millis(200)));
    server.thaw();
    assert_eq!(wire.line().expect("the answer comes late"), ":1");
}

#[test]
fn a_loading_server_answers_that_it_is_loading() {
    let server = Server::redis()
        .slow_loading(Duration::from_millis(5))
        .start();
    for n in 0..100 {
        server.set_raw(&format!("k{n}"), [b'x'; 2_000]);
    }
    server.stop();
    server.launch();
    eventually(SOON, "a client is answered LOADING", || {
        server
            .try_cli(&["GET", "k1"])
            .is_err_and(|error| error.to_string().contains("loading"))
    });
    server.wait_ready();
    assert_eq!(server.get_raw("k1").map(|value| value.len()), Some(2_000));
}

#[test]
fn passwords_users_and_the_unix_socket_are_those_asked_for() {
    let server = Server::redis()
        .password("p@ss:w/rd% \"\\")
        .user("alice", "on >secret ~memory:* +get +info")
        .unix_socket()
        .start();
    let refused = Wire::to(&server).ask("GET k");
    assert!(refused.starts_with("-NOAUTH"), "{refused}");
    let connect = |url: &str| redis::Client::open(url)?.get_connection_with_timeout(SOON);
    let socket = format!("redis+unix://{}", server.socket().display());
    assert!(connect(&server.url()).is_ok());
    assert!(connect(&server.url_as("alice", "wrong")).is_err());
    assert!(server.socket().exists() && connect(&socket).is_ok());
    let mut alice = connect(&server.url_as("alice", "secret")).expect("alice may connect");
    assert_eq!(
        redis::cmd("GET").arg("memory:k").query(&mut alice),
        Ok(None::<String>)
    );
    let refused = redis::cmd("GET")
        .arg("other")
        .query::<Value>(&mut alice)
        .expect_err("not alice's key");
    assert_eq!(refused.code(), Some("NOPERM"));
}

#[test]
fn commands_are_counted_on_the_server_since_the_last_reset() {
    let server = Server::redis().start();
    let mut wire = Wire::to(&server);
    for _ in 0..3 {
        wire.ask("INCR n");
    }
    assert_eq!(server.command_count("INCR"), 3);
    server.reset_stats();
    assert_eq!(server.command_count("incr"), 0);
    wire.send("CLIENT SETNAME me");
    assert_eq!(wire.line().expect("an answer"), "+OK");
    assert_eq!(server.command_count("client|setname"), 1);
}

#[test]
fn servers_and_helpers_die_with_a_test_process_that_is_killed() {
    if std::env::var_os("SUPPORT_WORKS_INNER").is_some() {
        let server = Server::redis().start();
        println!("server {}", server.pid());
        io::stdout().flush().expect("stdout is open");
        thread::sleep(Duration::from_secs(60));
        return;
    }
    let program = std::env::current_exe().expect("a test knows its program");
    let name = "servers_and_helpers_die_with_a_test_process_that_is_killed";
    let mut inner = Child::spawn_with(program, ["--exact", name, "--nocapture"], |command| {
        command.env("SUPPORT_WORKS_INNER", "1");
    });
    let server: u32 = eventually_some(SOON, "the inner test has a server", || {
        inner.recv().rsplit_once("server ")?.1.parse().ok()
    });
    let alive = || {
        let stat = std::fs::read_to_string(format!("/proc/{server}/stat")).unwrap_or_default();
        stat.contains("redis-server") && !stat.contains(") Z ")
    };
    assert!(alive());
    inner.kill();
    eventually(SOON, "the server is gone", || !alive());
}

#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let server = thread::spawn(|| Server::redis().start())
        .join()
        .expect("it starts");
    server.set_raw("k", "1");
    assert!(Wire::to(&server).is_silent_for(Duration::from_millis(100)));
    assert_eq!(server.get_text("k").as_deref(), Some("1"));
}

#[test]
fn a_proxy_without_faults_changes_nothing_and_counts() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let mut wire = Wire::to(&proxy);
    assert_eq!(wire.ask("PING"), "+PONG");
    assert_eq!((proxy.bytes(ToServer), proxy.bytes(ToClient)), (6, 7));
    assert_eq!((proxy.connections(), proxy.open()), (1, 1));
    let long = "x".repeat(3_000_000);
    assert_eq!(
        wire.ask(&format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3000000\r\n{long}")),
        "+OK"
    );
    assert_eq!(wire.ask("GET k"), "$3000000");
    assert_eq!(wire.line().expect("the value follows").len(), long.len());
    drop(wire);
    eventually(SOON, "the connection is closed on both sides", || {
        proxy.open() == 0
    });
}

#[test]
fn a_cut_of_requests_lets_exactly_n_bytes_reach_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let proxy = Proxy::to(&port);
    let request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n";
    for n in 0..=request.len() {
        proxy.cut_after_bytes(ToServer, n as u64);
        let mut wire = Wire::to(&proxy);
        let (mut server, _) = listener.accept().expect("the proxy connects");
        // In three writes, so that the cut meets whole, split and later chunks.
        for part in [&request[..7], &request[7..8], &request[8..]] {
            let _ = wire.0.write_all(part);
        }
        if n == request.len() {
            let _ = wire.0.write_all(b"more");
        }
        let mut got = Vec::new();
        server
            .read_to_end(&mut got)
            .expect("the server sees an orderly end");
        assert_eq!(got, request[..n], "cut after {n}");
        eventually(SOON, "the client sees the cut", || {
            wire.0.write_all(b"x").is_err()
        });
        assert_eq!(proxy.cuts(), n as u64 + 1);
        assert_eq!(proxy.open(), 0);
    }
    let mut wire = Wire::to(&proxy);
    let (mut server, _) = listener.accept().expect("the proxy connects");
    wire.0.write_all(request).expect("the fault happens once");
    let mut got = vec![0; request.len()];
    server.read_exact(&mut got).expect("all arrives again");
}

#[test]
fn a_cut_of_answers_lets_exactly_n_bytes_reach_the_client() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    server.set_raw("k", "value");
    let answer = b"$5\r\nvalue\r\n";
    for n in 0..=answer.len() {
        proxy.cut_after_bytes(ToClient, n as u64);
        let mut wire = Wire::to(&proxy);
        wire.send("GET k");
        let (got, _) = wire.rest();
        assert_eq!(got, answer[..n], "cut after {n}");
    }
    proxy.cut_after_bytes(ToClient, 1);
    proxy.do_not_cut();
    assert_eq!(Wire::to(&proxy).ask("PING"), "+PONG");
}

#[test]
fn requests_that_passed_before_a_cut_are_carried_out() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    for n in 1..=50 {
        let mut wire = Wire::to(&proxy);
        proxy.cut_after_bytes(ToServer, 8);
        wire.send("INCR n");
        assert!(wire.rest().1, "the client sees a reset");
        eventually(SOON, "the server counts", || {
            server.get_text("n") == Some(n.to_string())
        });
    }
}

#[test]
fn a_cut_resets_all_connections() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let mut wires = [Wire::to(&proxy), Wire::to(&proxy)];
    for wire in &mut wires {
        assert_eq!(wire.ask("PING"), "+PONG");
    }
    proxy.cut();
    for mut wire in wires {
        assert_eq!(wire.rest(), (Vec::new(), true));
    }
    assert_eq!((proxy.open(), proxy.cuts()), (0, 2));
    assert_eq!(Wire::to(&proxy).ask("PING"), "+PONG");
}

#[test]
fn a_refusing_proxy_refuses_new_connections_and_keeps_old_ones() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let mut old = Wire::to(&proxy);
    assert_eq!(old.ask("PING"), "+PONG");
    for _ in 0..3 {
        proxy.refuse(true);
        let refused = TcpStream::connect(("127.0.0.1", proxy.port())).expect_err("nothing listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(old.ask("PING"), "+PONG");
        proxy.refuse(false);
        assert_eq!(Wire::to(&proxy).ask("PING"), "+PONG");
    }
}

#[test]
fn a_connection_through_the_proxy_ends_when_the_server_is_down() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let mut wire = Wire::to(&proxy);
    assert_eq!(wire.ask("PING"), "+PONG");
    server.kill();
    assert!(wire.rest().0.is_empty());
    assert!(Wire::to(&proxy).rest().0.is_empty());
    server.start();
    assert_eq!(Wire::to(&proxy).ask("PING"), "+PONG");
}

#[test]
fn swallowed_answers_belong_to_requests_that_were_carried_out() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let mut wire = Wire::to(&proxy);
    assert_eq!(wire.ask("PING"), "+PONG");
    proxy.swallow_answers(true);
    wire.send("INCR n");
    eventually(SOON, "the answer is swallowed", || proxy.swallowed() == 4);
    assert_eq!(server.get_text("n").as_deref(), Some("1"));
    assert!(wire.is_silent_for(Duration::from_millis(50)));
    proxy.swallow_answers(false);
    assert_eq!(wire.ask("PING"), "+PONG");
}

#[test]
fn the_answer_to_a_chosen_request_is_swallowed_until_the_cut() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let mut wire = Wire::to(&proxy);
    proxy.swallow_answer_after(|requests| contains(requests, "INCR n"));
    assert_eq!(wire.ask("PING"), "+PONG");
    assert_eq!(wire.ask("INCR m"), ":1");
    wire.send("INCR n");
    eventually(SOON, "the answer is swallowed", || proxy.swallowed() == 4);
    assert_eq!(server.get_text("n").as_deref(), Some("1"));
    assert_eq!(
        Wire::to(&proxy).ask("INCR n"),
        ":2",
        "other connections are not affected"
    );
    proxy.cut();
    assert_eq!(wire.rest(), (Vec::new(), true));
}

#[test]
fn the_answer_to_a_chosen_request_is_lost_with_its_connection() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    for n in 1..=50 {
        let mut wire = Wire::to(&proxy);
        proxy.lose_answer_to(|requests| contains(requests, "INCR n"));
        assert_eq!(wire.ask("PING"), "+PONG");
        wire.send("INCR n");
        assert_eq!(wire.rest(), (Vec::new(), true));
        assert_eq!(
            server.get_text("n"),
            Some(n.to_string()),
            "the cut comes after the answer"
        );
    }
}

#[test]
fn a_delay_holds_in_its_direction_and_keeps_the_order() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let mut wire = Wire::to(&proxy);
    let delay = Duration::from_millis(80);
    for direction in [ToServer, ToClient] {
        proxy.delay(direction, delay);
        let started = Instant::now();
        for n in 0..10 {
            wire.send(&format!("ECHO {n}"));
        }
        for n in 0..10 {
            assert_eq!(wire.line().expect("an answer"), "$1");
            assert_eq!(wire.line().expect("an answer"), n.to_string());
        }
        let took = started.elapsed();
        assert!(
            took >= delay && took < delay * 5,
            "{took:?}: once for all, not once for each"
        );
        proxy.delay(direction, Duration::ZERO);
    }
}

#[test]
fn a_stalled_connection_is_silent_and_goes_on_where_it_was() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let mut wire = Wire::to(&proxy);
    assert_eq!(wire.ask("PING"), "+PONG");
    proxy.stall(true);
    wire.send("INCR n");
    let mut new = Wire::to(&proxy);
    new.send("PING");
    assert!(wire.is_silent_for(Duration::from_millis(100)));
    assert!(new.is_silent_for(Duration::from_millis(1)));
    assert_eq!(server.get_raw("n"), None);
    proxy.stall(false);
    assert_eq!(wire.line().expect("the answer comes late"), ":1");
    assert_eq!(new.line().expect("the answer comes late"), "+PONG");
}

#[test]
fn held_requests_reach_the_server_after_their_client_has_gone() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    for cut in [true, false] {
        let mut old = Wire::to(&proxy);
        assert_eq!(old.ask("SET k before"), "+OK");
        proxy.hold_requests();
        old.send("SET k late");
        eventually(SOON, "the request is held", || proxy.held() == 12);
        if cut {
            proxy.cut();
            assert_eq!(old.rest(), (Vec::new(), true));
        }
        drop(old);
        let mut new = Wire::to(&proxy);
        assert_eq!(new.ask("SET k new"), "+OK");
        assert_eq!(
            (server.get_text("k").as_deref(), proxy.open()),
            (Some("new"), 2)
        );
        proxy.release();
        eventually(SOON, "the late request arrives", || {
            server.get_text("k").as_deref() == Some("late")
        });
        assert_eq!(new.ask("PING"), "+PONG");
        drop(new);
        eventually(SOON, "the connections are closed", || proxy.open() == 0);
    }
}

#[test]
fn a_program_sees_its_clock_step_while_it_runs_and_its_monotonic_clock_go_on() {
    let clock = FakeClock::new();
    let mut peer = Child::spawn_with(env!("CARGO_BIN_EXE_support_peer"), [""; 0], |command| {
        clock.apply(command);
    });
    let mut wall = || {
        let shown: i128 = peer.ask("wall").parse().expect("a number");
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("it is past 1970");
        let off = shown - i128::try_from(now.as_millis()).expect("a time in ms is small");
        (off, peer.ask("monotonic").parse::<u64>().expect("a number"))
    };
    let near = |off: i128, expected: i128| (off - expected).abs() < 2_000;
    let (off, first) = wall();
    assert!(near(off, 0), "{off}");
    clock.behind(Duration::from_secs(86_400));
    let (off, second) = wall();
    assert!(near(off, -86_400_000), "{off}");
    clock.ahead(Duration::from_secs(3_600));
    let (off, third) = wall();
    assert!(near(off, 3_600_000), "{off}");
    clock.right();
    assert!(near(wall().0, 0));
    assert!(first <= second && second <= third && third < 20_000);
}

#[test]
fn a_server_can_have_a_clock_of_its_own() {
    let clock = FakeClock::new();
    let server = Server::valkey().clock(&clock).start();
    let off = || {
        let (seconds, _): (i64, i64) =
            redis::from_redis_value(server.cli(&["TIME"])).expect("TIME answers two numbers");
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("it is past 1970");
        seconds - i64::try_from(now.as_secs()).expect("a time in s is small")
    };
    assert!(off().abs() < 3);
    clock.ahead(Duration::from_secs(3_600));
    // A server asks for the time once in a while, not for each command.
    eventually(SOON, "the server's clock has stepped", || {
        (off() - 3_600).abs() < 3
    });
}

#[test]
fn a_child_answers_lines_and_is_frozen_thawed_and_waited_for() {
    let mut peer = Child::spawn(env!("CARGO_BIN_EXE_support_peer"), [""; 0]);
    assert_eq!(peer.ask("hello, wörld"), "hello, wörld");
    peer.freeze();
    peer.send("x");
    assert_eq!(peer.recv_within(Duration::from_millis(100)), None);
    peer.thaw();
    assert_eq!(peer.recv(), "x");
    peer.hang_up();
    assert!(peer.wait(SOON).success());
}

#[test]
fn the_python_package_runs_against_a_server() {
    let server = Server::redis().start();
    let code = "
import os
from synced_memory import Memory
m = Memory(redis_hostname=os.environ['REDIS_HOST'], redis_port=int(os.environ['REDIS_PORT']))
m.greeting = 'grüß dich'
print(m.greeting)
";
    assert_eq!(python(&server, code), "grüß dich");
    let stored = server.get_text("memory:greeting").expect("it is stored");
    assert!(
        stored.starts_with("{\"value\": ") && stored.contains("\"last_modified\": "),
        "{stored}"
    );

    let mut peer = Python::against(&server);
    peer.run(code);
    server.cli(&["DEL", "memory:greeting"]);
    peer.run("m.counter = 1");
    assert_eq!(peer.run("m.counter += 1\nprint(m.counter)"), "2");
    assert!(
        peer.try_run("m.nothing")
            .expect_err("it is unset")
            .contains("AttributeError")
    );
}

#[test]
#[should_panic(expected = "ZeroDivisionError")]
fn a_python_program_that_fails_fails_the_test() {
    python(&1_u16, "1 / 0");
}

#[test]
fn the_librarys_events_are_captured_from_all_threads() {
    let logs = Logs::capture();
    thread::spawn(|| {
        tracing::warn!(target: "synced_memory::flusher", key = "memory:k", n = 3, "superseded by {}", "a peer");
        tracing::info!(target: "another_crate", key = "memory:k", "not ours");
    })
    .join()
    .expect("it logs");
    let events = logs.containing("memory:k");
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0].to_string(),
        "WARN synced_memory::flusher: superseded by a peer key=memory:k n=3"
    );
    assert_eq!(events[0].field("n"), Some("3"));
}

#[test]
fn waiting_ends_with_the_condition_or_with_its_message() {
    let flag = Arc::new(AtomicBool::new(false));
    let setter = thread::spawn({
        let flag = Arc::clone(&flag);
        move || flag.store(true, Ordering::Release)
    });
    eventually(SOON, "the flag is set", || flag.load(Ordering::Acquire));
    setter.join().expect("it sets");
    let failed =
        std::panic::catch_unwind(|| eventually(Duration::from_millis(5), "pigs fly", || false));
    let message = failed
        .expect_err("they do not")
        .downcast::<String>()
        .expect("a message");
    assert!(message.contains("pigs fly"), "{message}");
}

fn speak(address: &impl Address, protocol: &str) -> redis::Connection {
    let url = format!("redis://127.0.0.1:{}?protocol={protocol}", address.port());
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

fn say(connection: &mut redis::Connection, words: &[&str]) -> redis::RedisResult<redis::Value> {
    redis::cmd(words[0]).arg(&words[1..]).query(connection)
}

#[test]
fn behind_dragonflys_rules_requests_unknown_to_dragonfly_are_refused() {
    let server = Server::redis().start();
    let dragonfly = Dragonfly::over(&server);
    let mut wire = speak(&dragonfly, "resp3");
    let tracking = ["CLIENT", "TRACKING", "ON"];
    let options = [
        &["BCAST"][..],
        &["BCAST", "PREFIX", "a"],
        &["REDIRECT", "1"],
        &["OPTIN", "NOLOOP"],
    ];
    let mut refused: Vec<Vec<&str>> = options
        .iter()
        .map(|options| [&tracking[..], options].concat())
        .collect();
    refused.extend([
        vec!["CLIENT", "TRACKINGINFO"],
        vec!["CLIENT", "NO-EVICT", "ON"],
        vec!["FUNCTION", "LIST"],
    ]);
    refused.extend([
        vec!["FCALL", "f", "0"],
        vec!["EVAL", "return redis.call('GET', 'k')", "1", "other"],
    ]);
    refused.push(vec!["EVAL", "return redis.pcall('GET', 'k')", "0"]);
    for words in refused {
        assert!(say(&mut wire, &words).is_err(), "{words:?} is not refused");
        // Answers come in their order all the same.
        assert_eq!(
            say(&mut wire, &["PING"]).unwrap(),
            redis::Value::SimpleString("PONG".to_owned())
        );
    }
    let get = redis::Script::new("return redis.call('GET', KEYS[1])");
    server.set_raw("k", "5");
    for _ in 0..2 {
        assert_eq!(get.key("k").invoke::<i64>(&mut wire).unwrap(), 5);
        server.cli(&["SCRIPT", "FLUSH"]);
    }
    let hello = format!("{:?}", say(&mut wire, &["HELLO", "3"]).unwrap());
    assert!(hello.contains("dragonfly_version"), "{hello}");
    for n in 0..30 {
        server.set_raw(&format!("scanned{n}"), "1");
    }
    let page = say(
        &mut wire,
        &["SCAN", "0", "MATCH", "scanned*", "COUNT", "1000"],
    )
    .unwrap();
    let (next, mut names): (String, Vec<String>) = redis::from_redis_value(page).unwrap();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(
        next != "0" && names.len() < 30 && names.len() < all,
        "{names:?}"
    );
    let mut old = speak(&dragonfly, "resp2");
    assert!(say(&mut old, &tracking).is_err());
}

#[test]
fn behind_dragonflys_rules_each_push_is_of_one_key_and_noloop_tracks_nothing() {
    let server = Server::redis().start();
    let dragonfly = Dragonfly::over(&server);
    let mut wire = speak(&dragonfly, "resp3");
    let (sender, pushes) = mpsc::channel();
    wire.set_push_sender(sender);
    for (options, expected) in [(&["NOLOOP"][..], 0), (&[][..], 2)] {
        say(
            &mut wire,
            &[&["CLIENT", "TRACKING", "ON"][..], options].concat(),
        )
        .unwrap();
        say(&mut wire, &["MGET", "a", "b"]).unwrap();
        server.cli(&["MSET", "a", "1", "b", "2"]);
        let mut keys = Vec::new();
        // Pushes may be behind the answers; those of the next round would be too many.
        for _ in 0..20 {
            say(&mut wire, &["PING"]).unwrap();
            keys.extend(
                pushes
                    .try_iter()
                    .map(|push: redis::PushInfo| push.data[0].clone()),
            );
        }
        let of_one =
            |keys: &redis::Value| matches!(keys, redis::Value::Array(keys) if keys.len() == 1);
        assert!(
            keys.len() == expected && keys.iter().all(of_one),
            "{keys:?}"
        );
    }
}

/// What a node answers to GET.
fn get(node: &Server, key: &str) -> Result<String, String> {
    let answer = node.try_cli(&["GET", key]);
    answer
        .map(|value| redis::from_redis_value(value).expect("the value is text"))
        .map_err(|error| error.code().unwrap_or_default().to_owned())
}

#[test]
fn a_cluster_serves_moves_a_slot_step_by_step_and_a_replica_takes_over() {
    for program in [Server::redis, Server::redis_6, Server::valkey] {
        let cluster = Cluster::start(program, 3, 1);
        let nodes = cluster.nodes();
        let slot = cluster.slot_of("{b}1");
        assert_eq!(cluster.owner(slot), 0);
        for n in 1..=15 {
            nodes[0].set_raw(&format!("{{b}}{n}"), n.to_string());
        }
        assert_eq!(get(&nodes[1], "{b}1"), Err("MOVED".to_owned()));

        let moving = cluster.begin_move(slot, 1);
        moving.migrate(&["{b}1"]);
        assert_eq!(get(&nodes[0], "{b}1"), Err("ASK".to_owned()));
        assert_eq!(get(&nodes[0], "{b}2"), Ok("2".to_owned()));
        assert_eq!(moving.migrate_some(10), 10);
        assert_eq!(moving.migrate_some(10), 4);
        moving.settle();
        assert_eq!(get(&nodes[0], "{b}2"), Err("MOVED".to_owned()));
        assert_eq!(get(&nodes[1], "{b}2"), Ok("2".to_owned()));
        assert_eq!(cluster.owner(slot), 1);
        cluster.move_slot(slot, 0);
        assert_eq!(get(&nodes[0], "{b}2"), Ok("2".to_owned()));

        // In good order.
        let replica = cluster.replica_of(0);
        cluster.failover(replica);
        assert_eq!(cluster.owner(slot), replica);
        assert_eq!(get(&nodes[replica], "{b}2"), Ok("2".to_owned()));

        // What is written while its replica is cut off is lost with a primary.
        nodes[replica].set_raw("{b}kept", "1");
        cluster.wait_replicated(replica);
        cluster.cut_replication(replica);
        nodes[replica].set_raw("{b}lost", "1");
        nodes[replica].kill();
        eventually(Duration::from_secs(20), "the other one takes over", || {
            cluster.owner(slot) == 0 && get(&nodes[0], "{b}kept").is_ok()
        });
        assert_eq!(nodes[0].get_raw("{b}lost"), None);
        nodes[replica].start();
        cluster.restore_replication();
        cluster.wait_ready();
    }
}

#[test]
fn valkey_moves_slots_at_once_and_a_slot_is_taken_over_without_its_keys() {
    let cluster = Cluster::start(Server::valkey, 2, 0);
    let nodes = cluster.nodes();
    let slot = cluster.slot_of("{b}1");
    nodes[0].set_raw("{b}1", "1");
    cluster.move_slots_atomically(slot..slot + 1, 1);
    assert_eq!(get(&nodes[1], "{b}1"), Ok("1".to_owned()));
    cluster.take_slot_over(slot, 0);
    eventually(SOON, "the slot changes hands", || {
        cluster.owner(slot) == 0 && get(&nodes[1], "{b}1") == Err("MOVED".to_owned())
    });
    assert_eq!(nodes[0].get_raw("{b}1"), None);
}

#[test]
fn the_proxies_of_a_cluster_stand_before_its_nodes() {
    let cluster = Cluster::start(Server::redis, 2, 0);
    let proxies = cluster.proxied();
    let map = proxies.addresses();
    for (node, proxy) in cluster.nodes().iter().zip(proxies.proxies()) {
        assert_eq!(map("h", node.port()), ("h".to_owned(), proxy.port()));
        assert!(proxies.url().contains(&proxy.port().to_string()));
        assert!(cluster.url().contains(&node.port().to_string()));
        let mut wire = Wire::to(&proxy.port());
        wire.send("CLUSTER MYID");
        wire.line().expect("there is an answer");
        let id = wire.line().expect("there is an answer");
        assert_eq!(
            Value::BulkString(id.into_bytes()),
            node.cli(&["CLUSTER", "MYID"])
        );
    }
    assert_eq!(map("h", 1), ("h".to_owned(), 1), "no node of the cluster");
}

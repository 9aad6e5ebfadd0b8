//! A server that goes away kills no process, whatever that does with SIGPIPE.

use support::{Authority, Child, Server, eventually};

use crate::line::DEADLINE;

/// How many connections the server has closed as soon as they were accepted.
fn turned_away(server: &Server) -> u64 {
    let info: String = redis::from_redis_value(server.cli(&["INFO", "stats"])).unwrap();
    let count = info
        .lines()
        .find_map(|line| line.strip_prefix("rejected_connections:"));
    count.expect("a count").parse().unwrap()
}

fn writes_again(child: &mut Child) {
    let count = |child: &mut Child| child.ask("count").parse::<u64>().unwrap();
    let before = count(child);
    eventually(DEADLINE, "it writes", || count(child) > before + 20);
}

fn survives(url: &str, server: &Server) {
    let mut child = Child::spawn(env!("CARGO_BIN_EXE_hosted"), [url]);
    assert_eq!(child.recv(), "opened");
    writes_again(&mut child);

    // Each connection is closed while the login is being written to it.
    let before = turned_away(server);
    server.cli(&["CONFIG", "SET", "maxclients", "1"]);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually(DEADLINE, "many connections were turned away", || {
        child.ask("count");
        turned_away(server) > before + 300
    });
    server.cli(&["CONFIG", "SET", "maxclients", "10000"]);
    writes_again(&mut child);

    for _ in 0..5 {
        server.kill();
        child.ask("count");
        server.start();
        writes_again(&mut child);
    }
}

#[test]
fn a_server_that_goes_away_kills_no_process_whose_sigpipe_is_at_its_default() {
    let server = Server::redis().unix_socket().start();
    survives(&server.url(), &server);
}

#[test]
fn a_server_on_a_unix_socket_that_goes_away_kills_none_either() {
    let server = Server::redis().unix_socket().start();
    let socket = format!("redis+unix://{}", server.socket().display());
    survives(&socket, &server);
}

#[test]
fn a_server_with_tls_that_goes_away_kills_none_either() {
    let authority = Authority::new("ours");
    let server = Server::redis().tls(&authority.local(), &authority).start();
    let (port, ca) = (server.tls_port(), authority.file());
    survives(
        &format!("rediss://127.0.0.1:{port}?tls_ca={}", ca.display()),
        &server,
    );
}

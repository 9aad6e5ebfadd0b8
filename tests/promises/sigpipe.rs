//! A server that goes away kills no process, whatever that does with SIGPIPE.

use support::{Child, Server, eventually};

use crate::line::DEADLINE;

fn survives(url: &str, server: &Server) {
    let mut child = Child::spawn(env!("CARGO_BIN_EXE_hosted"), [url]);
    assert_eq!(child.recv(), "opened");
    let mut stored = 0;
    for round in 0..30 {
        eventually(DEADLINE, "it writes", || {
            let count = child.ask("count").parse::<u64>().unwrap();
            let is_more = count > stored + 20;
            stored = if is_more { count } else { stored };
            is_more
        });
        server.kill();
        assert!(!child.ask("count").is_empty(), "round {round}");
        server.start();
    }
}

#[test]
fn a_server_that_is_killed_does_not_kill_a_process_whose_sigpipe_is_at_its_default() {
    let server = Server::redis().unix_socket().start();
    survives(&server.url(), &server);
    let socket = format!("redis+unix://{}", server.socket().display());
    survives(&socket, &server);
}

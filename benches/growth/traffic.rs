//! What a push takes of the line, of the server, and of its append-only file.

use support::Server;
use synced_memory::Key;

use crate::cost::{RPUSH, fill_bare, message, messages, open, push_bare, stored};
use crate::figures::Figures;
use crate::sizes;

/// The series that have bars.
pub const SENT: &str = "a push: to the server";
pub const RECEIVED: &str = "a push: from the server";
pub const IN_SCRIPTS: &str = "a push: in the server's commands";
pub const LOG: &str = "a push: in the append-only file";

/// How many pushes are not measured: after them the server knows what it can know.
const WARM_UP: u32 = 3;

/// What a server has counted: bytes to it and from it, microseconds in a command, bytes in the
/// append-only file.
type Counts = [f64; 4];

fn counts(server: &Server, command: &str) -> Counts {
    let info = server.info("everything");
    let text = |name: &str| {
        let start = format!("{name}:");
        info.lines().find_map(|line| line.strip_prefix(&start))
    };
    let count = |name| text(name).map_or(0.0, |count| count.parse().expect("a number"));
    let of_command = text(&format!("cmdstat_{command}")).unwrap_or_default();
    let micros = of_command
        .split(',')
        .find_map(|count| count.strip_prefix("usec="));
    [
        count("total_net_input_bytes"),
        count("total_net_output_bytes"),
        micros.map_or(0.0, |micros| micros.parse().expect("a number")),
        count("aof_current_size"),
    ]
}

/// What one of so many operations makes the server count, without what asking for it does.
fn counted(server: &Server, command: &str, times: u32, mut operate: impl FnMut(u32)) -> Counts {
    (0..WARM_UP).for_each(&mut operate);
    let asked = counts(server, command);
    let before = counts(server, command);
    (WARM_UP..WARM_UP + times).for_each(&mut operate);
    let after = counts(server, command);
    std::array::from_fn(|at| (after[at] - 2.0 * before[at] + asked[at]) / f64::from(times))
}

/// Pushes in the steady state, beside bare `RPUSH`.
pub fn of_a_push(figures: &mut Figures) {
    let plain = Server::redis().start();
    let appending = Server::redis()
        .arg("appendonly", "yes")
        .arg("appendfsync", "no")
        .arg("auto-aof-rewrite-percentage", "0")
        .start();
    let key = Key::<Vec<String>>::new("list");
    for size in sizes() {
        // A small value stays small.
        let times = (1_000_000 / size).min(size).clamp(10, 100);
        let [of_push, of_push_logged] = [&plain, &appending].map(|server| {
            let list = open(&server.url()).synced(&key);
            stored(list.set(messages(size)));
            counted(server, "evalsha", times, |n| stored(list.push(message(n))))
        });
        let [of_bare, of_bare_logged] = [&plain, &appending].map(|server| {
            let peer = redis::Client::open(server.url()).and_then(|url| url.get_connection());
            let mut peer = peer.expect("the server is there");
            fill_bare(&mut peer, size);
            counted(server, "rpush", times, |n| push_bare(&mut peer, n))
        });
        let bare = [SENT, RECEIVED, IN_SCRIPTS, LOG].map(|what| format!("{RPUSH}, {what}"));
        let bare = bare.each_ref().map(String::as_str);
        for ([sent, received, time, log], plain, logged) in [
            ([SENT, RECEIVED, IN_SCRIPTS, LOG], of_push, of_push_logged),
            (bare, of_bare, of_bare_logged),
        ] {
            figures.add(sent, "bytes", size, plain[0]);
            figures.add(received, "bytes", size, plain[1]);
            figures.add(time, "us", size, plain[2]);
            figures.add(log, "bytes", size, logged[3]);
        }
    }
}

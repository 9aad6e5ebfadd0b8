//! Many processes that change one key: what each change costs does not grow as they do.

use std::sync::Barrier;
use std::thread;

use support::Server;
use synced_memory::{Memory, SyncedMemory, Written};

use crate::line::{DEADLINE, quick};

const WRITERS: u64 = 32;
const CHANGES: u64 = 40;

#[derive(SyncedMemory)]
struct Shared {
    #[synced(default)]
    count: u64,
    list: Vec<u64>,
}

/// All writers change the key at once; returns how many attempts the server got for each change.
fn attempts_for_each(server: &Server, change: impl Fn(&SyncedShared, u64) + Sync) -> f64 {
    let open = |_| {
        // The timeout is so long that no change is given up on a busy machine.
        let memory: Memory = quick(server.url()).timeout(DEADLINE).build().unwrap();
        Shared::attach(&memory)
    };
    let writers: Vec<_> = (0..WRITERS).map(open).collect();
    let barrier = Barrier::new(writers.len());
    server.reset_stats();
    thread::scope(|scope| {
        for (writer, state) in (0..).zip(&writers) {
            let (barrier, change) = (&barrier, &change);
            scope.spawn(move || {
                barrier.wait();
                (0..CHANGES).for_each(|n| change(state, writer * CHANGES + n));
            });
        }
    });
    let attempts = server.command_count("eval") + server.command_count("evalsha");
    let attempts = u32::try_from(attempts).unwrap();
    f64::from(attempts) / f64::from(u32::try_from(WRITERS * CHANGES).unwrap())
}

/// If all that are refused try again at once, about half as many attempts as there are writers are
/// made for each change.
#[test]
fn many_writers_of_one_key_make_few_attempts_for_each_change() {
    let server = Server::redis().start();
    let add = attempts_for_each(&server, |state, _| {
        assert_eq!(state.add_count(1).unwrap(), Written::Stored);
    });
    let push = attempts_for_each(&server, |state, n| {
        assert_eq!(state.list().push(n).unwrap(), Written::Stored);
    });
    let closure = attempts_for_each(&server, |state, _| {
        state.update_count(|count| *count += 1).unwrap();
    });
    let state = Shared::open(&server.url()).unwrap();
    assert_eq!(state.count().unwrap(), 2 * WRITERS * CHANGES);
    let mut list = state.list().get().unwrap();
    list.sort_unstable();
    assert!(list.into_iter().eq(0..WRITERS * CHANGES), "each once");
    for (kind, attempts) in [("add", add), ("push", push), ("closure", closure)] {
        assert!(attempts < 10.0, "{attempts} attempts for each {kind}");
    }
}

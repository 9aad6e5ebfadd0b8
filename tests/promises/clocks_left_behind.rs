//! Rule 8: the stamps of a process that was never connected are by its host's own clock. Whoever
//! adopts its journal moves them to the server's clock.

use std::time::Duration;

use support::{Child, FakeClock};
use synced_memory::Key;
use tempfile::TempDir;

use crate::line::Line;

const HOUR: Duration = Duration::from_secs(3_600);

/// When another process writes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Other {
    Before,
    After,
}

/// A process that is never connected writes, and crashes; its host's clock is wrong, and another
/// process writes before or after it. What is stored once its journal was delivered?
fn left(other: Other, wrong: impl Fn(&FakeClock)) -> String {
    let (line, clock, journal) = (Line::new(), FakeClock::new(), TempDir::new().unwrap());
    wrong(&clock);
    let url = format!("{}?journal={}", line.proxy.url(), journal.path().display());
    let start = || {
        let program = env!("CARGO_BIN_EXE_clock_writer");
        let mut child = Child::spawn_with(program, [&url], |command| clock.apply(command));
        assert_eq!(child.recv(), "ready");
        child
    };
    let (others, key) = (line.open_directly(), Key::<String>::new("n"));
    let write = || others.set(&key, "other".to_owned()).unwrap();

    if other == Other::Before {
        write();
    }
    line.proxy.refuse(true);
    let mut crashed = start();
    assert_eq!(crashed.ask("set n left"), "Ok(Queued)");
    assert_eq!(crashed.ask("connected"), "false");
    crashed.kill();
    if other == Other::After {
        write();
    }

    line.proxy.refuse(false);
    let mut adopter = start();
    assert_eq!(adopter.ask("flush"), "Ok(())");
    others.get(&key).unwrap().unwrap()
}

#[test]
fn what_a_process_wrote_that_was_never_connected_competes_by_the_server_s_clock() {
    for wrong in [
        (|_| ()) as fn(&FakeClock),
        |clock| clock.ahead(HOUR),
        |clock| clock.behind(HOUR),
    ] {
        assert_eq!(left(Other::Before, wrong), "left");
        assert_eq!(left(Other::After, wrong), "other");
    }
}

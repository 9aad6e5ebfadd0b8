//! Child processes that die with the test process, even if that is killed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually;

type Order = (Command, Sender<io::Result<Child>>);

/// The kernel ties a parent-death signal to the *thread* that forked. Tests run on threads that
/// end early, so one thread that lives as long as the process starts them all.
static LAUNCHER: LazyLock<Sender<Order>> = LazyLock::new(|| {
    let (orders, inbox) = mpsc::channel::<Order>();
    thread::Builder::new()
        .name("launcher".to_owned())
        .spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        })
        .expect("a thread can be started");
    orders
});

/// A command for `program` that the kernel kills when this process ends.
pub(crate) fn guarded(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a command made by [`guarded`].
pub(crate) fn spawn(command: Command) -> Child {
    let (reply, answer) = mpsc::channel();
    let what = format!("{command:?}");
    LAUNCHER
        .send((command, reply))
        .expect("the launcher lives as long as the process");
    match answer.recv().expect("the launcher answers") {
        Ok(child) => child,
        Err(error) => {
            panic!("cannot start {what}: {error} (setpriv is in util-linux; run .ci/test)")
        }
    }
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal)
        .expect("a child that is not yet waited for can be signalled");
}

/// Stops the process as if its host had hung, and returns once it has stopped.
pub(crate) fn freeze(child: &Child) {
    signal(child, Signal::STOP);
    eventually(Duration::from_secs(5), "the process is stopped", || {
        state(child) == Some('T')
    });
}

pub(crate) fn thaw(child: &Child) {
    signal(child, Signal::CONT);
}

/// The state letter of `/proc/<pid>/stat`, which follows the parenthesised name.
fn state(child: &Child) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

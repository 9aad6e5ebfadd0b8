use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{self, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{freeze, guarded, signal, spawn, thaw};
use crate::wait::{eventually_some, poll};

const DEADLINE: Duration = Duration::from_secs(20);

/// Another process that reads and prints lines; killed on drop. Its stderr is the test's.
///
/// A helper program of this package is a file in `tests/src/bin/`, and its path
/// `env!("CARGO_BIN_EXE_<name>")`.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Child {
    /// Runs a program.
    pub fn spawn<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Self::spawn_with(program, args, |_| ())
    }

    /// Runs a program with an environment of its own: `|command| clock.apply(command)`.
    pub fn spawn_with<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
        adjust: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = guarded(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        adjust(&mut command);
        let mut process = spawn(command);
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            process,
            stdin,
            lines,
        }
    }

    /// Writes a line to its stdin.
    #[track_caller]
    pub fn send(&mut self, line: impl AsRef<str>) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        writeln!(stdin, "{}", line.as_ref())
            .and_then(|()| stdin.flush())
            .expect("the process reads its stdin");
    }

    /// The next line of its stdout, within 20 s.
    #[track_caller]
    pub fn recv(&mut self) -> String {
        self.recv_within(DEADLINE)
            .unwrap_or_else(|| panic!("the process printed nothing for {DEADLINE:?}"))
    }

    /// The next line of its stdout, if it comes within `deadline`; panics if there is no more to
    /// come.
    #[track_caller]
    pub fn recv_within(&mut self, deadline: Duration) -> Option<String> {
        match self.lines.recv_timeout(deadline) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                let ended = poll(DEADLINE, || {
                    self.process.try_wait().expect("a child can be waited for")
                });
                panic!("the process closed its stdout: {ended:?}")
            }
        }
    }

    /// The lines that it has printed and the test has not read, up to the end of its stdout.
    pub fn unread_lines(&mut self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// Sends a line and returns the next one.
    #[track_caller]
    pub fn ask(&mut self, line: impl AsRef<str>) -> String {
        self.send(line);
        self.recv()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Closes its stdin: the polite way to end it.
    pub fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&mut self) {
        signal(&self.process, Signal::TERM);
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill().expect("a child can be killed");
        self.process.wait().expect("a killed child ends");
    }

    /// Stops it as if its host had hung (SIGSTOP).
    pub fn freeze(&mut self) {
        freeze(&self.process);
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&mut self) {
        thaw(&self.process);
    }

    /// Waits for its end; panics when it has not ended within `deadline`.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        eventually_some(deadline, "the process ended", || {
            self.process.try_wait().expect("a child can be waited for")
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

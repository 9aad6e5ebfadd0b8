use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use crate::child::Child;
use crate::port::Address;
use crate::process::{guarded, spawn};
use crate::venv;
use crate::wait::poll;

const DEADLINE: Duration = Duration::from_secs(30);

/// Reads snippets as JSON strings, one a line, and answers each with what it printed and its error.
const DRIVER: &str = r"
import contextlib, io, json, sys, traceback
names = {'__name__': '__main__'}
for line in sys.stdin:
    printed, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(json.loads(line), '<test>', 'exec'), names)
    except BaseException:
        error = traceback.format_exc()
    print(json.dumps({'printed': printed.getvalue(), 'error': error}), flush=True)
";

/// Runs a program in Python, with `synced-memory` 0.1.3 installed and `REDIS_HOST` and `REDIS_PORT`
/// pointing at `server` (a [`Server`](crate::Server), a [`Proxy`](crate::Proxy) or a port), and
/// waits for its end. Returns what it printed, without the last newline; panics with its stderr
/// when it fails.
#[track_caller]
pub fn python(server: &impl Address, code: &str) -> String {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let (printed, complained) = (dir.path().join("out"), dir.path().join("err"));
    let create =
        |path: &Path| File::create(path).expect("a file can be made in the temporary directory");
    let mut command = guarded(venv::python());
    command
        .arg("-c")
        .arg(code)
        .stdin(Stdio::null())
        .stdout(create(&printed))
        .stderr(create(&complained));
    point_at(&mut command, server.port());
    let mut process = spawn(command);
    let ended = poll(DEADLINE, || {
        process.try_wait().expect("a child can be waited for")
    });
    if ended.is_none() {
        let _ = process.kill();
        let _ = process.wait();
    }
    let read =
        |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    assert!(
        ended.is_some_and(|status| status.success()),
        "the Python program failed ({ended:?}):\n{}\n{}",
        read(&printed),
        read(&complained)
    );
    read(&printed).trim_end_matches('\n').to_owned()
}

/// A Python process that keeps its names between snippets; killed on drop.
#[derive(Debug)]
pub struct Python {
    child: Child,
}

impl Python {
    /// Starts it, pointing at a [`Server`](crate::Server), a [`Proxy`](crate::Proxy) or a port.
    pub fn against(server: &impl Address) -> Self {
        let port = server.port();
        Self {
            child: Child::spawn_with(venv::python(), ["-c", DRIVER], |command| {
                point_at(command, port);
            }),
        }
    }

    /// Runs a snippet; returns what it printed, without the last newline. Panics with the traceback
    /// when it fails.
    #[track_caller]
    pub fn run(&mut self, code: &str) -> String {
        self.try_run(code)
            .unwrap_or_else(|error| panic!("the Python snippet failed:\n{error}"))
    }

    /// Runs a snippet that may fail; its error is the traceback.
    #[track_caller]
    pub fn try_run(&mut self, code: &str) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Answer {
            printed: String,
            error: Option<String>,
        }
        let answer = self
            .child
            .ask(serde_json::to_string(code).expect("a string is JSON"));
        let answer: Answer = serde_json::from_str(&answer).expect("the driver answers in JSON");
        answer
            .error
            .map_or_else(|| Ok(answer.printed.trim_end_matches('\n').to_owned()), Err)
    }
}

fn point_at(command: &mut Command, port: u16) {
    command
        .env("REDIS_HOST", "127.0.0.1")
        .env("REDIS_PORT", port.to_string())
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONIOENCODING", "utf-8");
}

//! A server behind a line that a test takes down and up.

use std::time::Duration;

use support::{Dragonfly, Proxy, Server, eventually};
use synced_memory::{Builder, DeadLetter, Key, Memory, SyncedMemory};
use tempfile::TempDir;

use crate::sizes::Size;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Line {
    pub(crate) server: Server,
    pub(crate) proxy: Proxy,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self::to(Server::redis().start())
    }

    /// A line to a server that keeps every acknowledged write over a restart.
    pub(crate) fn durable() -> Self {
        Self::to(durable())
    }

    fn to(server: Server) -> Self {
        let proxy = Proxy::to(&server);
        Self { server, proxy }
    }

    /// A memory on this line that reconnects quickly.
    pub(crate) fn builder(&self) -> Builder {
        quick(self.proxy.url())
    }

    pub(crate) fn open(&self) -> Memory {
        self.builder().build().unwrap()
    }

    /// A memory on this line that has time for values of this size.
    pub(crate) fn open_for(&self, size: Size) -> Memory {
        let timeout = size.timeout(Duration::from_millis(500));
        self.builder().timeout(timeout).build().unwrap()
    }

    /// A memory that does not use the line.
    pub(crate) fn open_directly(&self) -> Memory {
        quick(self.server.url()).build().unwrap()
    }

    /// A memory that does not use the line, and whose reads return what the server holds, even on a
    /// busy machine.
    pub(crate) fn open_patiently(&self) -> Memory {
        quick(self.server.url()).timeout(DEADLINE).build().unwrap()
    }

    /// Handles of a state: of a memory on this line, and of one that does not use it.
    pub(crate) fn attach<S: SyncedMemory>(&self) -> (S::Handle, S::Handle) {
        (S::attach(&self.open()), S::attach(&self.open_directly()))
    }

    /// Takes the line down, and returns once the memory on it has noticed.
    pub(crate) fn down(&self, memory: &Memory) {
        self.proxy.refuse(true);
        self.proxy.cut();
        wait_disconnected(memory);
    }

    /// Takes the line up again. The memories on it reconnect by themselves.
    pub(crate) fn up(&self) {
        self.proxy.refuse(false);
    }

    /// Takes the line up again, and returns once this memory is connected and has an answer to all
    /// that it had queued.
    pub(crate) fn deliver(&self, memory: &Memory) {
        self.up();
        memory.flush(DEADLINE).unwrap();
        wait_connected(memory);
    }
}

pub(crate) fn durable() -> Server {
    Server::redis()
        .arg("appendonly", "yes")
        .arg("appendfsync", "always")
        .start()
}

/// A memory that tries to reconnect so often that a test does not wait for it.
pub(crate) fn quick(url: impl Into<String>) -> Builder {
    Memory::builder()
        .url(url)
        .backoff(Duration::from_millis(1), Duration::from_millis(10))
}

/// Runs a check with two memories on each backend, one after the other. `name`: one that no other
/// test uses.
pub(crate) fn on_every_backend(name: &str, check: impl Fn(&Memory, &Memory)) {
    let (redis, valkey, another) = (
        Server::redis().start(),
        Server::valkey().start(),
        Server::redis().start(),
    );
    let (dragonfly, directory) = (Dragonfly::over(&another), TempDir::new().unwrap());
    let file = format!("sqlite:{}", directory.path().join("shared.db").display());
    for url in [
        redis.url(),
        valkey.url(),
        dragonfly.url(),
        format!("memory:{name}"),
        file,
    ] {
        // With a long timeout a read returns what the backend holds, even on a busy machine.
        let open = || quick(url.clone()).timeout(DEADLINE).build().unwrap();
        check(&open(), &open());
    }
}

/// Forgets the dead letters of a memory, and returns them.
pub(crate) fn forget_dead_letters(memory: &Memory) -> Vec<DeadLetter> {
    let letters = memory.dead_letters();
    for letter in &letters {
        letter.forget().unwrap();
    }
    letters
}

pub(crate) fn wait_disconnected(memory: &Memory) {
    eventually(DEADLINE, "the loss is noticed", || {
        !memory.status().connected
    });
}

pub(crate) fn wait_connected(memory: &Memory) {
    eventually(DEADLINE, "the memory is connected", || {
        memory.status().connected
    });
}

/// Whether requests hold a call of the script that makes attempts, which is sent as EVAL once and
/// then as EVALSHA. The one that reads has another number of arguments.
pub(crate) fn commits(requests: &[u8]) -> bool {
    commit_count(requests) > 0
}

pub(crate) fn commit_count(requests: &[u8]) -> usize {
    let count = |text: &[u8]| {
        let windows = requests.windows(text.len());
        windows.filter(|window| *window == text).count()
    };
    let reads = [&b"*9\r\n$4\r\nEVAL"[..], b"*9\r\n$7\r\nEVAL"];
    count(b"\r\nEVAL") - reads.into_iter().map(count).sum::<usize>()
}

/// Waits until writes of this memory get a later stamp than this one.
pub(crate) fn wait_for_later_stamp(memory: &Memory, stamp: Option<u64>) {
    let probe = memory.synced(&Key::<u64>::new("probe"));
    eventually(DEADLINE, "the clock has moved on", || {
        probe.set(1).unwrap();
        probe.last_modified().unwrap() > stamp
    });
    probe.delete().unwrap();
}

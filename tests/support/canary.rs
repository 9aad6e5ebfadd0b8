use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const NAP: Duration = Duration::from_millis(1);

/// How late this machine wakes threads: a thread that sleeps for a millisecond at a time, and notes
/// by how much it overslept.
///
/// The bounds on what this library does are in addition to that: other tests run beside this one,
/// and a handover to another thread or process waits for a CPU.
#[derive(Debug)]
pub struct Canary {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    latest: AtomicU64,
    naps: AtomicU64,
}

impl Canary {
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let watch = move || {
            while !seen.stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                thread::sleep(NAP);
                let late = began.elapsed().saturating_sub(NAP);
                seen.latest.fetch_max(
                    u64::try_from(late.as_micros()).unwrap_or(u64::MAX),
                    Ordering::Relaxed,
                );
                seen.naps.fetch_add(1, Ordering::Release);
            }
        };
        Self {
            shared,
            thread: Some(thread::spawn(watch)),
        }
    }

    /// The largest lateness since this was last called. Waits for the nap that is under way.
    pub fn lateness(&self) -> Duration {
        let before = self.shared.naps.load(Ordering::Acquire);
        while self.shared.naps.load(Ordering::Acquire) == before {
            thread::sleep(NAP / 4);
        }
        Duration::from_micros(self.shared.latest.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How long threads of a process were ready to run and had no CPU, all together since they began.
/// Threads count if `is_meant` accepts their names. Work that passes through several processes is
/// late by what each of them has waited. A canary does not show that: it needs next to no CPU time,
/// and so hardly waits.
pub fn time_without_cpu(pid: u32, is_meant: impl Fn(&str) -> bool) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let waited = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let numbers = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let waited = numbers.split(' ').nth(1)?.parse().ok()?;
        is_meant(name.trim_end()).then(|| Duration::from_nanos(waited))
    };
    tasks.filter_map(waited).sum()
}

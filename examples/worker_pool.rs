//! Several workers share a pool of jobs, and each job is handed to one of them. First by `pop`, for
//! work that may be lost with its worker; then for work that must be done: a job stays in the state
//! until it is done, and a worker that died in the middle of one gets it again.
//!
//! ```text
//! cargo run --example worker_pool
//! ```
//!
//! Needs no server: the workers are threads with a memory of their own each, as processes would
//! have, and share what is in this process; or what `SYNCED_MEMORY_URL` names.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use synced_memory::{ErrorKind, Result, SyncedMemory};

const WORKERS: u32 = 4;
const JOBS: u32 = 100;

#[derive(SyncedMemory)]
#[synced(prefix = "worker-pool:")]
struct Pool {
    jobs: Vec<u32>,
    /// One value, since nothing is atomic between two.
    #[synced(nested, default)]
    work: Work,
    /// How often each job was done.
    done: BTreeMap<u32, u32>,
}

/// Jobs that must be done.
#[derive(Clone, Default, Serialize, Deserialize, SyncedMemory)]
struct Work {
    jobs: Vec<u32>,
    /// The job that each worker is running, by the worker's name.
    running: BTreeMap<String, u32>,
}

fn run(pool: &SyncedPool, job: u32) -> Result<()> {
    // Added, and not written by a closure: the adds of all workers count, also those that wait for
    // the backend.
    pool.done().at(&job).add(1).map(drop)
}

/// Repeats a call until it is answered. A `pop` that failed took nothing, or its element goes back
/// by itself; `begin` finds the job that a failed call of it may have moved.
fn next(mut take: impl FnMut() -> Result<Option<u32>>) -> Result<Option<u32>> {
    loop {
        match take() {
            Err(error) => match error.kind() {
                ErrorKind::Unavailable | ErrorKind::InDoubt | ErrorKind::Conflict => {
                    thread::sleep(Duration::from_millis(20));
                }
                _ => return Err(error),
            },
            taken => return taken,
        }
    }
}

/// A job that was popped is this worker's alone, and gone from the state.
fn work_by_pop(pool: &SyncedPool) -> Result<u32> {
    let mut count = 0;
    while let Some(job) = next(|| pool.jobs().pop())? {
        run(pool, job)?;
        count += 1;
    }
    Ok(count)
}

/// Moves a job from `jobs` to `running`, in one confirmed call: no other worker has moved the job
/// that it returns.
fn begin(pool: &SyncedPool, me: &str) -> Result<Option<u32>> {
    pool.synced_work().confirmed().update(|work| {
        if let Some(begun) = work.running.get(me) {
            return Some(*begun); // before a restart, or by a call that was `InDoubt`
        }
        let job = work.jobs.pop()?;
        work.running.insert(me.to_owned(), job);
        Some(job)
    })
}

fn work_that_must_be_done(pool: &SyncedPool, me: &str) -> Result<u32> {
    let mut count = 0;
    while let Some(job) = next(|| begin(pool, me))? {
        run(pool, job)?;
        pool.work().running().remove(me)?;
        count += 1;
    }
    Ok(count)
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let url = env::var("SYNCED_MEMORY_URL")
        .ok()
        .filter(|url| !url.is_empty());
    let url = url.unwrap_or_else(|| "memory:worker-pool".to_owned());
    let pool = Pool::open(&url)?;
    pool.memory().purge()?; // what an earlier run may have left behind

    pool.jobs().set((0..JOBS).collect())?;
    println!(
        "{JOBS} jobs by pop: {:?}",
        all_workers(&url, |pool, _| work_by_pop(pool))?
    );
    assert_each_was_done_once(&pool)?;

    pool.work().jobs().set((0..JOBS).collect())?;
    let unfinished = begin(&pool, "worker-0")?;
    println!(
        "worker-0 dies while it is at job {:?}",
        unfinished.ok_or("there are jobs")?
    );
    let counts = all_workers(&url, |pool, number| {
        work_that_must_be_done(pool, &format!("worker-{number}"))
    })?;
    println!("{JOBS} jobs that must be done: {counts:?}");
    assert_each_was_done_once(&pool)?;
    assert!(pool.work().running().is_empty()?, "nothing is left over");
    pool.memory().purge()?;
    Ok(())
}

/// Starts the workers and waits for them; returns how many jobs each of them has done.
fn all_workers(
    url: &str,
    work: impl Fn(&SyncedPool, u32) -> Result<u32> + Sync,
) -> Result<Vec<u32>> {
    thread::scope(|scope| {
        let start = |number| {
            let work = &work;
            scope.spawn(move || work(&Pool::open(url)?, number))
        };
        let workers: Vec<_> = (0..WORKERS).map(start).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("no worker panics"))
            .collect()
    })
}

fn assert_each_was_done_once(pool: &SyncedPool) -> Result<()> {
    let done = pool.done().to_map()?;
    assert!(done.keys().copied().eq(0..JOBS), "each job was done");
    assert!(done.values().all(|times| *times == 1), "and once: {done:?}");
    pool.done().clear().map(drop)
}

//! The server is killed and started again under a writer: what the writer sees, that nothing is
//! lost, and which calls fail because only the server can answer them.
//!
//! ```text
//! cargo run --example outage
//! ```
//!
//! It starts a redis-server of its own (which must be installed).

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use synced_memory::{ErrorKind, Memory, SyncedMemory, Written};
use synced_memory_examples::{RedisServer, wait_until};

#[derive(SyncedMemory)]
struct Job {
    #[synced(default)]
    step: u64,
    #[synced(default)]
    message: String,
    /// Not read before the outage.
    owner: Option<String>,
    todo: Vec<String>,
}

/// The results of some calls.
#[derive(Debug, Default)]
struct Summary {
    stored: u32,
    queued: u32,
    longest: Duration,
}

/// Works for a hundred steps: sets a field, and reads it back.
fn work(job: &SyncedJob) -> synced_memory::Result<Summary> {
    let mut summary = Summary::default();
    for _ in 0..100 {
        let started = Instant::now();
        let step = job.step()? + 1;
        match job.set_step(step)? {
            Written::Stored => summary.stored += 1,
            Written::Queued => summary.queued += 1,
            Written::Superseded => panic!("no other process writes here"),
        }
        assert_eq!(
            job.step()?,
            step,
            "reads go on, and show this process's own writes"
        );
        summary.longest = summary.longest.max(started.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    Ok(summary)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut server = RedisServer::on_free_port();
    let job = Job::open(&server.url())?;
    job.todo().push("tidy up".to_string())?;

    println!("the server is there");
    let summary = work(&job)?;
    println!("  {summary:?}");
    assert!(summary.stored > 0, "the server answers");

    println!("the server is killed");
    server.kill();
    let summary = work(&job)?;
    println!("  {summary:?}");
    assert!(
        summary.queued > 0 && summary.longest < Duration::from_secs(1),
        "no call waits for long, and none fails"
    );
    job.set_message("written during the outage".to_string())?;

    let status = job.memory().status();
    println!(
        "  connected: {}, {} keys pending for {:?}",
        status.connected, status.pending, status.oldest_pending
    );
    println!(
        "  last error: {}",
        status
            .last_error
            .as_ref()
            .map_or_else(String::new, ToString::to_string)
    );
    assert!(!status.connected);
    assert_eq!(
        status.pending, 2,
        "a hundred writes to one key are one, so there are `step` and `message`"
    );

    // A call that only the server can answer is an error, and changes nothing: a read of a value
    // that was never read before, a confirmed write, and a call that takes an element for one
    // caller alone.
    let unanswered = [
        job.owner().unwrap_err(),
        job.synced_step().confirmed().set(0).unwrap_err(),
        job.todo().pop().unwrap_err(),
    ];
    assert!(
        unanswered
            .iter()
            .all(|error| error.kind() == ErrorKind::Unavailable),
        "{unanswered:?}"
    );
    println!("  an error: {}", unanswered[2]);
    assert_eq!(job.memory().status().pending, 2, "none of these is queued");
    let undelivered = job.memory().flush(Duration::from_millis(100)).unwrap_err();
    println!("  flush: {undelivered}");

    println!("the server is started again");
    server.start();
    job.memory().flush(Duration::from_secs(10))?;
    wait_until("the memory is connected", || {
        job.memory().status().connected
    });
    let status = job.memory().status();
    println!(
        "  connected: {}, {} keys pending",
        status.connected, status.pending
    );
    assert_eq!(status.pending, 0);

    // Another process, or a memory of its own as here, finds everything on the server.
    let other = Job::attach(&Memory::open(&server.url())?).snapshot()?;
    println!(
        "  on the server: step {}, message {:?}",
        other.step, other.message
    );
    assert_eq!(
        (other.step, other.message.as_str()),
        (200, "written during the outage")
    );
    assert_eq!(
        (other.owner, other.todo),
        (None, vec!["tidy up".to_string()])
    );
    assert_eq!(
        job.memory().status().dead_letters,
        0,
        "every queued write was made"
    );
    assert_eq!(
        job.todo().pop()?.as_deref(),
        Some("tidy up"),
        "and now it is handed to this caller alone"
    );

    let summary = work(&job)?;
    println!("  {summary:?}");
    assert!(summary.stored > 0, "the server answers");
    Ok(())
}

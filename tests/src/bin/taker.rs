//! Another process that takes elements out of the list `jobs`. It reads commands, one a line.
//!
//! `taker <url>` says `opened`. `take`: takes the first one, and says which. `work`: takes the
//! first one again and again, until `stop`, and says `job <n>` for each; answered with `stopped`,
//! and how many calls were in doubt. `rest`: how many writes wait, and how many dead letters there
//! are. `flush`: delivers all. `claim <from> <to>`: inserts these into the set `claims`, confirmed,
//! until that is known or in doubt, and says `true`, `false` or `InDoubt` for each, in one line.

use std::collections::HashSet;
use std::io::stdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use synced_memory::{ErrorKind, Key, Memory, Synced};

const DEADLINE: Duration = Duration::from_secs(60);

fn main() {
    let url = std::env::args().nth(1).expect("taker <url>");
    let memory = Memory::builder()
        .url(url)
        .backoff(Duration::from_millis(5), Duration::from_millis(50));
    let memory = memory.build().expect("it opens");
    let jobs = memory.synced(&Key::<Vec<u64>>::new("jobs"));
    let claims = memory
        .synced(&Key::<HashSet<u64>>::new("claims"))
        .confirmed();
    println!("opened");
    let mut work = None;
    for line in stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["take"] => println!("{:?}", jobs.remove(0).map_err(|error| error.kind())),
            ["work"] => {
                let is_over = Arc::new(AtomicBool::new(false));
                let (jobs, stop) = (jobs.clone(), Arc::clone(&is_over));
                work = Some((is_over, thread::spawn(move || take_all(&jobs, &stop))));
            }
            ["stop"] => {
                let (is_over, thread) = work.take().expect("it works");
                is_over.store(true, Ordering::Relaxed);
                println!(
                    "stopped {}",
                    thread.join().expect("no call fails for another reason")
                );
            }
            ["rest"] => {
                let status = memory.status();
                println!("{} {}", status.pending, status.dead_letters);
            }
            ["flush"] => println!("{:?}", memory.flush(DEADLINE)),
            ["claim", from, to] => {
                let [from, to] = [from, to].map(|number| number.parse::<u64>().expect("a number"));
                let said: Vec<String> = (from..to).map(|member| claim(&claims, member)).collect();
                println!("{}", said.join(" "));
            }
            _ => panic!("unknown command: {line}"),
        }
    }
}

/// Takes jobs until `is_over` is set; returns how many calls were in doubt.
fn take_all(jobs: &Synced<Vec<u64>>, is_over: &AtomicBool) -> u64 {
    let mut in_doubt = 0;
    while !is_over.load(Ordering::Relaxed) {
        match jobs.remove(0) {
            Ok(Some(job)) => println!("job {job}"),
            Ok(None) => thread::park_timeout(Duration::from_millis(5)),
            Err(error) => match error.kind() {
                // It goes back by itself.
                ErrorKind::InDoubt => in_doubt += 1,
                ErrorKind::Unavailable | ErrorKind::Conflict => {
                    thread::park_timeout(Duration::from_millis(1));
                }
                kind => panic!("{kind:?}: {error}"),
            },
        }
    }
    in_doubt
}

fn claim(claims: &Synced<HashSet<u64>>, member: u64) -> String {
    loop {
        match claims.insert(member) {
            Ok(is_ours) => return is_ours.to_string(),
            Err(error) => match error.kind() {
                ErrorKind::InDoubt => return "InDoubt".to_owned(),
                ErrorKind::Unavailable | ErrorKind::Conflict => {
                    thread::park_timeout(Duration::from_millis(1));
                }
                kind => panic!("{kind:?}: {error}"),
            },
        }
    }
}

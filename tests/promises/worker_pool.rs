//! Jobs that many processes take off one list: each is handed to one of them, whatever happens to
//! the server and the line.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use support::Direction::{ToClient, ToServer};
use support::{Child, FakeClock, Proxy, eventually};
use synced_memory::Key;

use crate::line::{DEADLINE, Line, durable, quick};

const JOBS: u64 = 1_000;

fn jobs() -> Key<Vec<u64>> {
    Key::new("jobs")
}

fn taker(url: &str) -> Child {
    let child = Child::spawn(env!("CARGO_BIN_EXE_taker"), [url]);
    ready(child)
}

fn ready(mut child: Child) -> Child {
    assert_eq!(child.recv(), "opened");
    child
}

#[test]
fn each_job_is_handed_to_one_worker_while_the_server_is_killed_twice_and_frozen_once() {
    let server = durable();
    let list = quick(server.url()).build().unwrap().synced(&jobs());
    list.set((0..JOBS).collect()).unwrap();
    let mut workers: Vec<Child> = (0..4).map(|_| taker(&server.url())).collect();
    for worker in &mut workers {
        worker.send("work");
    }
    let mut handed: HashMap<u64, u32> = HashMap::new();
    let (mut count, mut faults) = (0, 0);
    let began = Instant::now();
    while (handed.len() as u64) < JOBS {
        assert!(
            began.elapsed() < 6 * DEADLINE,
            "{} of {JOBS} jobs were handed out",
            handed.len()
        );
        for worker in &mut workers {
            while let Some(line) = worker.recv_within(Duration::from_millis(1)) {
                let job = line
                    .strip_prefix("job ")
                    .unwrap_or_else(|| panic!("{line}"));
                *handed.entry(job.parse().unwrap()).or_default() += 1;
                count += 1;
                if count % 250 == 0 && faults < 3 {
                    break;
                }
            }
        }
        match (count / 250, faults) {
            (1.., 0) | (3.., 2) => {
                server.kill();
                server.start();
                faults += 1;
            }
            (2.., 1) => {
                server.freeze();
                let frozen = Instant::now();
                eventually(DEADLINE, "it was frozen for two seconds", || {
                    frozen.elapsed() >= Duration::from_secs(2)
                });
                server.thaw();
                faults += 1;
            }
            _ => {}
        }
    }
    let mut in_doubt = 0;
    for worker in &mut workers {
        worker.send("stop");
        loop {
            let line = worker.recv();
            match line.split_once(' ') {
                Some(("job", job)) => *handed.entry(job.parse().unwrap()).or_default() += 1,
                Some(("stopped", many)) => break in_doubt += many.parse::<u64>().unwrap(),
                _ => panic!("{line}"),
            }
        }
    }
    for worker in &mut workers {
        assert_eq!(worker.ask("flush"), "Ok(())");
        assert_eq!(
            worker.ask("rest"),
            "0 0",
            "nothing waits, and there is no dead letter"
        );
    }
    let twice: Vec<_> = handed.iter().filter(|(_, times)| **times != 1).collect();
    eprintln!("{in_doubt} calls were in doubt, {:?}", began.elapsed());
    assert!(twice.is_empty(), "handed out more than once: {twice:?}");
    assert_eq!((handed.len() as u64, faults), (JOBS, 3));
    assert_eq!(list.confirmed().get().unwrap(), [0; 0], "none is left over");
}

/// Half the time the line holds. One that breaks within so many bytes each time carries no script.
fn cut_or_not(proxy: &Proxy, random: &mut fastrand::Rng, most_bytes: u64) {
    let direction = if random.bool() { ToClient } else { ToServer };
    if random.bool() {
        proxy.cut_after_bytes(direction, random.u64(0..most_bytes));
    } else {
        proxy.do_not_cut();
    }
}

#[test]
fn each_job_is_handed_to_one_worker_over_lines_that_are_cut_again_and_again() {
    const JOBS: u64 = 200;
    let line = Line::new();
    let list = line.open_directly().synced(&jobs());
    list.set((0..JOBS).collect()).unwrap();
    let proxies: Vec<Proxy> = (0..3).map(|_| Proxy::to(&line.server)).collect();
    let handed: Vec<u64> = thread::scope(|scope| {
        let work = |proxy: &Proxy| {
            let memory = quick(proxy.url())
                .timeout(Duration::from_millis(50))
                .build()
                .unwrap();
            let (mut handed, mut random, began) =
                (Vec::new(), fastrand::Rng::with_seed(7), Instant::now());
            let jobs = memory.synced(&jobs());
            loop {
                assert!(began.elapsed() < 6 * DEADLINE, "{:?}", memory.status());
                cut_or_not(proxy, &mut random, 1_500);
                match jobs.remove(0) {
                    Ok(Some(job)) => handed.push(job),
                    // A job that is in doubt, here or at another worker, may come back.
                    Ok(None) if memory.status().pending == 0 && random.u8(0..100) == 0 => break,
                    Ok(None) | Err(_) => thread::yield_now(),
                }
            }
            proxy.do_not_cut();
            memory.flush(DEADLINE).unwrap();
            assert_eq!(
                memory.status().dead_letters,
                0,
                "{:?}",
                memory.dead_letters()
            );
            handed
        };
        let threads: Vec<_> = proxies
            .iter()
            .map(|proxy| scope.spawn(move || work(proxy)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut all = handed.clone();
    all.extend(list.get().unwrap());
    all.sort_unstable();
    assert_eq!(
        all,
        (0..JOBS).collect::<Vec<_>>(),
        "each is with one worker, or in the list"
    );
    eprintln!("{} were handed out", handed.len());
}

#[test]
fn of_many_processes_that_insert_one_member_one_gets_true_whatever_their_clocks_say() {
    const MEMBERS: u64 = 60;
    let line = Line::new();
    let clocks = [FakeClock::new(), FakeClock::new(), FakeClock::new()];
    clocks[0].ahead(Duration::from_secs(3_600));
    clocks[1].behind(Duration::from_secs(3_600));
    let proxies: Vec<Proxy> = clocks.iter().map(|_| Proxy::to(&line.server)).collect();
    let mut children: Vec<Child> = proxies
        .iter()
        .zip(&clocks)
        .map(|(proxy, clock)| {
            ready(Child::spawn_with(
                env!("CARGO_BIN_EXE_taker"),
                [proxy.url()],
                |command| clock.apply(command),
            ))
        })
        .collect();
    for child in &mut children {
        child.send(format!("claim 0 {MEMBERS}"));
    }
    let mut random = fastrand::Rng::with_seed(11);
    let said: Vec<Vec<String>> = children
        .iter_mut()
        .map(|child| {
            loop {
                for proxy in &proxies {
                    cut_or_not(proxy, &mut random, 3_000);
                }
                if let Some(line) = child.recv_within(Duration::from_millis(5)) {
                    break line.split(' ').map(str::to_owned).collect();
                }
            }
        })
        .collect();
    proxies.iter().for_each(Proxy::do_not_cut);
    let claims = line
        .open_directly()
        .get(&Key::<HashSet<u64>>::new("claims"))
        .unwrap()
        .unwrap();
    let mut in_doubt = 0;
    for (at, member) in (0..MEMBERS).enumerate() {
        let of_member = |what: &str| said.iter().filter(|said| said[at] == what).count();
        let (ours, doubtful) = (of_member("true"), of_member("InDoubt"));
        in_doubt += doubtful;
        assert!(ours <= 1, "{member}: {ours} processes got `true`");
        assert!(
            ours == 1 || doubtful > 0,
            "{member}: no process got `true`, and none is in doubt"
        );
        assert!(
            claims.contains(&member) || ours == 0 && of_member("false") == 0,
            "{member} is not there"
        );
    }
    eprintln!("{in_doubt} of {} calls were in doubt", 3 * MEMBERS);
}

//! One process of a fleet: it does what the lines of its stdin say, and answers each with a line.

use std::time::Duration;
use std::{fs, thread};

use redis::AsyncCommands;
use rustix::time::{ClockId, clock_gettime};
use support::eventually;
use synced_memory::{ErrorKind, Key, Memory, ReadPolicy, Synced, Watch, Written};
use synced_memory_benches::processes::{answer, now, orders};
use tokio::runtime::Runtime;

/// The key that all processes of a fleet have in common.
pub const SHARED: &str = "near0";

const DEADLINE: Duration = Duration::from_secs(60);

/// The arguments: the kind, the URL of the server, and how many connections.
pub fn run(arguments: &[String]) {
    let [kind, url, count] = arguments else {
        panic!("expected a kind, a URL and a number");
    };
    let count = count.parse().expect("a number");
    match kind.as_str() {
        "near" => Member::open(url, count, ReadPolicy::Near).serve(),
        "through" => Member::open(url, count, ReadPolicy::Through).serve(),
        "broadcast" => tracking_sockets(url, count),
        "cached" => caching_connections(url, count),
        other => panic!("{other} is no kind"),
    }
}

/// A process with some memories.
struct Member {
    memories: Vec<Memory>,
    near: Vec<Synced<u64>>,
    watches: Vec<Watch<u64>>,
}

fn near_key(number: usize) -> Key<u64> {
    Key::named(format!("near{number}"))
}

impl Member {
    fn open(url: &str, count: usize, policy: ReadPolicy) -> Self {
        let open = |_| {
            let builder = Memory::builder().url(url).read_policy(policy);
            builder.build().expect("a memory")
        };
        let memories: Vec<Memory> = (0..count).map(open).collect();
        wait_for(&memories, "connected", |memory| memory.status().connected);
        Self {
            memories,
            near: Vec::new(),
            watches: Vec::new(),
        }
    }

    fn serve(mut self) {
        answer("ready");
        for order in orders() {
            let words: Vec<_> = order.split(' ').collect();
            let number = |at: usize| words[at].parse::<usize>().expect("a number");
            match words[0] {
                "hold" => self.hold(number(1)),
                "watch" => self.watch(number(1)),
                "deliver" => self.deliver(number(1)),
                "down" => {
                    wait_for(&self.memories, "away", |memory| !memory.status().connected);
                    answer("down");
                }
                "up" => self.reconnect(),
                "change" => self.change(words[1], words[2], number(3)),
                "resident" => answer(&resident().to_string()),
                "cpu" => answer(&cpu_time().to_string()),
                other => panic!("{other} is no order"),
            }
        }
    }

    /// Holds so many near keys in each memory, until all are current.
    fn hold(&mut self, keys: usize) {
        let before = resident();
        for memory in &self.memories {
            let of_memory = (0..keys).map(|number| memory.synced(&near_key(number)));
            self.near.extend(of_memory);
        }
        for view in &self.near {
            view.find().expect("the server answers");
        }
        eventually(DEADLINE, "all are current", || {
            self.near.iter().all(is_current)
        });
        answer(&(resident() - before).to_string());
    }

    /// Watches so many keys in each memory.
    fn watch(&mut self, keys: usize) {
        for memory in &self.memories {
            let of_memory = (0..keys).map(|number| memory.watch(&near_key(number)));
            self.watches.extend(of_memory);
        }
        for watch in &mut self.watches {
            watch.recv().expect("the server answers");
        }
        answer("watching");
    }

    /// Watches the shared key in each memory, up to that value. Answers each value that has reached
    /// all of them with the value, and when the last one got it.
    fn deliver(&mut self, last: usize) {
        let last = last as u64;
        let (sender, seen) = std::sync::mpsc::channel();
        let mut watches: Vec<_> = self
            .memories
            .iter()
            .map(|memory| memory.watch(&Key::<u64>::new(SHARED)))
            .collect();
        for watch in &mut watches {
            watch.recv().expect("the server answers");
        }
        let count = watches.len();
        // One thread waits for all of them, as a server's executor does.
        thread::spawn(move || {
            runtime().block_on(async move {
                let mut tasks = tokio::task::JoinSet::new();
                for mut watch in watches {
                    let sender = sender.clone();
                    tasks.spawn(async move {
                        loop {
                            let value = watch.changed().await.expect("a value").unwrap_or(0);
                            sender.send((value, now())).expect("it is waited for");
                            if value >= last {
                                return;
                            }
                        }
                    });
                }
                tasks.join_all().await;
            });
        });
        answer("watching");
        let (mut value, mut reached) = (1, 0);
        for (seen, when) in seen {
            reached += usize::from(seen >= value);
            if reached == count {
                answer(&format!("{value} {when}"));
                (value, reached) = (value + 1, 0);
            }
        }
    }

    /// Waits until each memory is connected, and all that it holds is current; answers when that
    /// was for each.
    fn reconnect(&mut self) {
        let held = self.near.len() / self.memories.len();
        let mut when = vec![None; self.memories.len()];
        eventually(DEADLINE, "all are connected", || {
            for (at, (when, memory)) in when.iter_mut().zip(&self.memories).enumerate() {
                let near = &self.near[at * held..(at + 1) * held];
                if when.is_none() && memory.status().connected && near.iter().all(is_current) {
                    *when = Some(now());
                }
            }
            when.iter().all(Option::is_some)
        });
        let when = when.iter().flatten().map(u64::to_string);
        answer(&when.collect::<Vec<_>>().join(" "));
    }

    /// Makes so many changes of one key with each memory; answers how many were stored, and how
    /// many were given up since others wrote all the time.
    fn change(&mut self, kind: &str, key: &str, count: usize) {
        let memory = &self.memories[0];
        let number = memory.synced(&Key::<u64>::named(key.to_owned()));
        let list = memory.synced(&Key::<Vec<u64>>::named(key.to_owned()));
        let (mut stored, mut refused) = (0, 0);
        for n in 0..count as u64 {
            let outcome = match kind {
                "add" => number.add(1).map(|written| written == Written::Stored),
                "push" => list.push(n).map(|written| written == Written::Stored),
                "closure" => number.update(|number| *number += 1).map(|()| true),
                other => panic!("{other} is no change"),
            };
            match outcome {
                Ok(is_stored) => stored += u64::from(is_stored),
                Err(error) if error.kind() == ErrorKind::Conflict => refused += 1,
                Err(error) => panic!("{kind}: {error}"),
            }
        }
        answer(&format!("{stored} {refused}"));
        // The views stay: whoever holds none forgets its records on the server.
        self.near.push(number);
    }
}

fn is_current(view: &Synced<u64>) -> bool {
    view.staleness() == Some(Duration::ZERO)
}

fn wait_for(memories: &[Memory], what: &str, mut is: impl FnMut(&Memory) -> bool) {
    eventually(DEADLINE, what, || memories.iter().all(&mut is));
}

/// How much memory this process has, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    1024 * kib.expect("a line").parse::<u64>().expect("a number")
}

/// The CPU time of this process, in seconds.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a time").as_secs_f64()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Connections that are told of every write below the prefix, and do nothing else.
fn tracking_sockets(url: &str, count: usize) {
    let client = redis::Client::open(format!("{url}?protocol=resp3")).expect("a URL");
    runtime().block_on(async {
        let mut held = Vec::new();
        for _ in 0..count {
            let connection = client.get_multiplexed_async_connection().await;
            let mut connection = connection.expect("the server is there");
            let mut command = redis::cmd("CLIENT");
            command.arg("TRACKING").arg("ON").arg("BCAST");
            let () = command
                .arg("PREFIX")
                .arg("memory:")
                .query_async(&mut connection)
                .await
                .expect("it is tracked");
            held.push(connection);
        }
        answer("ready");
        std::future::pending::<()>().await;
    });
}

/// Connections of redis-rs with its cache, each with the shared key in it.
fn caching_connections(url: &str, count: usize) {
    let client = redis::Client::open(format!("{url}?protocol=resp3")).expect("a URL");
    runtime().block_on(async {
        let mut held = Vec::new();
        for _ in 0..count {
            let cache = redis::caching::CacheConfig::new();
            let config = redis::AsyncConnectionConfig::new().set_cache_config(cache);
            let connection = client.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connection.await.expect("the server is there");
            let _: Option<String> = connection
                .get(format!("memory:{SHARED}"))
                .await
                .expect("the server answers");
            held.push(connection);
        }
        answer("ready");
        std::future::pending::<()>().await;
    });
}

//! Several kinds of trouble at once, and what everybody has who uses a cluster: TLS, names of
//! hosts, large values, journals.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Child, Cluster, Direction, Proxy, Server, eventually_some};
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory, Written};

use crate::{DEADLINE, builder};

/// How many elements each of the lists has from which many pop.
const ALL: u32 = 2_000;

/// Does the work while these slots move from primary to primary, and nodes freeze.
fn disturbed(
    cluster: &Cluster,
    slots: &[u16],
    lasts: Duration,
    work: impl FnOnce(&AtomicBool) + Send,
) {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let worker = scope.spawn(|| work(&ends));
        let end = Instant::now() + lasts;
        let mut turn = 0;
        while Instant::now() < end {
            let slot = slots[turn % slots.len()];
            cluster.move_slot(slot, (cluster.owner(slot) + 1) % 3);
            if turn % 4 == 0 {
                let node = &cluster.nodes()[turn / 4 % 3];
                node.freeze();
                thread::sleep(Duration::from_millis(if turn % 8 == 0 {
                    700
                } else {
                    1_300
                }));
                node.thaw();
            }
            turn += 1;
        }
        ends.store(true, Ordering::Relaxed);
        worker.join().unwrap();
    });
}

#[test]
fn what_is_popped_is_popped_once_while_slots_move_and_nodes_freeze() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let memory = builder(&cluster).build().unwrap();
    let keys: Vec<Key<Vec<u32>>> = (0..3).map(|n| Key::named(format!("list{n}"))).collect();
    for (n, key) in (0..).zip(&keys) {
        let all = (n * ALL..(n + 1) * ALL).collect();
        assert_eq!(memory.set(key, all).unwrap(), Written::Stored);
    }
    let slots: Vec<u16> = (0..3)
        .map(|n| cluster.slot_of(&format!("memory:list{n}")))
        .collect();
    let mut popped = Vec::new();
    let in_doubt = AtomicU32::new(0);
    let others = AtomicU32::new(0);
    disturbed(&cluster, &slots, Duration::from_secs(12), |ends| {
        popped = thread::scope(|scope| {
            let poppers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let memory = builder(&cluster).build().unwrap();
                        let mut popped = Vec::new();
                        while !ends.load(Ordering::Relaxed) {
                            for key in &keys {
                                match memory.synced(key).pop() {
                                    Ok(item) => popped.extend(item),
                                    Err(error) if error.kind() == ErrorKind::InDoubt => {
                                        in_doubt.fetch_add(1, Ordering::Relaxed);
                                    }
                                    Err(error) => {
                                        assert!(
                                            matches!(
                                                error.kind(),
                                                ErrorKind::Unavailable | ErrorKind::Conflict
                                            ),
                                            "{error}"
                                        );
                                        others.fetch_add(1, Ordering::Relaxed);
                                    }
                                }
                            }
                        }
                        memory.flush(DEADLINE).unwrap();
                        popped
                    })
                })
                .collect();
            poppers
                .into_iter()
                .flat_map(|popper| popper.join().unwrap())
                .collect()
        });
    });
    // Confirmed: while a node is away that was just frozen, other reads show what was last known.
    let list = |key| {
        eventually_some(DEADLINE, "the list is read", || {
            memory.synced(key).confirmed().get().ok()
        })
    };
    let left: Vec<u32> = keys.iter().flat_map(list).collect();
    let distinct: BTreeSet<u32> = popped.iter().chain(&left).copied().collect();
    assert_eq!(
        distinct.len(),
        popped.len() + left.len(),
        "something was popped twice, or was popped and is there: {} popped, {} left",
        popped.len(),
        left.len()
    );
    let missing = 3 * ALL as usize - distinct.len();
    assert!(
        missing <= in_doubt.load(Ordering::Relaxed) as usize,
        "{missing} {in_doubt:?}"
    );
}

#[test]
fn closures_add_up_while_slots_move_and_nodes_freeze() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let keys: Vec<Key<u32>> = (0..3).map(|n| Key::named(format!("count{n}"))).collect();
    let slots: Vec<u16> = (0..3)
        .map(|n| cluster.slot_of(&format!("memory:count{n}")))
        .collect();
    let (made, in_doubt) = (AtomicU32::new(0), AtomicU32::new(0));
    let write = |ends: &AtomicBool| {
        let memory = builder(&cluster).build().unwrap();
        while !ends.load(Ordering::Relaxed) {
            for key in &keys {
                match memory.synced(key).confirmed().add(1) {
                    Ok(_) => _ = made.fetch_add(1, Ordering::Relaxed),
                    Err(error) if error.kind() == ErrorKind::InDoubt => {
                        in_doubt.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => {}
                }
                let increment = |count: &mut u32| *count += 1;
                match memory.synced(key).confirmed().update(increment) {
                    Ok(()) => _ = made.fetch_add(1, Ordering::Relaxed),
                    Err(error) if error.kind() == ErrorKind::InDoubt => {
                        in_doubt.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => {}
                }
            }
        }
        memory.flush(DEADLINE).unwrap();
    };
    disturbed(&cluster, &slots, Duration::from_secs(8), |ends| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| write(ends));
            }
        });
    });
    let memory = builder(&cluster).build().unwrap();
    let counts = keys.iter().map(|key| memory.get(key).unwrap().unwrap_or(0));
    let (counted, made, in_doubt) = (
        counts.sum::<u32>(),
        made.into_inner(),
        in_doubt.into_inner(),
    );
    assert!((made..=made + in_doubt).contains(&counted));
}

#[test]
fn connections_are_cut_at_every_byte() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let proxies = cluster.proxied();
    let builder = || {
        Memory::builder()
            .url(proxies.url())
            .addresses(proxies.addresses())
            .timeout(Duration::from_millis(500))
            .backoff(Duration::from_millis(20), Duration::from_millis(200))
    };
    let memory = builder().build().unwrap();
    let key = |n: u32| Key::<Vec<u32>>::named(format!("k{}", n % 20));
    for n in 0..20 {
        memory.set(&key(n), Vec::new()).unwrap();
    }
    let mut pushed = 0;
    for at in (0..1_500).step_by(11) {
        for proxy in proxies.proxies() {
            let direction = if at % 2 == 0 {
                Direction::ToServer
            } else {
                Direction::ToClient
            };
            proxy.cut_after_bytes(direction, at / 2);
        }
        for _ in 0..10 {
            memory.synced(&key(pushed)).push(pushed).unwrap();
            pushed += 1;
        }
        let slot = cluster.slot_of(&format!("memory:k{}", at % 20));
        cluster.move_slot(slot, (cluster.owner(slot) + 1) % 3);
    }
    proxies.proxies().iter().for_each(Proxy::do_not_cut);
    memory.flush(DEADLINE).unwrap();
    let mut found: Vec<u32> = (0..20)
        .flat_map(|n| memory.get(&key(n)).unwrap().unwrap())
        .collect();
    found.sort_unstable();
    assert!(
        found.iter().copied().eq(0..pushed),
        "{} of {pushed}",
        found.len()
    );
}

#[derive(SyncedMemory)]
#[synced(near)]
struct Large {
    #[synced(default)]
    text: String,
}

#[test]
fn large_values_are_read_and_written_while_their_slot_moves() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let open = || {
        Memory::builder()
            .url(cluster.url())
            .timeout(Duration::from_secs(3))
            .build()
            .unwrap()
    };
    let [memory, other] = [(); 2].map(|()| open());
    let reader = Large::attach(&memory);
    let text = |n: usize| format!("{n}{}", "x".repeat(2 << 20));
    let key = Key::<String>::new("text");
    let slot = cluster.slot_of("memory:text");
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                cluster.move_slot(slot, (cluster.owner(slot) + 1) % 3);
            }
        });
        for n in 0..25 {
            let text = text(n);
            other.set(&key, text.clone()).unwrap();
            if let Err(error) = other.flush(DEADLINE) {
                end.store(true, Ordering::Relaxed);
                panic!("{error} {:?}", other.status());
            }
            let began = Instant::now();
            let soon = Duration::from_secs(10);
            let mut is_there = [false; 2];
            while is_there != [true; 2] {
                is_there = [
                    reader.text().unwrap() == text,
                    other.get(&key).unwrap().as_ref() == Some(&text),
                ];
                if began.elapsed() > soon {
                    end.store(true, Ordering::Relaxed);
                    panic!("{n} {is_there:?} {:?}", memory.status());
                }
            }
        }
        end.store(true, Ordering::Relaxed);
    });
}

#[test]
fn with_a_replica_that_hangs_nothing_is_stored_and_nothing_is_doubled() {
    let cluster = Cluster::start(Server::redis, 1, 1);
    for url in [cluster.nodes()[0].url(), cluster.url()] {
        let memory = Memory::builder()
            .url(format!("{url}/?replicas=1"))
            .timeout(Duration::from_millis(500))
            .build()
            .unwrap();
        let key = Key::<Vec<u32>>::new("list");
        let list = memory.synced(&key);
        memory.set(&key, Vec::new()).unwrap();
        let mut pushed = 0;
        for round in 0..2 {
            cluster.nodes()[1].freeze();
            for _ in 0..10 {
                list.push(pushed).unwrap();
                pushed += 1;
            }
            assert!(memory.status().pending > 0);
            let confirmed = list.confirmed().push(1_000 + round);
            assert!(confirmed.is_err(), "the replica does not have it");
            cluster.nodes()[1].thaw();
            memory.flush(DEADLINE).unwrap();
        }
        let found = memory.get(&key).unwrap().unwrap();
        let plain: Vec<u32> = found.iter().copied().filter(|n| *n < 1_000).collect();
        assert!(plain.iter().copied().eq(0..pushed), "{plain:?}");
    }
}

#[test]
fn what_a_killed_process_left_in_its_journal_is_made_once_whatever_the_seeds_are() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let dir = tempfile::tempdir().unwrap();
    let slots = ["items", "count", "entries"].map(|key| cluster.slot_of(&format!("memory:{key}")));
    let options = format!("journal={}&name=ours", dir.path().join("j").display());
    for round in 0..4 {
        let seed = &cluster.nodes()[round % 3];
        let url = format!("redis-cluster://127.0.0.1:{}?{options}", seed.port());
        let name = format!("w{round}");
        let mut child = Child::spawn(env!("CARGO_BIN_EXE_contributor"), [&url, &name]);
        assert_eq!(child.recv_within(DEADLINE).as_deref(), Some("opened"));
        child.send("go 1000000");
        for turn in 0..20 {
            let slot = slots[turn % 3];
            cluster.move_slot(slot, (cluster.owner(slot) + 1) % 3);
        }
        let frozen = &cluster.nodes()[(round + 1) % 3];
        frozen.freeze();
        thread::sleep(Duration::from_millis(1_500));
        child.kill();
        frozen.thaw();
    }
    let url = format!("{}?{options}", cluster.url());
    let memory = Memory::builder().url(url).build().unwrap();
    memory.flush(DEADLINE).unwrap();
    let items = memory
        .get(&Key::<Vec<String>>::new("items"))
        .unwrap()
        .unwrap();
    let count = memory.get(&Key::<usize>::new("count")).unwrap().unwrap();
    let distinct: BTreeSet<&String> = items.iter().collect();
    assert_eq!(distinct.len(), items.len(), "doubled");
    for round in 0..4 {
        let start = format!("w{round}/");
        let numbers: Vec<usize> = items
            .iter()
            .filter_map(|item| item.strip_prefix(&start)?.parse().ok())
            .collect();
        assert!(
            numbers.iter().copied().eq(0..numbers.len()),
            "{round}: {numbers:?}"
        );
    }
    assert!(count <= items.len() && count + 4 >= items.len());
}

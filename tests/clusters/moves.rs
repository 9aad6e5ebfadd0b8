//! Slots that move: nothing is lost, nothing is made twice, and nobody waits who need not.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Cluster, Server, eventually};
use synced_memory::{Key, Memory, ReadPolicy, SyncedMemory, Written};

use crate::crew::{Crew, KEYS};
use crate::{DEADLINE, builder, reader_of, soak};

/// Moves the slots of the crew's keys from primary to primary while eight processes write them.
fn crew_while_slots_move(cluster: &Cluster, rounds: usize, atomically: bool) {
    let mut crew = Crew::at(&cluster.url());
    let slots = KEYS.map(|key| cluster.slot_of(key));
    crew.work(rounds, |turn| {
        let slot = slots[turn % slots.len()];
        let to = (cluster.owner(slot) + 1) % 3;
        if atomically {
            cluster.move_slots_atomically(slot..slot + 1, to);
        } else {
            cluster.move_slot(slot, to);
        }
    });
    crew.check(builder(cluster));
}

fn rounds() -> usize {
    if soak() { 600 } else { 40 }
}

#[test]
fn nothing_is_lost_or_doubled_by_eight_processes_while_slots_move() {
    crew_while_slots_move(&Cluster::start(Server::redis, 3, 0), rounds(), false);
}

#[test]
fn the_same_holds_on_valkey() {
    crew_while_slots_move(&Cluster::start(Server::valkey, 3, 0), rounds(), false);
}

#[test]
fn the_same_holds_on_redis_6() {
    crew_while_slots_move(&Cluster::start(Server::redis_6, 3, 0), rounds(), false);
}

#[test]
fn the_same_holds_while_valkey_moves_slots_atomically() {
    crew_while_slots_move(&Cluster::start(Server::valkey, 3, 0), rounds(), true);
}

/// All keys under one tag: they are one slot, which moves in many steps.
#[test]
fn one_slot_with_many_keys_moves_under_load_and_all_of_them_go_along() {
    const KEYS: usize = 300;
    let cluster = Cluster::start(Server::redis, 3, 0);
    let tagged = || builder(&cluster).prefix("{tag}:");
    let memory = tagged().build().unwrap();
    let key = |n: usize| Key::<Vec<u32>>::named(format!("k{n}"));
    let slot = cluster.slot_of("{tag}:k0");
    for n in 0..KEYS {
        memory.set(&key(n), Vec::new()).unwrap();
    }
    let ends = AtomicBool::new(false);
    let pushed = thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (memory, ends) = (&memory, &ends);
                scope.spawn(move || {
                    let mut pushed = 0_u32;
                    while !ends.load(Ordering::Relaxed) {
                        let n = fastrand::usize(..KEYS);
                        let id = writer * 10_000_000 + pushed;
                        memory.synced(&key(n)).push(id).unwrap();
                        pushed += 1;
                    }
                    pushed
                })
            })
            .collect();
        let least = Instant::now() + Duration::from_secs(if soak() { 60 } else { 3 });
        while Instant::now() < least {
            let to = (cluster.owner(slot) + 1) % 3;
            cluster.move_slot(slot, to);
        }
        ends.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum::<u32>()
    });
    memory.flush(DEADLINE).unwrap();
    let reader = reader_of(tagged());
    let found: Vec<u32> = (0..KEYS)
        .flat_map(|n| reader.get(&key(n)).unwrap().unwrap_or_default())
        .collect();
    let distinct: BTreeSet<u32> = found.iter().copied().collect();
    assert_eq!(
        (found.len(), distinct.len()),
        (pushed as usize, pushed as usize)
    );
    assert!(pushed > 100, "{pushed} pushes are no load");
}

/// A reshard that was broken off leaves a slot open for ever.
#[test]
fn a_new_key_of_a_slot_on_the_move_is_queued_and_delays_no_other_key() {
    for program in [Server::redis, Server::valkey, Server::redis_6] {
        let cluster = Cluster::start(program, 3, 0);
        let memory = builder(&cluster).build().unwrap();
        let slot = cluster.slot_of("memory:stuck");
        let from = cluster.owner(slot);
        let moving = cluster.begin_move(slot, (from + 1) % 3);
        let stuck = Key::<u32>::new("stuck");
        let written = memory.set(&stuck, 1).unwrap();
        assert_eq!(written, Written::Queued);

        // Another key of the same server, and of each other one.
        let others: Vec<Key<u32>> = (0..30).map(|n| Key::named(format!("other{n}"))).collect();
        let end = Instant::now() + Duration::from_secs(2);
        let mut stored = 0;
        while Instant::now() < end {
            for other in &others {
                assert_eq!(memory.set(other, stored).unwrap(), Written::Stored);
                stored += 1;
            }
        }
        assert!(stored > 100, "{stored} writes in 2 s");
        let status = memory.status();
        assert_eq!(status.pending, 1);
        let error = status.last_error.expect("it says why").to_string();
        assert!(error.contains("TRYAGAIN"), "{error}");
        assert!(error.contains("memory:stuck"), "{error}");

        moving.settle();
        memory.flush(DEADLINE).unwrap();
        let reader = reader_of(builder(&cluster));
        assert_eq!(reader.get(&stuck).unwrap(), Some(1));
    }
}

#[derive(SyncedMemory)]
#[synced(near)]
struct Watched {
    #[synced(default)]
    value: u32,
}

/// How soon a near reader has what was written after a move.
const NEAR_BOUND: Duration = Duration::from_secs(2);

/// Whether the reader soon has what another process has written.
fn is_near_reader_current(writer: &Memory, reader: &SyncedWatched, value: u32) {
    assert_eq!(
        writer.set(&Key::new("value"), value).unwrap(),
        Written::Stored
    );
    eventually(NEAR_BOUND, "the near reader has it", || {
        reader.value().unwrap() == value
    });
}

#[test]
fn a_near_reader_has_the_last_value_within_two_seconds_of_a_move() {
    for program in [Server::redis, Server::valkey, Server::redis_6] {
        let cluster = Cluster::start(program, 3, 0);
        let [memory, writer] = [(); 2].map(|()| builder(&cluster).build().unwrap());
        let reader = Watched::attach(&memory);
        let slot = cluster.slot_of("memory:value");
        for round in 0..6 {
            is_near_reader_current(&writer, &reader, 2 * round);
            let to = (cluster.owner(slot) + 1) % 3;
            cluster.move_slot(slot, to);
            is_near_reader_current(&writer, &reader, 2 * round + 1);
        }
    }
}

#[test]
fn a_near_reader_has_what_is_written_while_its_slot_is_on_the_move() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let [memory, writer] = [(); 2].map(|()| builder(&cluster).build().unwrap());
    let reader = Watched::attach(&memory);
    is_near_reader_current(&writer, &reader, 1);
    let slot = cluster.slot_of("memory:value");
    let moving = cluster.begin_move(slot, (cluster.owner(slot) + 1) % 3);
    while moving.migrate_some(10) > 0 {}
    for value in 2..12 {
        is_near_reader_current(&writer, &reader, value);
    }
    moving.settle();
    is_near_reader_current(&writer, &reader, 12);
}

/// Its value and its sidecar are moved one after the other, and the script that says what has
/// changed needs both.
#[test]
fn a_long_value_is_read_while_its_slot_is_on_the_move() {
    for program in [Server::redis, Server::valkey, Server::redis_6] {
        let cluster = Cluster::start(program, 3, 0);
        let [writer, through] = [(); 2].map(|()| builder(&cluster).build().unwrap());
        let near = builder(&cluster).read_policy(ReadPolicy::Near);
        let near = near.build().unwrap();
        let list = |memory: &Memory| memory.synced(&Key::<Vec<u64>>::new("list"));
        let follower = list(&near);
        list(&writer).set((0..20_000).collect()).unwrap();
        eventually(DEADLINE, "the near reader is connected, too", || {
            follower.get().is_ok()
        });
        let (mut pushed, mut seen) = (0, 20_000);
        let mut use_it = || {
            for _ in 0..2 {
                list(&writer).push(pushed).unwrap();
                pushed += 1;
                let found = list(&through).get().unwrap().len();
                assert!(found >= seen, "{found} after {seen}");
                seen = found;
                follower.get().unwrap();
            }
        };
        use_it();
        let slot = cluster.slot_of("memory:list");
        let moves = if soak() { 10 } else { 1 };
        for _ in 0..moves {
            let moving = cluster.begin_move(slot, (cluster.owner(slot) + 1) % 3);
            use_it();
            while moving.migrate_some(1) > 0 {
                use_it();
            }
            moving.settle();
            use_it();
        }
        writer.flush(DEADLINE).unwrap();
        let expected: Vec<u64> = (0..20_000).chain(0..pushed).collect();
        assert_eq!(list(&through).get().unwrap(), expected);
        eventually(NEAR_BOUND, "the near reader has it", || {
            follower.get().unwrap() == expected
        });
    }
}

/// The new owner has the slot by a higher epoch; the old one says nothing.
#[test]
fn a_near_reader_notices_a_slot_that_changes_hands_without_a_word() {
    for program in [Server::redis, Server::valkey] {
        let cluster = Cluster::start(program, 3, 0);
        let [memory, writer] = [(); 2].map(|()| builder(&cluster).build().unwrap());
        let reader = Watched::attach(&memory);
        is_near_reader_current(&writer, &reader, 1);
        let slot = cluster.slot_of("memory:value");
        let to = (cluster.owner(slot) + 1) % 3;
        cluster.take_slot_over(slot, to);
        eventually(DEADLINE, "all nodes know of it", || {
            cluster.owner(slot) == to
        });
        is_near_reader_current(&writer, &reader, 2);
    }
}

#[test]
fn names_miss_no_key_while_slots_move() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let memory = builder(&cluster).build().unwrap();
    let names: BTreeSet<String> = (0..200).map(|n| format!("n{n}")).collect();
    for name in &names {
        memory.set(&Key::<u32>::named(name.clone()), 1).unwrap();
    }
    let slots: Vec<u16> = names
        .iter()
        .map(|name| cluster.slot_of(&format!("memory:{name}")))
        .collect();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while !ends.load(Ordering::Relaxed) {
                let slot = slots[turn % slots.len()];
                let to = (cluster.owner(slot) + 1) % 3;
                cluster.move_slot(slot, to);
                turn += 1;
            }
        });
        for _ in 0..if soak() { 500 } else { 20 } {
            let found: BTreeSet<String> = memory.names().unwrap().into_iter().collect();
            let missing: Vec<_> = names.difference(&found).collect();
            if !missing.is_empty() {
                ends.store(true, Ordering::Relaxed);
                panic!("{missing:?} are missing");
            }
        }
        ends.store(true, Ordering::Relaxed);
    });
}

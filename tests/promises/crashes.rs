//! Rules 3, 5 and 6: a crash changes nothing. Queued changes have the same outcome whether the
//! process that queued them delivers them, or the next one delivers them from the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use support::eventually;
use synced_memory::{Key, Memory, Synced, SyncedMemory};
use tempfile::TempDir;

use crate::line::{DEADLINE, Line};
use crate::sizes::{Size, with_both_sizes};

#[derive(Debug, PartialEq, SyncedMemory)]
struct State {
    #[synced(default)]
    list: Vec<i64>,
    #[synced(default)]
    map: BTreeMap<String, Vec<i64>>,
    set: BTreeSet<i64>,
    #[synced(default)]
    count: i64,
    #[synced(nested, default)]
    user: User,
    #[synced(default)]
    any: Value,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct User {
    name: String,
    age: i64,
    tags: Vec<String>,
}

/// Random draws, the same for the same seed.
struct Draws(u64);

impl Draws {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn number(&mut self) -> i64 {
        i64::try_from(self.below(5)).unwrap()
    }

    fn index(&mut self) -> usize {
        usize::try_from(self.below(4)).unwrap()
    }

    fn name(&mut self) -> String {
        ["a", "b", "c"][usize::try_from(self.below(3)).unwrap()].to_owned()
    }
}

/// Makes a random call, and returns the kind of its error, if any. A call that does not apply is an
/// error and changes nothing.
fn call(state: &SyncedState, draws: &mut Draws) -> String {
    let (n, index, name) = (draws.number(), draws.index(), draws.name());
    let (list, map, set, any, user) = (
        state.list(),
        state.map(),
        state.set(),
        state.any(),
        state.user(),
    );
    let result = match draws.below(38) {
        0..4 => list.push(n).map(drop),
        4 => list.insert(index, n).map(drop),
        5 => list.remove(index).map(drop),
        6 => list.remove_item(&n).map(drop),
        7 => list.pop().map(drop),
        8 => list.at(index).set(n).map(drop),
        9 => list.at(index).add(n).map(drop),
        10 => list.sort().map(drop),
        11 => list.retain(|item| *item != n).map(drop),
        12 => list.set(vec![n]).map(drop),
        13 => list.delete().map(drop),
        14 | 15 => map.insert(name, vec![n]).map(drop),
        16 => map.remove(&name).map(drop),
        17 | 18 => map.at(&name).push(n).map(drop),
        19 => map.at(&name).set(vec![n, n]).map(drop),
        20 => map.at(&name).delete().map(drop),
        21 => map.get_or_insert(name, vec![n]).map(drop),
        22 => map
            .extend([("a".to_owned(), vec![n]), ("b".to_owned(), vec![])])
            .map(drop),
        23 => map.at(&name).at(index).add(n).map(drop),
        24 => map.set(BTreeMap::new()).map(drop),
        25 => set.insert(n).map(drop),
        26 => set.remove(&n).map(drop),
        27 => state.add_count(n).map(drop),
        28 => state.sub_count(n).map(drop),
        29 => state.set_count(n).map(drop),
        30 => state.synced_count().delete().map(drop),
        31 => user.set_name(name).map(drop),
        32 => user.add_age(n).map(drop),
        33 => user.tags().push(name).map(drop),
        34 => state.update_user(|user| (user.age, user.name) = (user.age + 1, n.to_string())),
        35 => any.insert(name, n).map(drop),
        36 => any.insert(name, serde_json::json!([n])).map(drop),
        _ => any.at(name.as_str()).push(n).map(drop),
    };
    result
        .err()
        .map_or_else(String::new, |error| format!("{:?}", error.kind()))
}

fn calls(state: &SyncedState, seed: u64, most: u64) -> Vec<String> {
    let mut draws = Draws(seed);
    let count = draws.below(most + 1);
    (0..count).map(|_| call(state, &mut draws)).collect()
}

/// Random calls of another process. They assign nothing that the first process assigns: one of two
/// assignments would be superseded, and which calls go with it depends on how they were merged.
fn calls_of_another_process(state: &SyncedState, seed: u64) {
    let mut draws = Draws(seed);
    for _ in 0..draws.below(5) {
        let n = draws.number();
        match draws.below(5) {
            0 => state.list().push(n).map(drop),
            1 => state.add_count(n).map(drop),
            2 => state.user().tags().push(n.to_string()).map(drop),
            3 => state.map().insert("z".to_owned(), vec![n]).map(drop),
            _ => state.set().insert(n).map(drop),
        }
        .unwrap();
    }
}

/// What each call returned, what is read in the end, what was superseded and what became a dead
/// letter.
#[derive(Debug, PartialEq)]
struct Outcome {
    errors: Vec<String>,
    read: State,
    superseded: u64,
    dead_letters: Vec<(String, Vec<Value>)>,
}

fn stamps(state: &SyncedState) -> Vec<u64> {
    fn stamp<T: synced_memory::Value>(view: &Synced<T>) -> u64 {
        view.last_modified().unwrap().unwrap_or(0)
    }
    vec![
        stamp(state.list()),
        stamp(state.map()),
        stamp(state.set()),
        stamp(state.synced_count()),
        stamp(state.synced_user()),
        stamp(state.any()),
    ]
}

/// Waits until writes of `later` have stamps at or above all of `stamps`.
fn wait_for_later_stamps(later: &Memory, stamps: &[u64]) {
    let probe = later.scope("probe").synced(&Key::<u64>::new("probe"));
    eventually(DEADLINE, "the clock has moved on", || {
        probe.set(1).unwrap();
        probe.last_modified().unwrap() >= stamps.iter().copied().max()
    });
}

fn outcome(line: &Line, journal: &Path, seed: u64, crashes: bool, size: Size) -> Outcome {
    let prefix = format!("{seed}{}{size:?}:", if crashes { "crash" } else { "" });
    let open = || {
        line.builder()
            .prefix(&prefix)
            .timeout(size.timeout(Duration::from_millis(500)))
            .journal(journal)
            .build()
            .unwrap()
    };
    let mine = State::attach(&open());
    let theirs = Memory::builder()
        .url(line.server.url())
        .prefix(&prefix)
        .timeout(DEADLINE)
        .build()
        .unwrap();
    let theirs = State::attach(&theirs);
    calls(&theirs, seed, 12);
    if size == Size::Large {
        let filler = size.filler(20_000).map(i64::from);
        theirs.list().extend(filler).unwrap();
    }
    mine.snapshot().unwrap();
    line.down(mine.memory());
    let theirs_first = seed.is_multiple_of(3);
    if theirs_first {
        calls_of_another_process(&theirs, seed + 1);
        // My calls are later, although they have not read the other ones.
        wait_for_later_stamps(mine.memory(), &stamps(&theirs));
    }
    let errors = calls(&mine, seed + 2, 14);
    if !theirs_first {
        wait_for_later_stamps(theirs.memory(), &stamps(&mine));
        calls_of_another_process(&theirs, seed + 1);
    }
    let memory = mine.memory().clone();
    drop(mine);
    let memory = if crashes {
        let _ = memory.close(Duration::ZERO);
        drop(memory);
        line.up();
        open()
    } else {
        line.up();
        memory
    };
    memory.flush(DEADLINE).unwrap();
    let superseded = memory.status().superseded;
    let mut dead_letters: Vec<_> = memory
        .dead_letters()
        .into_iter()
        .map(|letter| (letter.key.replacen(&prefix, "", 1), letter.changes()))
        .collect();
    dead_letters.sort_by(|one, other| one.0.cmp(&other.0));
    let read = theirs.snapshot().unwrap();
    memory.close(DEADLINE).unwrap();
    Outcome {
        errors,
        read,
        superseded,
        dead_letters,
    }
}

with_both_sizes!(queued_changes_have_the_same_outcome_after_a_crash,);

fn queued_changes_have_the_same_outcome_after_a_crash(size: Size) {
    let seeds = if std::env::var_os("SYNCED_MEMORY_SOAK").is_some() {
        3_000
    } else {
        size.scaled(60, 6)
    };
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let mut counts = (0, 0, 0);
    for seed in (0..seeds).map(|n| 1_000 * n) {
        let [plain, crashed] =
            [false, true].map(|crashes| outcome(&line, directory.path(), seed, crashes, size));
        assert_eq!(crashed, plain, "seed {seed}");
        counts = (
            counts.0 + plain.errors.len(),
            counts.1 + plain.superseded,
            counts.2 + plain.dead_letters.len(),
        );
    }
    println!(
        "{seeds} seeds: {} calls, {} superseded, {} dead letters",
        counts.0, counts.1, counts.2
    );
    assert!(
        counts.0 > seeds.try_into().unwrap() && (counts.1 > 0 || size == Size::Large),
        "{counts:?}"
    );
}

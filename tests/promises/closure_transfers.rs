//! A closure that ran while cut off is made only if the values it saw are unchanged; otherwise it
//! becomes a dead letter. Sums over accounts stay right.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::eventually;
use synced_memory::{ErrorKind, Memory, ReadPolicy, SyncedMemory, WritePolicy};

use crate::line::{DEADLINE, Line, forget_dead_letters, quick, wait_connected, wait_disconnected};

const NAMES: [&str; 3] = ["x", "y", "z"];

/// Three accounts, stored in several ways.
#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct Bank {
    map: BTreeMap<String, i64>,
    #[synced(nested)]
    members: Accounts,
    plain: Accounts,
    list: Vec<i64>,
    array: [i64; 3],
    any: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct Accounts {
    x: i64,
    y: i64,
    z: i64,
}

const KEYS: [&str; 6] = [
    "memory:map",
    "memory:members",
    "memory:plain",
    "memory:list",
    "memory:array",
    "memory:any",
];

impl Accounts {
    fn each(&mut self) -> [&mut i64; 3] {
        [&mut self.x, &mut self.y, &mut self.z]
    }
}

/// The same balances, stored in every way.
fn bank([x, y, z]: [i64; 3]) -> Bank {
    Bank {
        map: NAMES
            .map(str::to_owned)
            .into_iter()
            .zip([x, y, z])
            .collect(),
        members: Accounts { x, y, z },
        plain: Accounts { x, y, z },
        list: vec![x, y, z],
        array: [x, y, z],
        any: json!({"x": x, "y": y, "z": z}),
    }
}

/// Moves an amount from one account to another, in each of the stored forms.
fn transfer(bank: &SyncedBank, [from, to]: [usize; 2], amount: i64) {
    let in_struct = |accounts: &mut Accounts| {
        *accounts.each()[from] -= amount;
        *accounts.each()[to] += amount;
    };
    let in_map = |map: &mut BTreeMap<String, i64>| {
        *map.get_mut(NAMES[from]).unwrap() -= amount;
        *map.get_mut(NAMES[to]).unwrap() += amount;
    };
    let in_slice = |accounts: &mut [i64]| {
        accounts[from] -= amount;
        accounts[to] += amount;
    };
    bank.update_map(in_map).unwrap();
    bank.update_members(in_struct).unwrap();
    bank.update_plain(in_struct).unwrap();
    bank.update_list(|list| in_slice(list)).unwrap();
    bank.update_array(|array| in_slice(array)).unwrap();
    let in_object = |object: &mut Value| {
        object[NAMES[from]] = (object[NAMES[from]].as_i64().unwrap() - amount).into();
        object[NAMES[to]] = (object[NAMES[to]].as_i64().unwrap() + amount).into();
    };
    bank.update_any(in_object).unwrap();
}

/// Forgets all dead letters, and returns their keys.
fn take_dead_letters(memory: &Memory) -> Vec<String> {
    let letters = forget_dead_letters(memory);
    assert!(
        letters
            .iter()
            .all(|letter| letter.reason.kind() == ErrorKind::Conflict),
        "{letters:?}"
    );
    letters.into_iter().map(|letter| letter.key).collect()
}

/// Two processes with the same policies that have both read the state.
fn two_banks(line: &Line, write: WritePolicy, read: ReadPolicy) -> [SyncedBank; 2] {
    let open = |url: String| {
        quick(url)
            .write_policy(write)
            .read_policy(read)
            .build()
            .unwrap()
    };
    let banks = [line.proxy.url(), line.server.url()].map(|url| Bank::attach(&open(url)));
    banks[1].restore(bank([1_000, 2_000, 3_000])).unwrap();
    banks[1].memory().flush(DEADLINE).unwrap();
    eventually(DEADLINE, "the first process has read it", || {
        banks[0]
            .snapshot()
            .is_ok_and(|known| known == bank([1_000, 2_000, 3_000]))
    });
    banks
}

/// Only the other process's transfer was made; each call of this one is a dead letter.
#[track_caller]
fn assert_only_theirs_was_made([mine, theirs]: &[SyncedBank; 2]) {
    assert_eq!(
        theirs.snapshot().unwrap(),
        bank([900, 2_100, 3_000]),
        "the sum is unchanged"
    );
    assert_eq!(mine.snapshot().unwrap(), bank([900, 2_100, 3_000]));
    let dead: BTreeSet<String> = take_dead_letters(mine.memory()).into_iter().collect();
    assert_eq!(dead, KEYS.map(str::to_owned).into());
    assert_eq!(
        (
            mine.memory().status().superseded,
            mine.memory().status().pending
        ),
        (0, 0)
    );
}

#[test]
fn a_transfer_made_while_cut_off_is_a_dead_letter_if_another_process_changed_the_account() {
    for write in [WritePolicy::Through, WritePolicy::Behind] {
        for (read, is_before) in [
            (ReadPolicy::Through, true),
            (ReadPolicy::Through, false),
            (ReadPolicy::Near, true),
        ] {
            let line = Line::new();
            let banks = two_banks(&line, write, read);
            let [mine, theirs] = &banks;
            line.down(mine.memory());
            if is_before {
                transfer(theirs, [0, 1], 100);
            }
            transfer(mine, [0, 2], 10);
            assert_eq!(
                mine.snapshot().unwrap(),
                bank([990, 2_000, 3_010]),
                "it reads what it wrote"
            );
            if !is_before {
                transfer(theirs, [0, 1], 100);
            }
            line.up();
            mine.memory().flush(DEADLINE).unwrap();
            assert_only_theirs_was_made(&banks);
        }
    }
}

#[test]
fn a_transfer_made_while_the_server_is_frozen_is_a_dead_letter_if_another_came_before_it() {
    for write in [WritePolicy::Through, WritePolicy::Behind] {
        let line = Line::new();
        let banks = two_banks(&line, write, ReadPolicy::Through);
        let [mine, theirs] = &banks;
        transfer(theirs, [0, 1], 100);
        line.server.freeze();
        transfer(mine, [0, 2], 10);
        wait_disconnected(mine.memory());
        line.server.thaw();
        mine.memory().flush(DEADLINE).unwrap();
        wait_connected(mine.memory());
        assert_only_theirs_was_made(&banks);
    }
}

#[test]
fn transfers_of_two_processes_that_write_behind_are_all_made_and_the_sum_is_right() {
    const TRANSFERS: i64 = 20;
    let line = Line::new();
    let open = || {
        let builder = quick(line.server.url())
            .timeout(DEADLINE)
            .write_policy(WritePolicy::Behind);
        Bank::attach(&builder.read_policy(ReadPolicy::Near).build().unwrap())
    };
    let banks = [open(), open()];
    banks[0].restore(bank([1_000, 2_000, 3_000])).unwrap();
    banks[0].memory().flush(DEADLINE).unwrap();
    eventually(DEADLINE, "the second process has read it", || {
        banks[1].snapshot().is_ok()
    });
    thread::scope(|scope| {
        for (bank, to) in banks.iter().zip([1, 2]) {
            scope.spawn(move || (0..TRANSFERS).for_each(|_| transfer(bank, [0, to], 1)));
        }
    });
    let reader = Bank::attach(&line.open_directly());
    assert_eq!(
        reader.snapshot().unwrap(),
        bank([1_000 - 2 * TRANSFERS, 2_000 + TRANSFERS, 3_000 + TRANSFERS])
    );
    assert!(
        banks
            .iter()
            .all(|bank| take_dead_letters(bank.memory()).is_empty())
    );
}

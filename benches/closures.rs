//! What a closure costs, by what it changes: a number, a short struct, one element of a list of
//! 10,000 structs, one entry of a map of 1,000; in a memory of this process, so that nothing but
//! the closure is measured.
//!
//! `cargo bench -p synced-memory-benches --bench closures`. The targets compare one version with
//! the one before: build both, and run them alternately.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use synced_memory::{Key, Memory};
use synced_memory_benches::{Side, medians, print};

const ROUNDS: usize = 25;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Visitor {
    name: String,
    age: u32,
    visits: u64,
    mail: Option<String>,
}

fn visitor(n: u64) -> Visitor {
    Visitor {
        name: format!("visitor {n}"),
        age: 30,
        visits: n,
        mail: Some(format!("{n}@example.org")),
    }
}

fn main() {
    let memory = Memory::open("memory:").expect("there is always a memory of this process");
    let number = memory.synced(&Key::<u64>::new("number"));
    number.set(0).expect("it is stored");
    let short = memory.synced(&Key::<Visitor>::new("short"));
    short.set(visitor(1)).expect("it is stored");
    let list = memory.synced(&Key::<Vec<Visitor>>::new("list"));
    list.set((0..10_000).map(visitor).collect())
        .expect("it is stored");
    let map = memory.synced(&Key::<BTreeMap<String, u64>>::new("map"));
    map.set((0..1_000).map(|n| (format!("page {n}"), n)).collect())
        .expect("it is stored");

    let mut quick: Vec<Side<'_>> = vec![
        (
            "update of a number",
            Box::new(|count| {
                (0..count).for_each(|_| number.update(|number| *number += 1).expect("it is made"));
            }),
        ),
        (
            "update of a short struct",
            Box::new(|count| {
                (0..count)
                    .for_each(|_| short.update(|short| short.visits += 1).expect("it is made"));
            }),
        ),
    ];
    let figures = medians(ROUNDS, 2_000, &mut quick);
    print(&quick, &figures);
    let mut slow: Vec<Side<'_>> = vec![
        (
            "update of one of 10,000 structs in a list",
            Box::new(|count| {
                (0..count).for_each(|_| {
                    list.update(|list| list[5_000].visits += 1)
                        .expect("it is made");
                });
            }),
        ),
        (
            "update of one of 1,000 entries of a map",
            Box::new(|count| {
                (0..count).for_each(|_| {
                    map.update(|map| *map.get_mut("page 500").expect("it is there") += 1)
                        .expect("it is made");
                });
            }),
        ),
    ];
    let figures = medians(ROUNDS, 10, &mut slow);
    print(&slow, &figures);
}

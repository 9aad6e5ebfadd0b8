//! What a closure leaves in values of very many types and stored forms: with one writer, and with
//! two at the same time.
//!
//! Each case has a seed. `SYNCED_MEMORY_SOAK=1` runs the long form; `SYNCED_MEMORY_SEED=<seed>`
//! runs one case many times, because a `HashMap` or `HashSet` has another order each time.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::table::AnyKind;

mod any;
mod calls;
mod collection_calls;
mod collections;
mod enums;
mod foreign;
mod forms;
mod newtypes;
mod older;
mod one_writer;
mod people;
mod structs;
mod table;
mod two_writers;

/// How often a case runs if its seed is given.
const REPEATS: u64 = 100;

/// Runs a case; a panic is a failure too.
fn catch(case: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let result = catch_unwind(AssertUnwindSafe(case));
    result.unwrap_or_else(|_| Err("it panicked: see above".to_owned()))
}

/// The cases of a test, and which of them failed.
struct Cases {
    test: &'static str,
    seeds: Vec<u64>,
    kinds: Vec<Box<dyn AnyKind>>,
    failed: BTreeMap<String, (usize, String)>,
    undecided: usize,
}

/// Cases that were judged.
struct Judged {
    /// The seeds of those that failed, and how.
    failed: Vec<(u64, String)>,
    /// How many take too long to be judged.
    undecided: usize,
}

impl Cases {
    fn of(test: &'static str, count: u64) -> Self {
        let seeds: Vec<u64> = match env::var("SYNCED_MEMORY_SEED") {
            Ok(seed) => vec![
                seed.parse().expect("SYNCED_MEMORY_SEED is a number");
                REPEATS.try_into().expect("it fits")
            ],
            Err(_) => Self::range(count).collect(),
        };
        Self {
            test,
            seeds,
            kinds: table::kinds(),
            failed: BTreeMap::new(),
            undecided: 0,
        }
    }

    /// The seeds: the same in each short run, and others in each long one.
    fn range(count: u64) -> Range<u64> {
        if env::var_os("SYNCED_MEMORY_SOAK").is_some() {
            let first = u64::from(fastrand::u32(..)) << 16;
            first..first + count * 100
        } else {
            0..count
        }
    }

    fn kind(&self, seed: u64) -> &dyn AnyKind {
        let kinds = u64::try_from(self.kinds.len()).expect("it fits");
        &*self.kinds[usize::try_from(seed % kinds).expect("it fits")]
    }

    fn failed(&mut self, seed: u64, what: &str) {
        let name = self.kind(seed).name().to_owned();
        let command = format!(
            "SYNCED_MEMORY_SEED={seed} cargo test -p synced-memory-tests --test promises {}",
            self.test
        );
        let (count, _) = self.failed.entry(name).or_insert_with(|| {
            (
                0,
                format!("{what}\n  seed:    {seed}\n  again:   {command}"),
            )
        });
        *count += 1;
    }

    fn add(&mut self, judged: Judged) {
        for (seed, what) in judged.failed {
            self.failed(seed, &what);
        }
        self.undecided += judged.undecided;
    }

    /// Panics if a case has failed, or if many could not be judged.
    fn end(self) {
        assert!(
            self.undecided <= self.seeds.len() / 1_000,
            "{} cases take too long to be judged",
            self.undecided
        );
        if self.failed.is_empty() {
            return;
        }
        let mut all = String::new();
        for (name, (count, first)) in &self.failed {
            writeln!(
                all,
                "{name}: {count} failed, the first of them:\n  {first}\n"
            )
            .expect("there is room");
        }
        let count: usize = self.failed.values().map(|(count, _)| count).sum();
        let (cases, types) = (self.seeds.len(), self.failed.len());
        panic!(
            "{all}{count} of {cases} cases failed, of {types} of {} types",
            self.kinds.len()
        );
    }
}

#[test]
fn there_are_very_many_types_and_each_has_its_own_name() {
    let kinds = table::kinds();
    let mut names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), kinds.len());
    assert!(names.len() >= 60, "{}", names.len());
}

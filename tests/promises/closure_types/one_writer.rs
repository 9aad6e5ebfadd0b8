//! One writer: a read after a closure returns what the closure left.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use serde_json::value::RawValue;
use synced_memory::{Key, Memory};

use super::calls::{NAME, Tested, view};
use super::table::{Kind, normal};
use super::{Cases, catch};

/// One store with three programs: one writes JSON in any form, one runs closures, one reads.
pub(super) struct Store {
    foreign: Memory,
    writer: Memory,
    reader: Memory,
    cases: AtomicU64,
}

impl Store {
    fn new() -> Self {
        let open = || Memory::open("memory:closure_types").unwrap();
        Self {
            foreign: open(),
            writer: open(),
            reader: open(),
            cases: AtomicU64::new(0),
        }
    }

    /// The scope of a new case, in each of the three memories.
    fn case(&self) -> [Memory; 3] {
        let scope = format!("case{}", self.cases.fetch_add(1, Ordering::Relaxed));
        [&self.foreign, &self.writer, &self.reader].map(|memory| memory.scope(&scope))
    }
}

/// A case of a type.
pub(super) struct OneWriter<'a, T> {
    kind: &'a Kind<T>,
    rng: Rng,
    trace: String,
}

impl<'a, T: Tested> OneWriter<'a, T> {
    pub(super) fn new(kind: &'a Kind<T>, seed: u64) -> Self {
        Self {
            kind,
            rng: Rng::with_seed(seed),
            trace: String::new(),
        }
    }

    pub(super) fn run(mut self, store: &Store) -> Result<(), String> {
        let [foreign, writer, reader] = store.case();
        let raw = Key::<Box<RawValue>>::new(NAME);
        let (mut before, stored, _) = self.kind.start(&mut self.rng);
        self.log("stored", &stored);
        foreign
            .set(&raw, RawValue::from_string(stored).expect("it is JSON"))
            .unwrap();
        self.read_by("the writer", &writer, &before)?;
        for _ in 0..self.rng.u8(1..4) {
            let call = &self.kind.calls[self.rng.usize(..self.kind.calls.len())];
            let seed = self.rng.u64(..);
            let mut after = before.clone();
            (call.by_value)(&mut after, seed);
            let after = normal(&after);
            self.log("call", call.name);
            self.log("before", &format!("{before:?}"));
            self.log("left", &format!("{after:?}"));
            (call.by_view)(&writer, &before, seed)
                .map_err(|error| self.failed("the call", &error))?;
            let stored = foreign.get(&raw).unwrap().expect("it is there");
            self.log("then", stored.get());
            let after = match view::<T>(&writer).get() {
                Ok(found) if (call.may_leave)(&before, &found) => found,
                _ => after,
            };
            self.read_by("the writer", &writer, &after)?;
            self.read_by("the reader", &reader, &after)?;
            before = after;
        }
        Ok(())
    }

    fn read_by(&self, who: &str, memory: &Memory, expected: &T) -> Result<(), String> {
        match view::<T>(memory).get() {
            Ok(found) if found.same(expected) => Ok(()),
            Ok(found) => Err(self.failed(&format!("{who} reads"), &format!("{found:?}"))),
            Err(error) => Err(self.failed(&format!("{who} reads"), &error.to_string())),
        }
    }

    fn log(&mut self, what: &str, text: &str) {
        writeln!(self.trace, "  {:8} {text}", format!("{what}:")).expect("there is room");
    }

    fn failed(&self, who: &str, what: &str) -> String {
        format!("{who}: {what}\n{}", self.trace.trim_end())
    }
}

#[test]
fn reads_return_what_a_closure_left_whatever_was_stored() {
    let mut cases = Cases::of("reads_return_what_a_closure_left", 6_500);
    for seeds in cases.seeds.clone().chunks(1_000) {
        let store = Store::new();
        for seed in seeds {
            if let Err(what) = catch(|| cases.kind(*seed).one_writer(&store, *seed)) {
                cases.failed(*seed, &what);
            }
        }
    }
    cases.end();
}

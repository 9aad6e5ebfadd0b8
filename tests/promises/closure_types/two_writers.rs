//! Two writers: the stored value decodes, and is what one of them left or the merge of both. A
//! change that was not made is a dead letter.

use std::collections::{BTreeMap, HashSet};
use std::sync::Barrier;
use std::thread;

use fastrand::Rng;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use synced_memory::{Memory, WritePolicy};

use super::calls::{Call, NAME, Tested, change, view};
use super::collections::{are_all_removed_by_both, decided};
use super::table::{Kind, normal};
use super::{Cases, Judged, catch};
use crate::line::{DEADLINE, Line, quick};

/// How many cases share one outage.
const BATCH_SIZE: usize = 500;

/// The result of a case.
pub(super) enum Verdict {
    Fine,
    Wrong(String),
}

/// Two closures on one value, without its type parameter.
pub(super) trait Pair: Send + Sync {
    /// The stored form of the value before the closures.
    fn stored(&self) -> &str;

    /// Reads the value, so that the memory knows it.
    fn read(&self, memory: &Memory) -> Result<(), String>;

    fn mine(&self, memory: &Memory) -> Result<(), String>;

    fn theirs(&self, memory: &Memory) -> Result<(), String>;

    /// Runs `update` instead of the chosen call: as the first process, or as the second.
    fn update(&self, memory: &Memory, is_first: bool) -> Result<(), String>;

    /// Judges what is `stored` after the first closure ran while cut off and the second one was
    /// made meanwhile.
    fn judge(&self, stored: &str, is_dead: bool, memory: &Memory) -> Verdict;

    /// Judges what is `stored` after both ran `update` at the same time.
    fn judge_updates(&self, stored: &str, dead: [bool; 2], memory: &Memory) -> Verdict;
}

/// A case of a type.
pub(super) struct TwoWriters<'a, T> {
    kind: &'a Kind<T>,
    start: T,
    stored: String,
    is_plain: bool,
    calls: [&'a Call<T>; 2],
    seeds: [u64; 2],
}

impl<'a, T: Tested> TwoWriters<'a, T> {
    pub(super) fn new(kind: &'a Kind<T>, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (start, stored, is_plain) = kind.start(&mut rng);
        let closures: Vec<_> = kind.calls.iter().filter(|call| call.is_closure).collect();
        let calls = [0, 1].map(|_| closures[rng.usize(..closures.len())]);
        Self {
            kind,
            start,
            stored,
            is_plain,
            calls,
            seeds: [rng.u64(..), rng.u64(..)],
        }
    }

    fn left(&self, at: usize) -> T {
        let mut left = self.start.clone();
        (self.calls[at].by_value)(&mut left, self.seeds[at]);
        normal(&left)
    }

    /// The stored list without some of the elements that were not stored in this spelling before,
    /// or in others as well.
    fn without_respelled(&self, stored: &str) -> Vec<T> {
        let read = |text: &str| serde_json::from_str::<Vec<Value>>(text).unwrap_or_default();
        let (now, before) = (read(stored), read(&self.stored));
        let decoded = |item: &Value| serde_json::from_value::<T>(Value::Array(vec![item.clone()]));
        let is_same = |one: &Value, other: &Value| match (decoded(one), decoded(other)) {
            (Ok(one), Ok(other)) => one.same(&other),
            _ => false,
        };
        let is_new = |item: &Value| {
            let mut respelled = before.iter().filter(|other| *other != item);
            !before.contains(item) || respelled.any(|other| is_same(item, other))
        };
        let is_new: Vec<bool> = now.iter().map(is_new).collect();
        let new = is_new.iter().filter(|is_new| **is_new).count();
        let without = |gone: u32| {
            let mut at = 0;
            let kept = now.iter().zip(&is_new).filter(|(_, is_new)| {
                at += u32::from(**is_new);
                !**is_new || gone >> (at - 1) & 1 == 0
            });
            let kept = kept.map(|(item, _)| item.clone()).collect();
            serde_json::from_value(Value::Array(kept)).ok()
        };
        (1..1_u32 << new.min(6)).filter_map(without).collect()
    }

    /// Whether each entry of a map of `IndexMap`s is as one of both left it, in any order.
    fn entries_merged(&self, left: [&T; 2], end: &T) -> bool {
        let entries = |value: &T| match serde_json::to_value(value).expect("it is JSON") {
            Value::Object(entries) if self.kind.name.contains("IndexMap") => Some(entries),
            _ => None,
        };
        let [Some(start), Some(mine), Some(theirs), Some(end)] =
            [&self.start, left[0], left[1], end].map(entries)
        else {
            return false;
        };
        let maps = [&start, &mine, &theirs, &end];
        maps.iter().flat_map(|map| map.keys()).all(|name| {
            let [start, mine, theirs, end] = maps.map(|map| map.get(name).cloned().map(sorted));
            if theirs == start {
                end == mine
            } else {
                mine == start && end == theirs || mine == theirs
            }
        })
    }

    /// Whether only the order of an `IndexMap` changed: members of objects are compared without
    /// their order if they contain sets or were removed.
    fn is_reordered(&self, left: &T) -> bool {
        let [left, start] = [left, &self.start]
            .map(|value| sorted(serde_json::to_value(value).expect("it is JSON")));
        self.kind.name.contains("IndexMap") && left == start
    }

    fn updated(&self, order: &[usize]) -> T {
        let mut left = self.start.clone();
        for at in order {
            change(&mut left, self.seeds[*at]);
            left = normal(&left);
        }
        left
    }

    fn describe(&self, what: &str, calls: [&str; 2], left: [&T; 2], then: &str) -> String {
        let ([mine, theirs], [my_call, their_call], start) = (left, calls, &self.start);
        format!(
            "{what}\n  stored:  {}\n  before:  {start:?}\n  first:   {my_call}: {mine:?}\n  second:  \
             {their_call}: {theirs:?}\n  then:    {then}",
            self.stored
        )
    }

    /// The stored value, which the memory must read too.
    fn end(stored: &str, memory: &Memory) -> Result<T, String> {
        let end: T = serde_json::from_str(stored)
            .map_err(|error| format!("what is stored does not decode: {error}"))?;
        match view::<T>(memory).get() {
            Ok(read) if read.same(&end) => Ok(end),
            Ok(read) => Err(format!("the first process reads something else: {read:?}")),
            Err(error) => Err(format!("the first process cannot read it: {error}")),
        }
    }
}

impl<T: Tested> Pair for TwoWriters<'_, T> {
    fn stored(&self) -> &str {
        &self.stored
    }

    fn read(&self, memory: &Memory) -> Result<(), String> {
        view::<T>(memory)
            .get()
            .map(drop)
            .map_err(|error| format!("it cannot be read: {error}"))
    }

    fn mine(&self, memory: &Memory) -> Result<(), String> {
        (self.calls[0].by_view)(memory, &self.start, self.seeds[0])
    }

    fn theirs(&self, memory: &Memory) -> Result<(), String> {
        (self.calls[1].by_view)(memory, &self.start, self.seeds[1])
    }

    fn update(&self, memory: &Memory, is_first: bool) -> Result<(), String> {
        let seed = self.seeds[usize::from(!is_first)];
        view::<T>(memory)
            .update(|value| change(value, seed))
            .map_err(|error| error.to_string())
    }

    fn judge(&self, stored: &str, is_dead: bool, memory: &Memory) -> Verdict {
        let (start, mine, theirs) = (&self.start, &self.left(0), &self.left(1));
        let describe = |what: &str| {
            self.describe(
                what,
                self.calls.map(|call| call.name),
                [mine, theirs],
                stored,
            )
        };
        let end = match Self::end(stored, memory) {
            Ok(end) => end,
            Err(what) => return Verdict::Wrong(describe(&what)),
        };
        if is_dead {
            let is_rewritten = || {
                let [now, before] = [stored, self.stored()].map(in_order);
                now != before
            };
            return if theirs.same(start) && is_rewritten() {
                // The type compares values as equal and yet writes them in another order each time:
                // no part of it can be compared.
                Verdict::Fine
            } else if theirs.same(start) {
                Verdict::Wrong(describe(
                    "a dead letter, although the second process changed nothing",
                ))
            } else if self.is_plain && !start.same(mine) && (self.kind.apart)(start, mine, theirs) {
                Verdict::Wrong(describe(
                    "a dead letter, although the second process changed other parts",
                ))
            } else if end.same(theirs) {
                Verdict::Fine
            } else {
                Verdict::Wrong(describe("a dead letter, and yet it changed something"))
            };
        }
        let is_removed_by_both =
            || end.same(theirs) && are_all_removed_by_both(start, mine, Some(theirs));
        let is_merged = |end: &T| (self.kind.merged)(start, mine, theirs, end);
        if is_merged(&end) || is_removed_by_both() {
            Verdict::Fine
        } else if self.without_respelled(stored).iter().any(is_merged)
            || self.entries_merged([mine, theirs], &end)
        {
            // The second process wrote the same element in another spelling, which makes it another
            // element.
            Verdict::Fine
        } else if end.same(theirs) {
            Verdict::Wrong(describe("the first change is lost, and is no dead letter"))
        } else if end.same(mine) && self.is_reordered(theirs) {
            Verdict::Fine
        } else if end.same(mine) {
            Verdict::Wrong(describe("the second change was overwritten"))
        } else {
            Verdict::Wrong(describe("neither what one of both left, nor their merge"))
        }
    }

    fn judge_updates(&self, stored: &str, dead: [bool; 2], memory: &Memory) -> Verdict {
        let (mine, theirs) = (&self.updated(&[0]), &self.updated(&[1]));
        let describe = |what: &str| self.describe(what, ["update"; 2], [mine, theirs], stored);
        let end = match Self::end(stored, memory) {
            Ok(end) => end,
            Err(what) => return Verdict::Wrong(describe(&what)),
        };
        let is_sound = match dead {
            [true, true] => end.same(&self.start),
            [true, false] => end.same(theirs),
            [false, true] => end.same(mine),
            [false, false] => {
                let is_serial = [[0, 1], [1, 0]]
                    .iter()
                    .any(|order| end.same(&self.updated(order)));
                let merged = |one: &T, other: &T| (self.kind.merged)(&self.start, one, other, &end);
                is_serial || merged(mine, theirs) || merged(theirs, mine)
            }
        };
        if is_sound {
            Verdict::Fine
        } else if end.same(mine) || end.same(theirs) {
            Verdict::Wrong(describe(&format!(
                "one of both changes is lost, and is no dead letter ({dead:?})"
            )))
        } else {
            Verdict::Wrong(describe(&format!(
                "neither what one of both left, nor their merge ({dead:?})"
            )))
        }
    }
}

/// A value whose members keep their order, which counts in a part of an unknown type.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Ordered {
    List(Vec<Ordered>),
    Object(IndexMap<String, Ordered>),
    Other(Value),
}

/// The text without spaces and escapes.
fn in_order(text: &str) -> String {
    let value: Ordered = serde_json::from_str(text).expect("it is JSON");
    serde_json::to_string(&value).expect("it is JSON")
}

/// The value with all its lists sorted.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(sorted).collect();
            items.sort_by_cached_key(Value::to_string);
            Value::Array(items)
        }
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, sorted(value)))
            .collect(),
        value => value,
    }
}

/// The keys of the dead letters.
fn dead_letters(memory: &Memory) -> HashSet<String> {
    memory
        .dead_letters()
        .into_iter()
        .map(|letter| letter.key)
        .collect()
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
}

/// The cases of one outage, each with its own key, which both processes have read.
struct Batch<'a> {
    pairs: Vec<(u64, Box<dyn Pair + 'a>)>,
    scopes: Vec<[Memory; 2]>,
    line: &'a Line,
    memories: [&'a Memory; 2],
    /// What went wrong so far, by the index of the case.
    wrong: BTreeMap<usize, String>,
}

impl<'a> Batch<'a> {
    fn new(cases: &'a Cases, seeds: &[u64], line: &'a Line, memories: [&'a Memory; 2]) -> Self {
        let pairs: Vec<_> = seeds
            .iter()
            .map(|seed| (*seed, cases.kind(*seed).two_writers(*seed)))
            .collect();
        let mut batch = Self {
            pairs,
            scopes: Vec::new(),
            line,
            memories,
            wrong: BTreeMap::new(),
        };
        for (at, (_, pair)) in batch.pairs.iter().enumerate() {
            let envelope = format!(
                "{{\"value\": {}, \"last_modified\": 1700000000000000000}}",
                pair.stored()
            );
            batch.line.server.set_raw(&Self::key(at), envelope);
            batch
                .scopes
                .push(batch.memories.map(|memory| memory.scope(&Self::scope(at))));
        }
        for who in [0, 1] {
            batch.each(|pair, scopes| pair.read(&scopes[who]));
        }
        batch
    }

    fn scope(at: usize) -> String {
        format!("case{at}")
    }

    fn key(at: usize) -> String {
        format!("memory:{}:{NAME}", Self::scope(at))
    }

    fn each(&mut self, call: impl Fn(&dyn Pair, &[Memory; 2]) -> Result<(), String>) {
        for (at, ((_, pair), scopes)) in self.pairs.iter().zip(&self.scopes).enumerate() {
            if let Err(what) = catch(|| call(&**pair, scopes)) {
                self.wrong
                    .entry(at)
                    .or_insert_with(|| format!("{what}\n  stored:  {}", pair.stored()));
            }
        }
    }

    /// Judges all cases after everything is delivered.
    fn end(mut self, judge: impl Fn(&dyn Pair, &str, [bool; 2], &Memory) -> Verdict) -> Judged {
        let mut undecided = 0;
        let dead = self.memories.map(dead_letters);
        for (at, ((_, pair), scopes)) in self.pairs.iter().zip(&self.scopes).enumerate() {
            let key = Self::key(at);
            let text = self.line.server.get_text(&key).expect("it is there");
            let envelope: Envelope = serde_json::from_str(&text).expect("an envelope is stored");
            let is_dead = [0, 1].map(|who| dead[who].contains(&key));
            let stored = envelope.value.get();
            match decided(|| judge(&**pair, stored, is_dead, &scopes[0])) {
                Some(Verdict::Fine) => {}
                Some(Verdict::Wrong(what)) => _ = self.wrong.entry(at).or_insert(what),
                None => undecided += 1,
            }
        }
        let wrong = self.wrong.into_iter();
        Judged {
            failed: wrong.map(|(at, what)| (self.pairs[at].0, what)).collect(),
            undecided,
        }
    }
}

#[test]
fn two_closures_one_of_which_ran_while_cut_off_are_not_mixed_or_lost_silently() {
    let mut cases = Cases::of("two_closures_one_of_which_ran_while_cut_off", 2_500);
    for seeds in cases.seeds.clone().chunks(BATCH_SIZE) {
        let line = Line::new();
        // The timeout is so long that reads succeed on a busy machine.
        let mine = line.builder().timeout(DEADLINE).build().unwrap();
        let theirs = quick(line.server.url()).timeout(DEADLINE).build().unwrap();
        let mut batch = Batch::new(&cases, seeds, &line, [&mine, &theirs]);
        line.down(&mine);
        batch.each(|pair, [mine, _]| pair.mine(mine));
        batch.each(|pair, [_, theirs]| pair.theirs(theirs));
        line.up();
        mine.flush(DEADLINE).unwrap();
        let judged =
            batch.end(|pair, stored, [is_dead, _], memory| pair.judge(stored, is_dead, memory));
        cases.add(judged);
    }
    cases.end();
}

#[test]
fn concurrent_closures_that_are_written_behind_are_not_mixed_or_lost_silently() {
    let mut cases = Cases::of("concurrent_closures_that_are_written_behind", 1_000);
    for seeds in cases.seeds.clone().chunks(BATCH_SIZE) {
        let line = Line::new();
        let open = || {
            let builder = quick(line.server.url()).timeout(DEADLINE);
            builder.write_policy(WritePolicy::Behind).build().unwrap()
        };
        let memories = [&open(), &open()];
        let mut batch = Batch::new(&cases, seeds, &line, memories);
        let start = Barrier::new(2);
        batch.each(|pair, scopes| {
            let update = |is_first: bool| {
                start.wait();
                pair.update(&scopes[usize::from(!is_first)], is_first)
            };
            thread::scope(|scope| {
                let first = scope.spawn(|| update(true));
                let second = update(false);
                first.join().expect("it does not panic").and(second)
            })
        });
        for memory in memories {
            memory.flush(DEADLINE).unwrap();
        }
        let judged =
            batch.end(|pair, stored, dead, memory| pair.judge_updates(stored, dead, memory));
        cases.add(judged);
    }
    cases.end();
}

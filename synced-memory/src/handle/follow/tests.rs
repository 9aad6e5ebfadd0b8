use std::collections::hash_map::RandomState;
use std::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde::{Deserialize, Serialize};

use super::*;
use crate::base::clock::Stamp;
use crate::value::document::ByteEdit;
use crate::value::document::properties::{sizes, with_sizes};

/// A name of which the case does not count: several names are one key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct AnyCase(String);

impl AnyCase {
    fn lower(&self) -> String {
        self.0.to_lowercase()
    }
}

impl PartialEq for AnyCase {
    fn eq(&self, other: &Self) -> bool {
        self.lower() == other.lower()
    }
}

impl Eq for AnyCase {}

impl PartialOrd for AnyCase {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AnyCase {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.lower().cmp(&other.lower())
    }
}

impl std::hash::Hash for AnyCase {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.lower().hash(hasher);
    }
}

/// A type with attributes of its own for serde.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    List(Vec<Option<i64>>),
    #[serde(rename_all = "kebab-case")]
    Object {
        first_name: String,
        #[serde(default)]
        age: u8,
    },
}

/// What is stored: a root, and what is around it.
#[derive(Debug, Clone)]
struct StoredRoot {
    is_object: bool,
    head: &'static str,
    tail: &'static str,
    entries: Vec<String>,
    stamp: u64,
}

impl StoredRoot {
    fn text(&self) -> String {
        let Self {
            head, tail, stamp, ..
        } = self;
        let [open, close] = if self.is_object {
            ["{", "}"]
        } else {
            ["[", "]"]
        };
        let entries = self.entries.join(",");
        let end = format!("{tail}\"last_modified\": {stamp}}}");
        let end = if head.is_empty() { String::new() } else { end };
        format!("{head}{open}{entries}{close}{end}")
    }

    fn document(&self) -> Document {
        Document::of(self.text().into())
    }
}

#[derive(Debug, Clone)]
enum FollowStep {
    Replace(usize, String),
    Insert(usize, Vec<String>),
    Remove(usize, usize),
    /// Without a look at what is there.
    Append(Vec<String>),
    Whole(Vec<String>),
    Join,
    Parse,
    Read,
}

fn element() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "1",
        "2",
        " 3",
        "255",
        "256",
        "-1",
        "1.5",
        "\"a\"",
        "\"b\" ",
        "\"\\u0061\"",
        "\"é\"",
        "null",
        "[1, null]",
        "[[[[]]]]",
        "true",
        r#"{"first-name": "x"}"#,
        r#"{"a": {"b": 1}}"#,
        r#"{"first-name": "x", "age": 256}"#,
    ]);
    prop_oneof![
        3 => known.prop_map(str::to_owned),
        3 => (0..400_u16).prop_map(|number| number.to_string()),
        3 => (0..400_u16).prop_map(|number| format!(" \"text {number}\"")),
        // More levels than are read.
        1 => (120..130_usize).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
    ]
}

fn member() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "\"a\"",
        "\"A\"",
        "\"\\u0061\"",
        " \"b\"",
        "\"1\"",
        "\"01\"",
        "\"value\"",
        "\"last_modified\"",
    ]);
    let name = prop_oneof![
        1 => known.prop_map(str::to_owned),
        2 => (0..100_u8).prop_map(|number| format!("\"key {number}\"")),
        2 => (0..=255_u8).prop_map(|number| format!("\"{number}\"")),
    ];
    (name, element()).prop_map(|(name, value)| format!("{name}: {value}"))
}

/// Elements, or members; of one kind mostly, so that they decode.
fn entries(is_object: bool) -> BoxedStrategy<Vec<String>> {
    let numbers = (0..1_000_u16).prop_map(|number| number.to_string());
    let texts = "[a-d]{1,3}".prop_map(|text| format!("\"{text}\""));
    let one = if is_object {
        let plain = (0..60_u8, 0..90_u8);
        let plain = plain.prop_map(|(name, number)| format!("\"{name}\": {number}"));
        [member().boxed(), plain.boxed(), plain_members().boxed()]
    } else {
        [element().boxed(), numbers.boxed(), texts.boxed()]
    };
    let [any, plain, texts] = one.map(|one| prop::collection::vec(one, 0..40));
    prop_oneof![1 => any, 2 => plain, 2 => texts].boxed()
}

fn plain_members() -> impl Strategy<Value = String> {
    ("[a-dA-D]{1,3}", 0..90_u8).prop_map(|(name, number)| format!("\"{name}\":{number}"))
}

fn step(is_object: bool) -> BoxedStrategy<FollowStep> {
    let few = move || entries(is_object).prop_map(|entries| entries.into_iter().take(3).collect());
    let one = entries(is_object).prop_filter_map("one", |entries| entries.into_iter().next());
    let at = any::<usize>;
    let added: fn(Vec<String>) -> FollowStep = FollowStep::Append;
    prop_oneof![
        4 => (at(), one).prop_map(|(at, entry)| FollowStep::Replace(at, entry)),
        3 => (at(), few()).prop_map(|(at, entries)| FollowStep::Insert(at, entries)),
        3 => (at(), 0..4_usize).prop_map(|(at, count)| FollowStep::Remove(at, count)),
        3 => few().prop_map(added),
        1 => entries(is_object).prop_map(FollowStep::Whole),
        1 => Just(FollowStep::Join),
        1 => Just(FollowStep::Parse),
        6 => Just(FollowStep::Read),
    ]
    .boxed()
}

fn history() -> impl Strategy<Value = (StoredRoot, Vec<FollowStep>)> {
    let around = prop::sample::select(vec![
        (r#"{"value": "#, ","),
        (r#"{"value": "#, ","),
        (r#"{"value": "#, ","),
        (r#"{"value" : "#, " ,\n "),
        (r#"{"first": [1], "value": "#, r#","more": {"value": 2}, "#),
        ("", ""),
    ]);
    any::<bool>().prop_flat_map(move |is_object| {
        let stored = (around.clone(), entries(is_object));
        let stored = stored.prop_map(move |((head, tail), entries)| StoredRoot {
            is_object,
            head,
            tail,
            entries,
            stamp: 5,
        });
        (stored, prop::collection::vec(step(is_object), 1..24))
    })
}

/// The document after a change of its entries, and of its stamp.
fn edited(document: &Document, stored: &StoredRoot) -> Document {
    let old = document.to_bytes();
    let unstamped = StoredRoot {
        stamp: document.stamp().get(),
        ..stored.clone()
    };
    let new = unstamped.text();
    let new = new.as_bytes();
    let before = old.iter().zip(new).take_while(|(old, new)| old == new);
    let before = before.count();
    let behind = old[before..].iter().rev().zip(new[before..].iter().rev());
    let behind = behind.take_while(|(old, new)| old == new).count();
    let mut edits = vec![ByteEdit {
        start: before,
        old_len: old.len() - behind - before,
        new: new[before..new.len() - behind].to_vec().into(),
    }];
    let stamp = Stamp::new(stored.stamp);
    edits.extend(document.stamp_edit(stamp));
    let edited = document.edited(&edits, stamp, stored.text().len());
    edited.unwrap_or_else(|| stored.document())
}

/// Follows a history by way of a `T`: at each read the value must be what the text says.
fn check<T: Value + Debug>(
    follow: Option<Follow<T>>,
    same: impl Fn(&T, &T) -> bool,
    (stored, steps): &(StoredRoot, Vec<FollowStep>),
) -> Result<usize, TestCaseError> {
    let follow = follow.expect("it is a collection");
    let mut stored = stored.clone();
    let mut document = stored.document();
    let mut known: Option<(Document, T)> = None;
    let mut followed = 0;
    for step in steps {
        let count = stored.entries.len();
        stored.stamp += 1;
        match step {
            FollowStep::Replace(at, entry) if count > 0 => {
                stored.entries[at % count].clone_from(entry);
            }
            FollowStep::Insert(at, entries) => {
                let at = at % (count + 1);
                stored.entries.splice(at..at, entries.iter().cloned());
            }
            FollowStep::Remove(at, removed) => {
                let at = at % (count + 1);
                stored.entries.drain(at..count.min(at + removed));
            }
            FollowStep::Append(items) => {
                let items: Vec<&str> = items.iter().map(String::as_str).collect();
                let stamp = Stamp::new(stored.stamp);
                let is_list = !stored.is_object;
                if let Some(appended) = document.appended(&items, stamp).filter(|_| is_list) {
                    stored.entries.extend(items.into_iter().map(str::to_owned));
                    document = appended;
                    prop_assert_eq!(document.len(), stored.text().len());
                }
                continue;
            }
            FollowStep::Whole(entries) => stored.entries.clone_from(entries),
            FollowStep::Join => _ = document.to_bytes(),
            FollowStep::Parse => _ = document.element(0),
            FollowStep::Replace(..) | FollowStep::Read => {}
        }
        if !matches!(
            step,
            FollowStep::Read | FollowStep::Join | FollowStep::Parse
        ) {
            document = edited(&document, &stored);
            continue;
        }
        stored.stamp -= 1;
        if !matches!(step, FollowStep::Read) {
            continue;
        }

        let fresh = envelope::decode::<T>(stored.text().as_bytes());
        let made = known.take().and_then(|(older, mut value)| {
            let differences = follow.differences(&older, &document)?;
            let is_utf8 = differences.are_utf8;
            let is_made = follow.apply(differences, &mut value);
            is_made.then_some((value, is_utf8))
        });
        if let Some((value, is_utf8)) = made {
            let Ok(fresh) = &fresh else {
                return Err(TestCaseError::fail(format!(
                    "{value:?} of {}",
                    stored.text()
                )));
            };
            prop_assert!(
                same(fresh, &value),
                "{fresh:?} and {value:?} of {}",
                stored.text()
            );
            prop_assert!(is_utf8);
            followed += 1;
            known = Some((document.clone(), value));
        } else {
            known = fresh.ok().map(|value| (document.clone(), value));
        }
    }
    Ok(followed)
}

macro_rules! check_all {
    ($history:expr, $($type:ty $(, by $text:expr)?;)*) => { [$(
        check::<$type>(
            Spec::<$type>::FOLLOW,
            |one: &$type, other: &$type| check_all!(@same one, other $(, $text)?),
            $history,
        )?
    ),*] };
    (@same $one:ident, $other:ident) => { $one == $other };
    (@same $one:ident, $other:ident, $text:expr) => { $text($one) == $text($other) };
}

/// How often a value of each of these types was made from an older one.
fn check_types(history: &(StoredRoot, Vec<FollowStep>)) -> Result<Vec<usize>, TestCaseError> {
    // Keys that are equal may be written in several ways: it has to be the same one.
    let keys = |map: &BTreeMap<AnyCase, u8>| format!("{map:?}");
    let names = |set: &BTreeSet<AnyCase>| format!("{set:?}");
    let sorted = |map: &HashMap<AnyCase, Json>| {
        let mut all: Vec<String> = map.iter().map(|entry| format!("{entry:?}")).collect();
        all.sort();
        all
    };
    let followed = if history.0.is_object {
        check_all!(history,
            HashMap<u8, Json>; BTreeMap<String, u8>; HashMap<AnyCase, Json>, by sorted;
            BTreeMap<AnyCase, u8>, by keys; HashMap<String, Untagged, RandomState>; Json;
            BTreeMap<String, Json>;
        )
        .to_vec()
    } else {
        check_all!(history,
            Vec<i64>; Vec<Option<u16>>; Vec<Untagged>; VecDeque<Json>; VecDeque<String>;
            HashSet<u16>; BTreeSet<AnyCase>, by names; Json; Vec<String>;
        )
        .to_vec()
    };
    Ok(followed)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_value_that_follows_is_what_is_decoded_anew(history in history(), sizes in sizes()) {
        with_sizes(sizes, || check_types(&history).map(drop))?;
    }
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn members(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("\"{number}\": {number}"))
        .collect()
}

/// One change each, with a read behind it.
fn each_change(entry: fn(usize) -> String) -> Vec<FollowStep> {
    let mut added = 200..;
    let mut entry = || entry(added.next().expect("there are enough"));
    let changes = [
        FollowStep::Append(vec![entry()]),
        FollowStep::Remove(0, 1),
        FollowStep::Remove(30, 2),
        FollowStep::Insert(40, vec![entry()]),
        FollowStep::Join,
        FollowStep::Replace(50, entry()),
        FollowStep::Insert(0, vec![entry()]),
        FollowStep::Remove(60, 1),
    ];
    // A list to which was only added is not looked at by any change.
    let mut steps = vec![
        FollowStep::Read,
        FollowStep::Append(vec![entry()]),
        FollowStep::Read,
    ];
    for change in changes {
        steps.extend([FollowStep::Remove(20, 1), change, FollowStep::Read]);
    }
    steps
}

#[test]
fn each_collection_follows_each_change() -> TestCaseResult {
    for (is_object, entries) in [(false, numbers(200)), (true, members(200))] {
        let stored = StoredRoot {
            is_object,
            head: r#"{"value": "#,
            tail: ",",
            entries,
            stamp: 5,
        };
        let entry = if is_object {
            |number| format!("\"{number}\": {number}")
        } else {
            |number: usize| number.to_string()
        };
        let history = (stored, each_change(entry));
        with_sizes((40, 4), || {
            let reads = if is_object {
                [
                    check(Spec::<HashMap<u8, u8>>::FOLLOW, PartialEq::eq, &history)?,
                    check(
                        Spec::<BTreeMap<String, u8>>::FOLLOW,
                        PartialEq::eq,
                        &history,
                    )?,
                    check(Spec::<Json>::FOLLOW, PartialEq::eq, &history)?,
                ]
                .to_vec()
            } else {
                [
                    check(Spec::<Vec<u8>>::FOLLOW, PartialEq::eq, &history)?,
                    check(Spec::<VecDeque<i32>>::FOLLOW, PartialEq::eq, &history)?,
                    check(Spec::<Json>::FOLLOW, PartialEq::eq, &history)?,
                ]
                .to_vec()
            };
            // All but the first, which decodes; and one of an object, to which nothing was added.
            let expected = if is_object { 8 } else { 9 };
            prop_assert!(reads.iter().all(|read| *read == expected), "{reads:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn what_is_known_of_a_type_is_known_without_naming_it() {
    assert!(Follow::<Vec<String>>::known().is_some());
    assert!(Follow::<BTreeMap<String, f64>>::known().is_some());
    assert!(Follow::<HashSet<u32>>::known().is_some());
    assert!(Follow::<Json>::known().is_some());
    assert!(Follow::<Vec<Untagged>>::known().is_none());
    assert!(Follow::<String>::known().is_none());
    assert!(Spec::<Vec<Untagged>>::FOLLOW.is_some());
    assert!(Spec::<Untagged>::FOLLOW.is_none());
    assert!(Spec::<Option<Vec<u8>>>::FOLLOW.is_none());
    assert!(
        <Spec<(fn(),)>>::FOLLOW.is_none(),
        "what is no value is no error"
    );
    assert!(<Spec<Vec<fn()>>>::FOLLOW.is_none(), "nor is a list of it");
}

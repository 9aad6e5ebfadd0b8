//! What holds for every value, every operation and every history.

use proptest::prelude::*;
use serde_json::Value;

use super::tests::diff_of;
use super::*;
use crate::value::shape::Shape;

/// Any JSON as somebody may have written it: white space, escapes, duplicates, foreign numbers.
pub(in crate::value) fn json_text() -> impl Strategy<Value = String> {
    let number = proptest::sample::select(&[
        "0",
        "-0",
        "1",
        "2",
        "3",
        "-17",
        "1e2",
        "100.0",
        "0.5",
        "1180591620717411303424",
        "18446744073709551615",
        "1.0e400",
    ]);
    let other = proptest::sample::select(&[
        "null",
        "true",
        "\"\"",
        "\"a\"",
        "\"\\u0061\"",
        "\"ü\"",
        "\"]}, \\\"\"",
        "{}",
        "[ ]",
    ]);
    let leaf = prop_oneof![3 => number, 2 => other].prop_map(str::to_owned);
    leaf.prop_recursive(4, 40, 5, |inner| {
        let list =
            prop::collection::vec((space(), inner.clone(), space()), 0..5).prop_map(|elements| {
                let elements: Vec<_> = elements
                    .into_iter()
                    .map(|(before, text, after)| format!("{before}{text}{after}"))
                    .collect();
                format!("[{}]", elements.join(","))
            });
        let member = (space(), name(), space(), inner, space());
        let object = prop::collection::vec(member, 0..5).prop_map(|members| {
            let members: Vec<_> = members
                .into_iter()
                .map(|(a, name, b, text, c)| format!("{a}{name}{b}:{b}{text}{c}"))
                .collect();
            format!("{{{}}}", members.join(","))
        });
        prop_oneof![list, object]
    })
}

pub(in crate::value) fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(""), 2 => Just(" "), 1 => Just("\n\t")]
}

pub(in crate::value) fn name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&[
        "\"a\"",
        "\"\\u0061\"",
        "\"b\"",
        "\"c\"",
        "\"ü\"",
        "\"\\u00fc\"",
        "\"\\\"\"",
        "\"\"",
    ])
}

/// The random part of one operation, which is recorded on whatever is there.
#[derive(Debug, Clone)]
pub(in crate::value) struct Choice {
    steps: Vec<(u8, &'static str)>,
    action: u8,
    value: String,
    by: i8,
}

pub(in crate::value) fn choice() -> impl Strategy<Value = Choice> {
    let steps = prop::collection::vec((any::<u8>(), name()), 0..4);
    (steps, any::<u8>(), json_text(), any::<i8>()).prop_map(|(steps, action, value, by)| Choice {
        steps,
        action,
        value,
        by,
    })
}

/// Calls, each of one operation or of several.
pub(in crate::value) fn choices() -> impl Strategy<Value = Vec<Vec<Choice>>> {
    let call = prop_oneof![
        5 => prop::collection::vec(choice(), 1),
        1 => prop::collection::vec(choice(), 1..4),
    ];
    prop::collection::vec(call, 0..6)
}

fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

/// Goes down from `seen` by the choices, and does there what can be done.
pub(in crate::value) fn record(seen: &str, choice: &Choice) -> Operation {
    let mut segments = Vec::new();
    let mut found = Some(seen);
    for (at, name) in &choice.steps {
        let name: String = serde_json::from_str(name).unwrap();
        match found {
            None | Some("{}") => segments.push(PathSegment::Member(MemberName {
                origin: Some(json("{}")),
                ..MemberName::new(&name)
            })),
            Some(text) if text::kind(text) == text::OBJECT => {
                segments.push(PathSegment::Member(MemberName::new(&name)));
            }
            Some(text) => match text::elements(text) {
                Ok(elements) if !elements.is_empty() => {
                    segments.push(PathSegment::Index(usize::from(*at) % elements.len()));
                }
                _ => break,
            },
        }
        let Ok(location) = locate(Some(seen), None, &segments) else {
            segments.pop();
            break;
        };
        found = location.found.filter(|_| location.exists);
    }
    let location = locate(Some(seen), None, &segments).unwrap();
    let found = location.found.filter(|_| location.exists);
    let seen = ObservedValue::from(found.map(Content::of));
    let value = json(&choice.value);
    let items = vec![value.clone()];
    let at_member = matches!(location.path.last(), Some(PathStep::Member(_)));
    let action = match (found.map(text::kind), choice.action % 6) {
        (Some(text::LIST), 0 | 1) => Action::Append { items },
        (Some(text::LIST), 2) => {
            let list = found.unwrap();
            let list = elements(list).unwrap();
            match element(&list, choice.by.unsigned_abs().into()).or(element(&list, 0)) {
                Some(before) => Action::InsertAt { before, items },
                None => Action::Append { items },
            }
        }
        (Some(text::NUMBER), 0..=3)
            if !choice.value.contains('.') && !found.unwrap().contains(['.', 'e']) =>
        {
            Action::Add {
                amount: Amount::Integer {
                    by: choice.by.into(),
                    min: i64::MIN.into(),
                    max: u64::MAX.into(),
                },
            }
        }
        (_, 4) if !location.path.is_empty() => Action::Remove { seen },
        (_, 5) if at_member => Action::SetIfAbsent { value },
        _ => Action::Set { value, seen },
    };
    Operation {
        path: location.path,
        action,
    }
}

/// Records calls, each on what the one before has made.
pub(in crate::value) fn record_all(base: &str, calls: &[Vec<Choice>]) -> (Vec<Mutation>, String) {
    let mut view = base.to_owned();
    let mut mutations = Vec::new();
    for call in calls {
        let mut operations = Vec::new();
        let mut now = view.clone();
        for choice in call {
            let operation = record(&now, choice);
            let one = apply(
                Some(&now),
                &Mutation::new(None, vec![operation.clone()]),
                ConflictRule::Latest,
            );
            if one.failed.is_empty() {
                now = one.text().map_or(now, str::to_owned);
                operations.push(operation);
            }
        }
        mutations.push(Mutation::new(None, operations));
        view = now;
    }
    (mutations, view)
}

/// Applies one by one; also whether each of them applied.
fn one_by_one(base: &str, mutations: &[Mutation], rule: ConflictRule) -> (String, bool) {
    let mut text = base.to_owned();
    let mut all = true;
    for mutation in mutations {
        let applied = apply(Some(&text), mutation, rule);
        all &= applied.failed.is_empty() && applied.superseded.is_empty();
        text = applied.text().map_or(text, str::to_owned);
    }
    (text, all)
}

pub(in crate::value) fn coalesced(mutations: Vec<Mutation>, since: Since<'_>) -> Mutation {
    let mut queue = mutations.into_iter();
    let mut first = queue
        .next()
        .unwrap_or_else(|| Mutation::new(None, Vec::new()));
    queue.for_each(|later| coalesce(&mut first, later, since).unwrap());
    first
}

/// `after` as it is, or `before` with some changes.
fn pair() -> impl Strategy<Value = (String, String)> {
    let changed = (json_text(), choices()).prop_map(|(before, calls)| {
        let after = record_all(&before, &calls).1;
        (before, after)
    });
    prop_oneof![1 => (json_text(), json_text()), 4 => changed]
}

/// What a closure does to a list, by numbers that are taken modulo its length.
#[derive(Debug, Clone)]
enum ListEdit {
    Push(u8),
    Change(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Swap(usize, usize),
    Clear,
}

fn list_edit() -> impl Strategy<Value = ListEdit> {
    let (at, item) = (0..8_usize, 0..4_u8);
    prop_oneof![
        4 => item.clone().prop_map(ListEdit::Push),
        6 => (at.clone(), item.clone()).prop_map(|(at, item)| ListEdit::Change(at, item)),
        2 => (at.clone(), item).prop_map(|(at, item)| ListEdit::Insert(at, item)),
        2 => at.clone().prop_map(ListEdit::Remove),
        2 => (at.clone(), at).prop_map(|(at, other)| ListEdit::Swap(at, other)),
        1 => Just(ListEdit::Clear),
    ]
}

impl ListEdit {
    fn make(&self, list: &mut Vec<u8>) {
        let length = list.len();
        match self {
            Self::Push(item) => list.push(*item),
            Self::Insert(at, item) => list.insert(at % (length + 1), *item),
            Self::Clear => list.clear(),
            _ if length == 0 => {}
            Self::Change(at, item) => list[at % length] = *item,
            Self::Remove(at) => _ = list.remove(at % length),
            Self::Swap(at, other) => list.swap(at % length, other % length),
        }
    }
}

fn list_pair() -> impl Strategy<Value = (String, String)> {
    let list = || prop::collection::vec(0..6_u8, 0..12).prop_map(|list| format!("{list:?}"));
    (list(), list())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn diff_then_apply_gives_the_target((before, after) in prop_oneof![pair(), list_pair()]) {
        let mutation = Mutation::new(None, diff_of(&before, &before, &after));
        for rule in [ConflictRule::Latest, ConflictRule::NewerWins(Stamp::MAX)] {
            let (text, all) = one_by_one(&before, std::slice::from_ref(&mutation), rule);
            prop_assert!(all, "{mutation:?}");
            prop_assert_eq!(Content::of(&text), Content::of(&after), "{}\n{:?}", text, mutation);
        }
    }

    #[test]
    fn a_difference_made_through_a_type_applies_to_what_is_stored((stored, after) in pair()) {
        let [read, after] = [&stored, &after].map(|text| serde_json::from_str::<Value>(text));
        let (Ok(read), Ok(after)) = (read, after) else {
            return Ok(());
        };
        let mutation = Mutation::new(None, diff_of(&stored, &read.to_string(), &after.to_string()));
        let (text, all) = one_by_one(&stored, &[mutation], ConflictRule::NewerWins(Stamp::MAX));
        prop_assert!(all);
        prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), after);
    }

    #[test]
    fn coalesced_calls_apply_as_one_by_one(base in json_text(), calls in choices()) {
        let (mutations, view) = record_all(&base, &calls);
        let together = coalesced(mutations.clone(), Since::Unchanged(Some(&base)));
        let moved = coalesced(mutations.clone(), Since::Moved);
        for rule in [ConflictRule::Latest, ConflictRule::NewerWins(Stamp::MAX)] {
            for mutation in [&together, &moved] {
                let (text, all) = one_by_one(&base, std::slice::from_ref(mutation), rule);
                prop_assert!(all, "{base}\n{mutations:?}\n{mutation:?}");
                prop_assert!(
                    Content::of(&text) == Content::of(&view),
                    "{base}: {text}\n{view}\n{mutations:?}\n{mutation:?}"
                );
            }
        }
    }

    #[test]
    fn closures_on_a_list_in_a_row_come_to_what_the_last_of_them_left(
        start in prop::collection::vec(0..4_u8, 0..5),
        closures in prop::collection::vec(prop::collection::vec(list_edit(), 1..3), 1..6),
    ) {
        let of = |list: &[u8]| Encoded::of(&list.to_vec(), None).unwrap();
        let (base, mut list) = (format!("{start:?}"), start);
        let mut queue = Mutation::compared(None, Vec::new());
        let mut text = base.clone();
        for closure in &closures {
            let before = of(&list);
            for edit in closure {
                edit.make(&mut list);
            }
            let later = Mutation::compared(None, diff(&text, &before, &of(&list), &[]));
            coalesce(&mut queue, later, Since::Unchanged(Some(&base))).unwrap();
            prop_assert_eq!(queue.size(), counted_size(&queue));
            let applied = apply(Some(&base), &queue, ConflictRule::NewerWins(Stamp::MAX));
            let is_whole = applied.failed.is_empty() && applied.superseded.is_empty();
            prop_assert!(is_whole, "{base}\n{queue:?}");
            text = applied.text().unwrap_or(&base).to_owned();
            let left = of(&list);
            prop_assert_eq!(Content::of(&text), Content::of(left.text()), "{}\n{}", base, text);
        }
    }

    #[test]
    fn coalesced_calls_apply_as_one_by_one_to_what_is_unset(
        origin in json_text(), calls in choices()
    ) {
        // Each is recorded on what the unset value is taken for, and on what those before it made
        // of that.
        let (mut mutations, view) = record_all(&origin, &calls);
        for mutation in &mut mutations {
            mutation.origin = Some(json(&origin));
        }
        for since in [Since::Unchanged(None), Since::Moved] {
            let together = coalesced(mutations.clone(), since);
            let applied = apply(None, &together, ConflictRule::Latest);
            prop_assert!(
                applied.failed.is_empty() && applied.superseded.is_empty(),
                "{origin}\n{mutations:?}\n{together:?}"
            );
            // If nothing differs in the end it may stay unset.
            let text = applied.text().unwrap_or(&origin);
            prop_assert!(
                Content::of(text) == Content::of(&view),
                "{origin}: {text}\n{view}\n{mutations:?}\n{together:?}"
            );
        }
    }

    #[test]
    fn coalesced_calls_apply_as_one_by_one_to_what_others_wrote(
        base in json_text(), others in choices(), calls in choices()
    ) {
        let (mutations, _) = record_all(&base, &calls);
        // An element that others changed may be found step by step otherwise than at once.
        if serde_json::to_string(&mutations).unwrap().contains("{\"element\":") {
            return Ok(());
        }
        let (_, theirs) = record_all(&base, &others);
        let together = coalesced(mutations.clone(), Since::Unchanged(Some(&base)));
        let (expected, all) = one_by_one(&theirs, &mutations, ConflictRule::Latest);
        if all {
            let one = std::slice::from_ref(&together);
            let (text, all) = one_by_one(&theirs, one, ConflictRule::Latest);
            prop_assert!(all, "{theirs}\n{mutations:?}\n{together:?}");
            prop_assert!(
                Content::of(&text) == Content::of(&expected),
                "{theirs}: {text}\n{expected}\n{mutations:?}\n{together:?}"
            );
        }
        // If superseded calls are merged with others, they share their outcome.
        let (expected, all) = one_by_one(&theirs, &mutations, ConflictRule::NewerWins(Stamp::MAX));
        let applied = apply(Some(&theirs), &together, ConflictRule::NewerWins(Stamp::MAX));
        if all && applied.superseded.is_empty() {
            let text = applied.text().unwrap_or(&theirs).to_owned();
            prop_assert_eq!(&applied.failed[..], &[]);
            prop_assert!(
                Content::of(&text) == Content::of(&expected),
                "{theirs}: {text}\n{expected}\n{mutations:?}\n{together:?}"
            );
        }
    }

    #[test]
    fn what_an_assignment_does_not_touch_stays_byte_for_byte(
        base in json_text(), choice in choice()
    ) {
        let operation = record(&base, &choice);
        let segments: Vec<PathSegment> = operation.path.iter().map(PathStep::segment).collect();
        let location = locate(Some(&base), None, &segments).unwrap();
        let found = location.found.filter(|_| location.exists);
        if let (Action::Set { value, .. }, Some(found)) = (&operation.action, found) {
            let start = found.as_ptr().addr() - base.as_ptr().addr();
            let (before, after) = (&base[..start], &base[start + found.len()..]);
            let expected = format!("{before}{}{after}", value.as_str());
            let mutation = Mutation::new(None, vec![operation.clone()]);
            let (text, _) = one_by_one(&base, &[mutation], ConflictRule::Latest);
            prop_assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_value_that_was_looked_into_is_written_as_it_was(base in json_text(), calls in choices()) {
        // Each call is undone by its last operation, which does not apply.
        let (mutations, _) = record_all(&base, &calls);
        for mutation in mutations {
            let mut call = mutation.calls()[0].operations.clone();
            let nowhere = PathStep::Member(MemberName::new("nowhere"));
            call.push(Operation {
                path: vec![nowhere.clone(), nowhere],
                action: Action::Append { items: Vec::new() },
            });
            let applied = apply(Some(&base), &Mutation::new(None, call), ConflictRule::Latest);
            prop_assert_eq!(applied.text(), None);
            prop_assert_eq!(applied.failed.len(), 1);
        }
    }

    #[test]
    fn no_text_makes_a_panic(
        base in json_text(),
        calls in choices(),
        noise in "[\\[\\]{}\",: \\\\u0-9a-eü]{0,12}",
        cut in 0..40_usize
    ) {
        let (mutations, _) = record_all(&base, &calls);
        let mutation = coalesced(mutations, Since::Unchanged(Some(&noise)));
        let cut: String = base.chars().take(cut).collect();
        for text in [noise.clone(), cut.clone(), format!("{cut}{noise}")] {
            for rule in [ConflictRule::Latest, ConflictRule::NewerWins(Stamp::MAX)] {
                apply(Some(&text), &mutation, rule);
            }
            let [before, after] =
                [&base, "[1]"].map(|text| Encoded::shaped(json(text), Shape::Json));
            diff(&text, &before, &after, &[]);
            let _ = Content::of(&text);
            let _ = locate(Some(&text), None, &[PathSegment::Index(0)]);
            let _ = locate(Some(&text), None, &[PathSegment::Member(MemberName::new("a"))]);
        }
    }

    #[test]
    fn a_mutation_comes_back_from_the_journal_as_it_was(
        base in json_text(), calls in choices(), origin in json_text()
    ) {
        let (mutations, _) = record_all(&base, &calls);
        let mut mutation = coalesced(mutations, Since::Unchanged(Some(&base)));
        for origin in [None, Some(json(&origin)), Some(json("null"))] {
            mutation.origin = origin;
            let text = serde_json::to_string(&mutation).unwrap();
            let read: Mutation = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read.calls, &mutation.calls);
            prop_assert_eq!(&read.origin, &mutation.origin);
        }
    }

    #[test]
    fn the_size_is_kept_up_to_date(base in json_text(), calls in choices()) {
        let (mutations, _) = record_all(&base, &calls);
        let mutation = coalesced(mutations, Since::Unchanged(Some(&base)));
        prop_assert_eq!(mutation.size(), counted_size(&mutation));
    }
}

/// How many bytes it holds, counted anew.
fn counted_size(mutation: &Mutation) -> usize {
    let Mutation { origin, calls, .. } = mutation.clone();
    Mutation::from(Journalled { origin, calls }).size()
}

/// A closure goes past others in its list, and back, since that would come to something else.
#[test]
fn the_size_is_kept_when_calls_are_put_back() {
    use ListEdit::{Change, Insert, Push, Swap};
    let closures: [&[ListEdit]; 4] = [
        &[Insert(0, 0), Change(1, 2)],
        &[Swap(1, 0), Change(1, 2)],
        &[Change(1, 0), Push(0)],
        &[Insert(4, 0)],
    ];
    let of = |list: &[u8]| Encoded::of(&list.to_vec(), None).unwrap();
    let (base, mut list) = ("[0]", vec![0]);
    let mut queue = Mutation::compared(None, Vec::new());
    let mut text = base.to_owned();
    for closure in closures {
        let before = of(&list);
        for edit in closure {
            edit.make(&mut list);
        }
        let later = Mutation::compared(None, diff(&text, &before, &of(&list), &[]));
        coalesce(&mut queue, later, Since::Unchanged(Some(base))).unwrap();
        assert_eq!(queue.size(), counted_size(&queue), "{queue:?}");
        of(&list).text().clone_into(&mut text);
    }
}

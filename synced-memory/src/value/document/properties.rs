//! What holds for every text, every mutation and every history of a document.

use bytes::Bytes;
use proptest::prelude::*;

use super::chunks::{ChunkSizes, SIZES};
use super::*;
use crate::value::mutation::properties::{
    Choice, choices, coalesced, json_text, name, record_all, space,
};
use crate::value::mutation::{
    ConflictRule, Edited, Mutation, Since, apply, element, is_space, members,
};

/// A root of several entries, or any other value.
fn root_text() -> impl Strategy<Value = String> {
    let element = (space(), json_text(), space()).prop_map(|(a, text, b)| format!("{a}{text}{b}"));
    let list = prop::collection::vec(element, 0..16)
        .prop_map(|elements| format!("[{}]", elements.join(",")));
    let numbers = prop::collection::vec(0..9_u8, 0..40).prop_map(|list| format!("{list:?}"));
    let name = prop_oneof![
        1 => name().prop_map(str::to_owned),
        2 => (0..20_u8).prop_map(|number| format!("\"key {number}\"")),
    ];
    let member = (space(), name, space(), json_text(), space());
    let object = prop::collection::vec(member, 0..16).prop_map(|members| {
        let members: Vec<_> = members
            .into_iter()
            .map(|(a, name, b, text, c)| format!("{a}{name}{b}:{b}{text}{c}"))
            .collect();
        format!("{{{}}}", members.join(","))
    });
    let blank = (space(), any::<bool>()).prop_map(|(space, is_list)| {
        if is_list {
            format!("[{space}]")
        } else {
            format!("{{{space}}}")
        }
    });
    prop_oneof![4 => list, 3 => numbers, 4 => object, 1 => blank, 2 => json_text()]
}

/// How a value may be stored.
#[derive(Debug, Clone)]
struct Stored {
    before: String,
    behind: String,
}

impl Stored {
    fn around(&self, value: &str) -> String {
        format!("{}{value}{}", self.before, self.behind)
    }
}

fn stored() -> impl Strategy<Value = Stored> {
    let of = |before: &str, behind: &str| Stored {
        before: before.to_owned(),
        behind: behind.to_owned(),
    };
    let own = Just(of(r#"{"value": "#, r#","last_modified": 17}"#));
    let other = (space(), space(), space()).prop_map(move |(a, b, c)| {
        of(
            &format!(r#"{a}{{{b}"value"{c}:{c}"#),
            &format!(r#"{a},{b}"last_modified":{c}1700000000000000000{c}}}{a}"#),
        )
    });
    let more = proptest::sample::select(vec![
        of(r#"{"a": [1], "value": "#, r#", "last_modified": 5}"#),
        of(r#"{"value": "#, r#", "a": [{}], "last_modified": 5}"#),
        of(r#"{"v\u0061lue": "#, r#", "last_modified": 5}"#),
        of("", ""),
        of(" ", "\n"),
        of(r#"{"last_modified": 5, "value": "#, "}"),
        of(r#"{"value": "#, r#","value": 1,"last_modified": 5}"#),
        of(r#"{"value": "#, r#","last_modified": 05}"#),
    ]);
    prop_oneof![3 => own, 2 => other, 2 => more]
}

/// Few bytes a chunk, and few chunks a group, so that a short text has several.
pub(crate) fn with_sizes(
    sizes: (usize, usize),
    test: impl FnOnce() -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let (chunk, group) = sizes;
    let before = SIZES.replace(ChunkSizes { chunk, group });
    let outcome = test();
    SIZES.set(before);
    outcome
}

pub(crate) fn sizes() -> impl Strategy<Value = (usize, usize)> {
    (1..60_usize, 2..5_usize)
}

/// Whether a document is as one of the same text that was not looked at yet.
fn check(document: &Document, text: &[u8]) -> Result<(), TestCaseError> {
    let fresh = Document::of(Bytes::copy_from_slice(text));
    prop_assert_eq!(document.len(), text.len());
    prop_assert_eq!(document.stamp(), envelope::stamp_of(text));
    prop_assert_eq!(document.root(), fresh.root());
    let value = envelope::value_of(&Bytes::copy_from_slice(text));
    let count = match document.root() {
        DocumentRoot::List(count) => {
            let elements: Vec<&str> = mutation_elements(value.as_str());
            prop_assert_eq!(elements.len(), count);
            for (at, element) in elements.iter().enumerate() {
                let found = document.element(at);
                prop_assert_eq!(found.as_ref().map(Text::as_str), Some(*element));
            }
            count
        }
        DocumentRoot::Object(count) => {
            for (name, member) in members(value.as_str()).unwrap() {
                let found = document.member(&name);
                prop_assert_eq!(found.as_ref().map(Text::as_str), Some(member), "{}", name);
            }
            prop_assert_eq!(document.member("nowhere"), None);
            count
        }
        DocumentRoot::Other => {
            prop_assert!(
                !value.as_str().starts_with(['[', '{']),
                "{}",
                value.as_str()
            );
            0
        }
    };
    for at in 0..count {
        prop_assert_eq!(document.entry_range(at), fresh.entry_range(at));
    }
    prop_assert_eq!(document.element(count), None);
    prop_assert_eq!(document.entry_range(count), None);
    prop_assert_eq!(document, &fresh);
    prop_assert_eq!(document.parsed().padding, fresh.parsed().padding);
    prop_assert_eq!(document.value(), value);
    prop_assert_eq!(&document.to_bytes()[..], text);
    Ok(())
}

fn mutation_elements(list: &str) -> Vec<&str> {
    crate::value::mutation::elements(list).unwrap()
}

/// The text with these edits.
fn replaced(text: &[u8], edits: &[ByteEdit]) -> Vec<u8> {
    let mut made = Vec::new();
    let mut at = 0;
    for edit in edits {
        made.extend_from_slice(&text[at..edit.start]);
        made.extend_from_slice(&edit.new);
        at = edit.start + edit.old_len;
    }
    made.extend_from_slice(&text[at..]);
    made
}

/// Edits a document, and checks what came of it. Returns it as it is then.
fn edit(document: &Document, edits: &[ByteEdit]) -> Result<Option<Document>, TestCaseError> {
    let text = document.to_bytes();
    let expected = replaced(&text, edits);
    let stamp = envelope::stamp_of(&expected);
    let is_json = !envelope::value_of(&Bytes::copy_from_slice(&expected))
        .as_str()
        .is_empty();
    let edited = document.edited(edits, stamp, expected.len());
    prop_assert_eq!(
        edited.is_some(),
        is_json,
        "{} to {}",
        String::from_utf8_lossy(&text),
        String::from_utf8_lossy(&expected)
    );
    prop_assert_eq!(document.edited(edits, stamp, expected.len() + 1), None);
    prop_assert_eq!(document.edited(edits, stamp.next(), expected.len()), None);
    if let Some(edited) = &edited {
        check(edited, &expected)?;
    }
    prop_assert_eq!(document.to_bytes(), text);
    Ok(edited)
}

/// Applies a mutation to a document and to its text. Returns the document as it is then.
fn apply_to_both(
    document: &Document,
    mutation: &Mutation,
    rule: ConflictRule,
) -> Result<Option<Document>, TestCaseError> {
    let value = envelope::value_of(&document.to_bytes());
    let expected = apply(Some(value.as_str()), mutation, rule);
    let applied: AppliedToDocument = apply_to(document, mutation, rule);
    let about = || format!("{}\n{mutation:?}\n{rule:?}\n{applied:?}", value.as_str());
    prop_assert_eq!(&applied.superseded, &expected.superseded, "{}", about());
    prop_assert_eq!(&applied.failed, &expected.failed, "{}", about());
    let expected = match (&applied.made, expected.made) {
        (DocumentEdit::Nothing, Edited::Nothing) | (DocumentEdit::Removed, Edited::Removed) => {
            return Ok(None);
        }
        (DocumentEdit::Whole(text), Edited::Text(expected)) => {
            prop_assert_eq!(value.as_str(), "");
            prop_assert_eq!(text, &expected);
            return Ok(None);
        }
        (DocumentEdit::Edits(_), Edited::Text(expected)) => expected,
        (_, expected) => {
            return Err(TestCaseError::fail(format!("{expected:?} of {}", about())));
        }
    };
    let DocumentEdit::Edits(mut edits) = applied.made.clone() else {
        return Ok(None);
    };
    for edit in &edits {
        prop_assert!(edit.old_len > 0 || !edit.new.is_empty(), "{}", about());
    }
    check_padded(document, &edits, &expected)?;
    let stamp = document.stamp().next();
    edits.extend(document.stamp_edit(stamp));
    let edited = edit(document, &edits)?;
    let Some(edited) = edited else {
        return Err(TestCaseError::fail(about()));
    };
    // A value that is not in an envelope may become what looks like one.
    if document.stamp_edit(stamp).is_some() {
        prop_assert_eq!(edited.stamp(), stamp);
        let value = edited.value();
        prop_assert_eq!(value.as_str(), &expected, "{}", about());
    }
    Ok(Some(edited))
}

/// JSON without what is between its tokens.
fn without_spaces(text: &str) -> String {
    let (mut is_text, mut is_escaped) = (false, false);
    let is_kept = |letter: &char| {
        let was_text = is_text;
        is_text ^= *letter == '"' && !is_escaped;
        is_escaped = is_text && *letter == '\\' && !is_escaped;
        was_text || !is_space(*letter)
    };
    text.chars().filter(is_kept).collect()
}

/// Checks the edits that keep the length of what they change: they make the same value. Returns the
/// document as it is then.
fn check_padded(
    document: &Document,
    edits: &[ByteEdit],
    expected: &str,
) -> Result<Option<Document>, TestCaseError> {
    let before = document.parsed();
    let Some(padded) = document.padded(edits.to_vec()) else {
        let removed: usize = edits.iter().map(|edit| edit.old_len).sum();
        prop_assert!(before.padding + removed > document.len() / 4);
        return Ok(None);
    };
    let Some(edited) = edit(document, &padded)? else {
        return Err(TestCaseError::fail(format!("{edits:?} as {padded:?}")));
    };
    let value = edited.value();
    prop_assert_eq!(without_spaces(value.as_str()), without_spaces(expected));
    // What is not as long as it was has no room, or would stand beside a bracket of the root.
    let now = edited.parsed();
    let is_shorter = edited.len() < document.len();
    prop_assert!(!is_shorter || now.body.count() <= 1 || edits.len() > 1 || padded == edits);
    // What others have put between the entries does not count.
    let plain = edit(document, edits)?;
    let plain = plain.map_or(0, |plain| plain.parsed().padding);
    prop_assert!(now.padding <= document.len() / 4 + plain);
    if padded != edits && now.body.count() > 1 && now.padding > before.padding {
        let inner = &value.as_str()[1..value.as_str().len() - 1];
        let was = document.value();
        prop_assert!(!inner.ends_with(is_space) || was.as_str().contains(is_space));
    }
    let compacted = edited.compacted();
    prop_assert_eq!(without_spaces(&compacted), without_spaces(expected));
    prop_assert_eq!(Document::of(compacted.into()).parsed().padding, 0);
    Ok(Some(edited))
}

const RULES: [ConflictRule; 4] = [
    ConflictRule::Latest,
    ConflictRule::NewerWins(Stamp::ZERO),
    ConflictRule::NewerWins(Stamp::MAX),
    ConflictRule::Exact,
];

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<String>),
    Mutate(Vec<Vec<Choice>>),
    /// Bytes anywhere are replaced by some that are part of JSON.
    Noise(Vec<(usize, usize, String)>),
    Join,
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let noise = (any::<usize>(), 0..6_usize, "[\\[\\]{}\",: 01a]{0,4}");
    prop_oneof![
        4 => prop::collection::vec(json_text(), 0..4).prop_map(Step::Append),
        4 => choices().prop_map(Step::Mutate),
        2 => prop::collection::vec(noise, 1..4).prop_map(Step::Noise),
        1 => Just(Step::Join),
        1 => Just(Step::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_document_has_the_entries_of_its_text(
        stored in stored(), root in root_text(), sizes in sizes()
    ) {
        let text = stored.around(&root);
        with_sizes(sizes, || check(&Document::of(text.clone().into()), text.as_bytes()))?;
    }

    #[test]
    fn no_bytes_make_a_panic(
        stored in stored(), root in root_text(), noise in any::<Vec<u8>>(), at in any::<usize>()
    ) {
        let mut text = stored.around(&root).into_bytes();
        let at = at % (text.len() + 1);
        text.splice(at..at, noise.iter().copied());
        check(&Document::of(text.clone().into()), &text)?;
        check(&Document::of(noise.clone().into()), &noise)?;
    }

    #[test]
    fn a_mutation_makes_of_a_document_what_it_makes_of_its_text(
        stored in stored(), root in root_text(), calls in choices(), others in choices(),
        sizes in sizes()
    ) {
        let (mutations, _) = record_all(&root, &calls);
        let (_, theirs) = record_all(&root, &others);
        let together = coalesced(mutations.clone(), Since::Moved);
        let mut joined = together.clone();
        joined.join(Mutation::new(None, Vec::new()));
        let compared = Mutation::compared(
            None,
            joined.calls().iter().flat_map(|call| call.operations.clone()).collect(),
        );
        let all = mutations.iter().chain([&together, &joined, &compared]);
        with_sizes(sizes, || {
            for value in [&root, &theirs] {
                let document = Document::of(stored.around(value).into());
                for mutation in all.clone() {
                    for rule in RULES {
                        apply_to_both(&document, mutation, rule)?;
                    }
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn an_element_of_a_long_list_has_the_name_that_a_look_at_all_of_them_gives(
        elements in prop::collection::vec(json_text(), 60..90), more in json_text(),
        at in any::<prop::sample::Index>(), sizes in sizes()
    ) {
        let text = |elements: &[String]| format!("[{}]", elements.join(", "));
        let mut now = elements.clone();
        now.insert(at.index(now.len()), more);
        with_sizes(sizes, || {
            for elements in [&elements, &now] {
                let texts: Vec<&str> = elements.iter().map(|text| text.trim()).collect();
                let document = Document::of(text(elements).into());
                for index in [0, 1, at.index(texts.len()), texts.len() - 1] {
                    let named = document.named_element(index);
                    let expected = element(&texts, index).zip(Some(texts[index]));
                    let expected = expected.filter(|_| texts.len() > 64);
                    let named = named.as_ref().map(|(name, text)| (name.clone(), text.as_str()));
                    prop_assert_eq!(named, expected);
                }
                prop_assert_eq!(document.named_element(texts.len()), None);
            }
            Ok(())
        })?;
    }

    #[test]
    fn edits_of_any_bytes_make_what_they_make_of_the_text(
        stored in stored(), root in root_text(), other in root_text(),
        noise in prop::collection::vec((any::<usize>(), 0..6_usize, "[\\[\\]{}\",: 01a]{0,4}"), 1..4),
        sizes in sizes()
    ) {
        let text = stored.around(&root);
        let document = Document::of(text.clone().into());
        with_sizes(sizes, || {
            edit(&document, &edits_of(text.len(), &noise))?;
            // The root is another one, or the whole.
            let whole = ByteEdit { start: 0, old_len: text.len(), new: other.clone().into() };
            edit(&document, &[whole])?;
            let root = ByteEdit {
                start: stored.before.len(),
                old_len: root.len(),
                new: other.clone().into(),
            };
            edit(&document, &[root])?;
            Ok(())
        })?;
    }

    #[test]
    fn after_any_history_a_document_is_as_one_of_its_text_and_older_ones_are_as_they_were(
        stored in stored(), root in root_text(), steps in prop::collection::vec(step(), 0..12),
        sizes in sizes()
    ) {
        let mut text = stored.around(&root).into_bytes();
        let mut document = Document::of(text.clone().into());
        let mut older = Vec::new();
        with_sizes(sizes, || {
            for step in &steps {
                older.push((document.clone(), text.clone()));
                match step {
                    Step::Append(items) => {
                        let items: Vec<&str> = items.iter().map(String::as_str).collect();
                        let value = envelope::value_of(&Bytes::copy_from_slice(&text));
                        if !value.as_str().starts_with('[') {
                            continue;
                        }
                        let appended = document.appended(&items, document.stamp().next());
                        let Some(appended) = appended else {
                            continue;
                        };
                        text = appended.to_bytes().to_vec();
                        let mut expected = mutation_elements(value.as_str());
                        expected.extend(&items);
                        let now = envelope::value_of(&Bytes::copy_from_slice(&text));
                        prop_assert_eq!(mutation_elements(now.as_str()), expected);
                        document = appended;
                    }
                    Step::Mutate(calls) => {
                        let value = document.value();
                        if value.as_str().is_empty() {
                            continue;
                        }
                        let (mutations, _) = record_all(value.as_str(), calls);
                        for mutation in mutations {
                            let rule = ConflictRule::Latest;
                            let Some(edited) = apply_to_both(&document, &mutation, rule)? else {
                                continue;
                            };
                            let made = apply_to(&document, &mutation, rule).made;
                            let padded = match made {
                                DocumentEdit::Edits(edits) => document.padded(edits),
                                _ => None,
                            };
                            let padded = padded.map(|edits| edit(&document, &edits)).transpose()?;
                            document = padded.flatten().unwrap_or(edited);
                            text = document.to_bytes().to_vec();
                        }
                    }
                    Step::Noise(noise) => {
                        let edits = edits_of(text.len(), noise);
                        if let Some(edited) = edit(&document, &edits)? {
                            text = edited.to_bytes().to_vec();
                            document = edited;
                        }
                    }
                    Step::Join => _ = document.to_bytes(),
                    Step::Look => check(&document, &text)?,
                }
            }
            older.push((document.clone(), text.clone()));
            for (document, text) in &older {
                check(document, text)?;
            }
            Ok(())
        })?;
    }
}

/// Edits of a text of this length, in order.
fn edits_of(length: usize, noise: &[(usize, usize, String)]) -> Vec<ByteEdit> {
    let mut starts: Vec<_> = noise.iter().map(|(at, ..)| at % (length + 1)).collect();
    starts.sort_unstable();
    let mut end = 0;
    let edits = starts
        .into_iter()
        .zip(noise)
        .map(|(start, (_, old_len, new))| {
            let start = start.max(end);
            let old_len = *old_len.min(&(length - start));
            end = start + old_len;
            ByteEdit {
                start,
                old_len,
                new: new.clone().into(),
            }
        });
    edits.collect()
}

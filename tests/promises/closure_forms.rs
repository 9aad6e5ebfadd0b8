//! A read after a closure returns what the closure left, even if the value was stored under older
//! names or in an older form.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Deserializer, Serialize};
use synced_memory::{Key, Memory, SyncedMemory};

use crate::closure_merges::{leaves, store};
use crate::line::on_every_backend;

/// `fullname` is the older name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Plain {
    #[serde(alias = "fullname")]
    full_name: String,
    age: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct User {
    #[serde(alias = "fullname")]
    full_name: String,
    age: u32,
    #[synced(nested)]
    home: Home,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct Home {
    #[serde(alias = "no")]
    number: u32,
    street: String,
}

#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct People {
    plain: Plain,
    #[synced(nested)]
    user: User,
    by_name: HashMap<String, Plain>,
    all: Vec<Plain>,
    users: BTreeMap<String, User>,
}

const OLD: &str = r#"{"fullname": "Ada", "age": 36}"#;
const OLD_USER: &str = r#"{"age": 36, "fullname": "Ada", "home": {"street": "Main", "no": 1}}"#;

fn grace(plain: &mut Plain) {
    plain.full_name = "Grace".into();
}

fn move_out(user: &mut User) {
    user.full_name = "Grace".into();
    user.home.number += 1;
}

/// A change by a handle, and the same change of a plain value.
type ChangeCase = (&'static str, fn(&SyncedPeople), fn(&mut People));

const CHANGES: &[ChangeCase] = &[
    (
        "another field",
        |s| s.update_plain(|plain| plain.age += 1).unwrap(),
        |people| people.plain.age += 1,
    ),
    (
        "the field",
        |s| s.update_plain(grace).unwrap(),
        |people| grace(&mut people.plain),
    ),
    (
        "an element of a list",
        |s| s.all().at(1).update(grace).unwrap(),
        |people| grace(&mut people.all[1]),
    ),
    (
        "elements of a list",
        |s| s.update_all(|all| all.iter_mut().for_each(grace)).unwrap(),
        |people| {
            people.all.iter_mut().for_each(grace);
        },
    ),
    (
        "an entry of a map",
        |s| s.by_name().at("a").update(grace).unwrap(),
        |people| {
            grace(people.by_name.get_mut("a").unwrap());
        },
    ),
    (
        "a map",
        |s| {
            s.update_by_name(|map| grace(map.get_mut("a").unwrap()))
                .unwrap();
        },
        |people| {
            grace(people.by_name.get_mut("a").unwrap());
        },
    ),
    (
        "entries that `retain` keeps",
        |s| {
            let retained = s.by_name().retain(|_, plain| {
                grace(plain);
                true
            });
            retained.unwrap();
        },
        |people| people.by_name.values_mut().for_each(grace),
    ),
    (
        "a nested struct",
        |s| s.update_user(move_out).unwrap(),
        |people| move_out(&mut people.user),
    ),
    (
        "another field of a nested struct",
        |s| s.update_user(|user| user.age += 1).unwrap(),
        |people| {
            people.user.age += 1;
        },
    ),
    (
        "a nested field",
        |s| {
            s.user().set_full_name("Grace".to_owned()).unwrap();
            s.user().update_age(|age| *age += 1).unwrap();
            s.user()
                .home()
                .update_number(|number| *number += 1)
                .unwrap();
            s.user().home().add_number(1).unwrap();
        },
        |people| {
            move_out(&mut people.user);
            people.user.age += 1;
            people.user.home.number += 1;
        },
    ),
    (
        "nested structs of a map",
        |s| {
            s.update_users(|users| users.values_mut().for_each(move_out))
                .unwrap();
        },
        |people| {
            people.users.values_mut().for_each(move_out);
        },
    ),
    (
        "a field of an element",
        |s| {
            let user = s.users().at("a").fields();
            user.set_full_name("Grace".to_owned()).unwrap();
            user.update_home(|home| home.number += 1).unwrap();
        },
        |people| move_out(people.users.get_mut("a").unwrap()),
    ),
];

#[test]
fn a_field_stored_under_an_older_name_is_changed_and_not_doubled() {
    on_every_backend("forms-aliases", |one, other| {
        let (mine, theirs) = (People::attach(one), People::attach(other));
        for (case, by_handle, by_value) in CHANGES {
            store(other, "plain", OLD);
            store(other, "user", OLD_USER);
            store(other, "by_name", &format!(r#"{{"a": {OLD}, "b": {OLD}}}"#));
            store(other, "all", &format!("[{OLD}, {OLD}]"));
            store(
                other,
                "users",
                &format!(r#"{{"a": {OLD_USER}, "b": {OLD_USER}}}"#),
            );
            let mut left = theirs.snapshot().unwrap();
            by_value(&mut left);
            by_handle(&mine);
            for state in [&theirs, &mine] {
                let read = state
                    .snapshot()
                    .unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(read, left, "{case}");
            }
        }
    });
}

/// Has had two stored forms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Versions", into = "Versions")]
struct Person {
    first: String,
    last: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "version")]
enum Versions {
    #[serde(rename = "1")]
    V1 { name: String },
    #[serde(rename = "2")]
    V2 { first: String, last: String },
}

impl Person {
    fn named(name: &str) -> Self {
        let (first, last) = name.split_once(' ').unwrap_or((name, ""));
        Self {
            first: first.to_owned(),
            last: last.to_owned(),
        }
    }
}

impl From<Versions> for Person {
    fn from(versions: Versions) -> Self {
        match versions {
            Versions::V1 { name } => Self::named(&name),
            Versions::V2 { first, last } => Self { first, last },
        }
    }
}

impl From<Person> for Versions {
    fn from(Person { first, last }: Person) -> Self {
        Self::V2 { first, last }
    }
}

/// The older form wins if both are there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "OldOrNew")]
struct Untagged {
    first: String,
    last: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OldOrNew {
    Old { name: String },
    New { first: String, last: String },
}

impl From<OldOrNew> for Untagged {
    fn from(it: OldOrNew) -> Self {
        let Person { first, last } = match it {
            OldOrNew::Old { name } => Person::named(&name),
            OldOrNew::New { first, last } => Person { first, last },
        };
        Self { first, last }
    }
}

/// The timeout used to be in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "SecondsOrMs")]
struct Settings {
    timeout_ms: u64,
}

#[derive(Deserialize)]
struct SecondsOrMs {
    timeout: Option<u64>,
    timeout_ms: Option<u64>,
}

impl From<SecondsOrMs> for Settings {
    fn from(it: SecondsOrMs) -> Self {
        Self {
            timeout_ms: it
                .timeout
                .map(|seconds| seconds * 1000)
                .or(it.timeout_ms)
                .unwrap_or(0),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct Group {
    people: Vec<Person>,
    settings: BTreeMap<String, Settings>,
}

#[test]
fn a_value_stored_in_an_older_form_reads_as_a_closure_left_it() {
    const ADA: &str = r#"{"version": "1", "name": "Ada Lovelace"}"#;
    let grace = |person: &mut Person| person.first = "Grace".to_owned();
    let quicker = |settings: &mut Settings| settings.timeout_ms = 250;
    on_every_backend("forms-older", |one, other| {
        leaves(one, other, ADA, grace);
        leaves(
            one,
            other,
            r#"{"name": "Ada Lovelace"}"#,
            |it: &mut Untagged| it.first = "Grace".to_owned(),
        );
        leaves(one, other, r#"{"timeout": 3}"#, quicker);
        leaves(one, other, r#"{"timeout": 3, "timeout_ms": 5}"#, quicker);
        leaves(
            one,
            other,
            &format!("[{ADA}, {ADA}]"),
            |it: &mut Vec<Person>| grace(&mut it[1]),
        );
        leaves(
            one,
            other,
            &format!(r#"{{"a": {ADA}}}"#),
            |it: &mut HashMap<String, Person>| {
                it.values_mut().for_each(grace);
            },
        );
        leaves(
            one,
            other,
            &format!("[null, {ADA}]"),
            |it: &mut Vec<Option<Person>>| {
                it.iter_mut().flatten().for_each(grace);
            },
        );
        leaves(
            one,
            other,
            &format!(r#"[{ADA}, {{"timeout": 3}}]"#),
            |it: &mut (Person, Settings)| {
                grace(&mut it.0);
                quicker(&mut it.1);
            },
        );
        let group = format!(r#"{{"people": [{ADA}], "settings": {{"a": {{"timeout": 3}}}}}}"#);
        leaves(one, other, &group, |it: &mut Group| {
            it.people.iter_mut().for_each(grace);
            it.settings.values_mut().for_each(quicker);
        });
        // Through a view of an element or entry.
        let (people, settings) = (
            Key::<Vec<Person>>::new("value"),
            Key::<BTreeMap<String, Settings>>::new("value"),
        );
        store(other, "value", &format!("[{ADA}]"));
        one.synced(&people).at(0).update(grace).unwrap();
        assert_eq!(
            other.get(&people).unwrap().unwrap(),
            [Person::named("Grace Lovelace")]
        );
        store(other, "value", r#"{"a": {"timeout": 3}}"#);
        one.synced(&settings).at("a").update(quicker).unwrap();
        assert_eq!(other.get(&settings).unwrap().unwrap()["a"].timeout_ms, 250);
    });
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Defaults {
    count: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip)]
    here: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flat {
    name: String,
    #[serde(flatten)]
    inner: Inner,
    #[serde(flatten)]
    rest: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Inner {
    #[serde(alias = "w")]
    width: i64,
    height: i64,
}

/// Normalises its fields when it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Normal {
    #[serde(deserialize_with = "lowercase")]
    name: String,
    #[serde(deserialize_with = "sorted")]
    list: Vec<i64>,
}

fn lowercase<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(String::deserialize(deserializer)?.to_lowercase())
}

fn sorted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
    let mut list = Vec::deserialize(deserializer)?;
    list.sort_unstable();
    Ok(list)
}

fn defaults(one: &Memory, other: &Memory) {
    for text in [
        "{}",
        r#"{"note": null, "tags": [], "extra": 1}"#,
        r#"{"note": "a", "count": 1, "tags": ["b"]}"#,
    ] {
        let changes: [fn(&mut Defaults); 6] = [
            |it| it.count += 1,
            |it| it.note = Some("new".to_owned()),
            |it| it.note = None,
            |it| it.tags.clear(),
            |it| it.tags.push("new".to_owned()),
            |it| *it = Defaults::default(),
        ];
        for change in changes {
            leaves(one, other, text, change);
            leaves(
                one,
                other,
                &format!("[{text}, {text}]"),
                |list: &mut Vec<Defaults>| change(&mut list[1]),
            );
        }
    }
}

fn flattened(one: &Memory, other: &Memory) {
    let changes: [fn(&mut Flat); 5] = [
        |it| it.inner.width += 1,
        |it| it.inner.height += 1,
        |it| _ = it.rest.insert("new".to_owned(), 1),
        |it| _ = it.rest.remove("x"),
        |it| (it.name, it.rest) = ("Grace".to_owned(), BTreeMap::new()),
    ];
    for change in changes {
        for text in [
            r#"{"x": 1, "name": "Ada", "height": 2, "width": 3}"#,
            r#"{"w": 3, "x": 1, "height": 2, "name": "Ada"}"#,
        ] {
            leaves(one, other, text, change);
            leaves(
                one,
                other,
                &format!(r#"{{"a": {text}}}"#),
                |map: &mut BTreeMap<String, Flat>| {
                    change(map.get_mut("a").unwrap());
                },
            );
        }
    }
}

fn normalised(one: &Memory, other: &Memory) {
    let changes: [fn(&mut Normal); 5] = [
        |it| it.name.push('x'),
        |it| _ = it.list.remove(0),
        |it| it.list.push(9),
        |it| it.list[1] = 2,
        |it| it.list.retain(|item| item % 2 == 0),
    ];
    for change in changes {
        leaves(
            one,
            other,
            r#"{"name": "ADA", "list": [3, 1, 2, 4]}"#,
            change,
        );
        leaves(
            one,
            other,
            r#"[{"name": "ADA", "list": [3, 1, 2, 4]}]"#,
            |list: &mut Vec<Normal>| change(&mut list[0]),
        );
    }
}

#[test]
fn omitted_flattened_and_normalised_fields_read_as_a_closure_left_them() {
    on_every_backend("forms-attributes", |one, other| {
        defaults(one, other);
        flattened(one, other);
        normalised(one, other);
    });
}

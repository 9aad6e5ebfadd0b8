//! A call changes only what its closure changed: the order of a set or a map does not matter, and
//! an enum, an array or a tuple is one part.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;

use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use synced_memory::{Key, Memory, SyncedMemory};

use crate::line::on_every_backend;

/// Each instance of a set has another order, so that a single round may pass by chance.
const ROUNDS: usize = 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Doc {
    tags: HashSet<String>,
    counts: HashMap<String, usize>,
    n: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct Profile {
    name: String,
    roles: HashSet<String>,
    #[synced(nested)]
    team: Team,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct Team {
    members: HashSet<String>,
    doc: Doc,
}

#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct App {
    doc: Doc,
    maybe: Option<Doc>,
    #[synced(nested)]
    profile: Profile,
    groups: HashMap<String, HashSet<String>>,
    docs: Vec<Doc>,
    deep: BTreeMap<String, Vec<Doc>>,
}

fn members() -> HashSet<String> {
    (0..8).map(|n| format!("t{n}")).collect()
}

fn doc(n: usize) -> Doc {
    Doc {
        tags: members(),
        counts: members().into_iter().map(|name| (name, n)).collect(),
        n,
    }
}

fn app() -> App {
    App {
        doc: doc(0),
        maybe: Some(doc(1)),
        profile: Profile {
            name: "ada".to_owned(),
            roles: members(),
            team: Team {
                members: members(),
                doc: doc(2),
            },
        },
        groups: ["a", "b"].map(|name| (name.to_owned(), members())).into(),
        docs: (0..5).map(doc).collect(),
        deep: ["a", "b"]
            .map(|name| (name.to_owned(), vec![doc(3), doc(4)]))
            .into(),
    }
}

/// Stores a text as another program does, with any order, names and spelling.
pub(crate) fn store(memory: &Memory, name: &'static str, text: &str) {
    let raw = RawValue::from_string(text.to_owned()).expect("it is JSON");
    memory.set(&Key::<Box<RawValue>>::new(name), raw).unwrap();
}

/// Stores `text` and changes it by a closure; checks that both memories then read what the closure
/// left.
#[track_caller]
pub(crate) fn leaves<T>(one: &Memory, other: &Memory, text: &str, closure: impl Fn(&mut T))
where
    T: synced_memory::Value + PartialEq + Debug,
{
    let key = Key::<T>::new("value");
    store(other, "value", text);
    let mut left: T = serde_json::from_str(text).unwrap();
    closure(&mut left);
    one.synced(&key)
        .update(&closure)
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let stored = |memory: &Memory| memory.get(&Key::<Box<RawValue>>::new("value")).unwrap();
    for memory in [one, other] {
        let read = memory
            .get(&key)
            .unwrap_or_else(|error| panic!("{text} became {:?}: {error}", stored(memory)));
        assert_eq!(
            read.as_ref(),
            Some(&left),
            "{text} became {:?}",
            stored(memory)
        );
    }
}

fn remove(doc: &mut Doc, gone: &str) {
    doc.tags.remove(gone);
    doc.counts.remove(gone);
}

fn replace(doc: &mut Doc, gone: &str) {
    remove(doc, gone);
    doc.tags.insert("new".to_owned());
    doc.counts.insert("new".to_owned(), 7);
    doc.n += 1;
}

/// A closure that removes a member of a set somewhere, and the same removal in a plain value.
type Removal = (&'static str, fn(&SyncedApp, &str), fn(&mut App, &str));

const REMOVALS: &[Removal] = &[
    (
        "in a struct",
        |s, gone| s.update_doc(|doc| remove(doc, gone)).unwrap(),
        |app, gone| remove(&mut app.doc, gone),
    ),
    (
        "with an insert",
        |s, gone| s.update_doc(|doc| replace(doc, gone)).unwrap(),
        |app, gone| {
            replace(&mut app.doc, gone);
        },
    ),
    (
        "by a closure that may fail",
        |s, gone| {
            let removed = s.synced_doc().try_update(|doc| {
                remove(doc, gone);
                Ok::<_, synced_memory::Error>(())
            });
            removed.unwrap();
        },
        |app, gone| remove(&mut app.doc, gone),
    ),
    (
        "in an option",
        |s, gone| {
            s.update_maybe(|doc| remove(doc.as_mut().unwrap(), gone))
                .unwrap();
        },
        |app, gone| remove(app.maybe.as_mut().unwrap(), gone),
    ),
    (
        "in a nested struct",
        |s, gone| {
            _ = s
                .update_profile(|profile| profile.roles.remove(gone))
                .unwrap();
        },
        |app, gone| _ = app.profile.roles.remove(gone),
    ),
    (
        "in a field of a nested struct",
        |s, gone| {
            _ = s
                .profile()
                .update_roles(|roles| roles.remove(gone))
                .unwrap();
        },
        |app, gone| _ = app.profile.roles.remove(gone),
    ),
    (
        "in a nested struct of a nested struct",
        |s, gone| {
            let both = |profile: &mut Profile| {
                profile.team.members.remove(gone);
                replace(&mut profile.team.doc, gone);
            };
            s.update_profile(both).unwrap();
        },
        |app, gone| {
            app.profile.team.members.remove(gone);
            replace(&mut app.profile.team.doc, gone);
        },
    ),
    (
        "in a map of sets",
        |s, gone| {
            _ = s
                .update_groups(|groups| groups.get_mut("a").unwrap().remove(gone))
                .unwrap();
        },
        |app, gone| _ = app.groups.get_mut("a").unwrap().remove(gone),
    ),
    (
        "in a set of a map of sets",
        |s, gone| {
            _ = s
                .groups()
                .at("a")
                .update(|group| group.remove(gone))
                .unwrap();
        },
        |app, gone| _ = app.groups.get_mut("a").unwrap().remove(gone),
    ),
    (
        "in all sets of a map, by `retain`",
        |s, gone| {
            _ = s
                .groups()
                .retain(|name, group| group.remove(gone) && name == "a")
                .unwrap();
        },
        |app, gone| {
            app.groups
                .retain(|name, group| group.remove(gone) && name == "a");
        },
    ),
    (
        "in an element of a list",
        |s, gone| s.docs().at(1).update(|doc| remove(doc, gone)).unwrap(),
        |app, gone| remove(&mut app.docs[1], gone),
    ),
    (
        "in two elements of a list",
        |s, gone| {
            s.update_docs(|docs| docs[1..3].iter_mut().for_each(|doc| replace(doc, gone)))
                .unwrap();
        },
        |app, gone| app.docs[1..3].iter_mut().for_each(|doc| replace(doc, gone)),
    ),
    (
        "in a list of a map",
        |s, gone| {
            s.update_deep(|deep| replace(&mut deep.get_mut("b").unwrap()[0], gone))
                .unwrap();
        },
        |app, gone| replace(&mut app.deep.get_mut("b").unwrap()[0], gone),
    ),
    (
        "in an element of a list of a map",
        |s, gone| {
            s.deep()
                .at("b")
                .at(1)
                .update(|doc| remove(doc, gone))
                .unwrap();
        },
        |app, gone| remove(&mut app.deep.get_mut("b").unwrap()[1], gone),
    ),
];

#[test]
fn a_closure_that_removes_one_member_of_a_set_removes_nothing_else_wherever_the_set_is() {
    on_every_backend("merges-removals", |one, other| {
        let (mine, theirs) = (App::attach(one), App::attach(other));
        for (place, by_handle, by_value) in REMOVALS {
            for round in 0..ROUNDS {
                let gone = format!("t{}", round % 8);
                theirs.restore(app()).unwrap();
                let mut left = app();
                by_value(&mut left, &gone);
                by_handle(&mine, &gone);
                assert_eq!(
                    theirs.snapshot().unwrap(),
                    left,
                    "{gone} {place}, round {round}"
                );
            }
        }
    });
}

/// A call that moves elements of a list, and the same move in a plain list.
type Move = (fn(&SyncedApp), fn(&mut Vec<Doc>));

#[test]
fn elements_that_a_closure_moves_keep_the_sets_that_they_hold() {
    on_every_backend("merges-moves", |one, other| {
        let (mine, theirs) = (App::attach(one), App::attach(other));
        let moves: [Move; 5] = [
            (
                |s| s.update_docs(|docs| docs.swap(0, 3)).unwrap(),
                |docs| docs.swap(0, 3),
            ),
            (
                |s| s.update_docs(|docs| docs.rotate_left(2)).unwrap(),
                |docs| docs.rotate_left(2),
            ),
            (
                |s| {
                    s.update_docs(|docs| docs.sort_by_key(|doc| doc.n % 3))
                        .unwrap();
                },
                |docs| {
                    docs.sort_by_key(|doc| doc.n % 3);
                },
            ),
            (|s| _ = s.docs().reverse().unwrap(), |docs| docs.reverse()),
            (
                |s| _ = s.docs().retain(|doc| doc.n != 2).unwrap(),
                |docs| docs.retain(|doc| doc.n != 2),
            ),
        ];
        for (at, (by_handle, by_value)) in moves.iter().enumerate() {
            for round in 0..ROUNDS {
                theirs.set_docs((0..5).map(doc).collect()).unwrap();
                let mut left: Vec<Doc> = (0..5).map(doc).collect();
                by_value(&mut left);
                by_handle(&mine);
                assert_eq!(
                    theirs.docs().to_vec().unwrap(),
                    left,
                    "move {at}, round {round}"
                );
            }
        }
    });
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sorted {
    set: BTreeSet<u32>,
    n: u32,
}

#[test]
fn a_sorted_set_that_another_program_stored_unsorted_loses_only_what_a_closure_removes() {
    on_every_backend("merges-unsorted", |one, other| {
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..ROUNDS * 2 {
            let mut members: Vec<u32> = (0..12).collect();
            rng.shuffle(&mut members);
            let text = serde_json::to_string(&members).unwrap();
            let gone = rng.u32(..12);
            let change = |set: &mut BTreeSet<u32>| {
                set.remove(&gone);
                if round % 2 == 0 {
                    set.insert(gone + 20);
                }
            };
            leaves::<BTreeSet<u32>>(one, other, &text, change);
            leaves::<Sorted>(
                one,
                other,
                &format!(r#"{{"set": {text}, "n": 1}}"#),
                |sorted| change(&mut sorted.set),
            );
            leaves::<BTreeMap<u32, BTreeSet<u32>>>(
                one,
                other,
                &format!(r#"{{"7": {text}}}"#),
                |map| {
                    change(map.get_mut(&7).unwrap());
                },
            );
            leaves::<Vec<BTreeSet<u32>>>(one, other, &format!("[[3, 1, 2], {text}]"), |list| {
                change(&mut list[1]);
            });
        }
    });
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Ordered {
    set: IndexSet<String>,
    map: IndexMap<String, i64>,
}

fn ordered() -> Ordered {
    let names = || ["c", "a", "b"].map(str::to_owned).into_iter();
    Ordered {
        set: names().collect(),
        map: names().zip(1..).collect(),
    }
}

#[test]
fn an_order_that_a_closure_changes_is_stored_if_the_order_is_part_of_the_type() {
    let changes: [fn(&mut Ordered); 5] = [
        |it| {
            it.set.sort();
            it.map.sort_keys();
        },
        |it| {
            it.set.reverse();
            it.map.reverse();
        },
        |it| {
            it.set.shift_insert(0, "z".to_owned());
            it.map.shift_insert(0, "z".to_owned(), 0);
        },
        // Moves the entry that was used last to the end.
        |it| {
            it.set.shift_remove("c");
            it.set.insert("c".to_owned());
            let value = it.map.shift_remove("c").unwrap();
            it.map.insert("c".to_owned(), value);
        },
        |it| {
            it.set.swap_indices(0, 2);
            it.map.swap_indices(0, 2);
            it.map["a"] += 1;
        },
    ];
    on_every_backend("merges-orders", |one, other| {
        let (set, map, both) = (Key::new("set"), Key::new("map"), Key::new("both"));
        // `==` ignores the order, so the texts are compared.
        let text = |it: &Ordered| serde_json::to_string(it).unwrap();
        for (at, change) in changes.iter().enumerate() {
            let Ordered {
                set: members,
                map: entries,
            } = ordered();
            other.set(&set, members).unwrap();
            other.set(&map, entries).unwrap();
            other.set(&both, ordered()).unwrap();
            let mut left = ordered();
            change(&mut left);
            let with_set = |members: &mut IndexSet<String>| {
                let mut it = Ordered {
                    set: members.clone(),
                    map: ordered().map,
                };
                change(&mut it);
                *members = it.set;
            };
            let with_map = |entries: &mut IndexMap<String, i64>| {
                let mut it = Ordered {
                    set: ordered().set,
                    map: entries.clone(),
                };
                change(&mut it);
                *entries = it.map;
            };
            one.synced(&set).update(with_set).unwrap();
            one.synced(&map).update(with_map).unwrap();
            one.synced(&both).update(change).unwrap();
            let read = Ordered {
                set: other.get(&set).unwrap().unwrap(),
                map: other.get(&map).unwrap().unwrap(),
            };
            assert_eq!(text(&read), text(&left), "change {at}, each alone");
            assert_eq!(
                text(&other.get(&both).unwrap().unwrap()),
                text(&left),
                "change {at}, both in a struct"
            );
        }
    });
}

//! The calls of users: what each is to do to the document, in plain Rust, and how it is recorded.

use serde_json::Value;

use super::document::{assigned, completed, encoded, places};
use super::kinds::Kind;
use super::plainly::plainly;
use super::reference::{Edit, Edits};
use super::ways::{Rule, ways};
use crate::handle::path::seen;
use crate::value::mutation::{
    Action, Amount, Content, Json, ObservedValue, Operation, PathSegment, PathStep, diff, element,
    elements, locate, member, members,
};

/// A call as it is handed to the state.
#[derive(Debug)]
pub(super) enum Recorded {
    /// There is nothing to write.
    Nothing,
    Assign(Value),
    Delete,
    Change(Vec<Operation>, On),
}

/// On what it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    /// On what is known, and made on anything.
    Anything,
    /// Where something else is at its places, it is recorded anew.
    Places,
    /// Where anything else is there, it is recorded anew.
    Whole,
}

const LEAST: i128 = i64::MIN as i128;
const MOST: i128 = i64::MAX as i128;

impl Kind {
    /// Records the call on what is shown, as `Synced` does; `None` where it does not apply to that.
    pub(super) fn recorded(&self, shown: Option<&str>, origin: &Json) -> Option<Recorded> {
        let at = |names: &[&str]| places(names);
        let add = |by: i64, min: i128, max: i128| Action::Add {
            amount: Amount::Integer {
                by: by.into(),
                min,
                max,
            },
        };
        let on = Recorder { shown, origin };
        let change = |operations: Vec<Operation>, how| {
            Some(if operations.is_empty() {
                Recorded::Nothing
            } else {
                Recorded::Change(operations, how)
            })
        };
        match self {
            Self::Log(items) => on.plain(
                &at(&["log"]),
                Action::Append {
                    items: texts(items),
                },
            ),
            Self::Add(by) => on.plain(&at(&["n"]), add(*by, LEAST, MOST)),
            Self::AddInMap(name, by) => {
                // As `map.at(name).add(by)`: an entry that is not there is taken for zero.
                let mut places = at(&["map", name]);
                if let Some(PathSegment::Member(last)) = places.last_mut() {
                    last.origin = Some(json(&0.into()));
                }
                on.plain(&places, add(*by, LEAST, MOST))
            }
            Self::Age(by) => on.plain(&at(&["deep", "user", "age"]), add(*by, LEAST, MOST)),
            Self::Row(index, by) => {
                let places = [at(&["rows"]), vec![PathSegment::Index(*index)], at(&["v"])].concat();
                on.plain(&places, add(*by, LEAST, MOST))
            }
            Self::Role(item) => on.plain(
                &at(&["deep", "roles"]),
                Action::Append {
                    items: texts(std::slice::from_ref(item)),
                },
            ),
            Self::Extend(items) => on.plain(
                &at(&["list"]),
                Action::Append {
                    items: texts(items),
                },
            ),
            Self::Include(items) => on.plain(
                &at(&["tags"]),
                Action::Include {
                    items: texts(items),
                },
            ),
            Self::Exclude(item) => {
                let spot = on.spot(&at(&["tags"]))?;
                let list = elements(spot.text.as_deref()?).ok()?;
                let items = texts(std::slice::from_ref(item));
                if !list.contains(&items[0].as_str()) {
                    return Some(Recorded::Nothing);
                }
                change(vec![below(&spot, Action::Exclude { items })], On::Places)
            }
            Self::Transfer(by) => {
                let a = on.spot(&at(&["purse", "a"]))?.path;
                let b = on.spot(&at(&["purse", "b"]))?.path;
                let give = Operation {
                    path: a,
                    action: add(-by, 0, 120),
                };
                change(
                    vec![
                        give,
                        Operation {
                            path: b,
                            action: add(*by, LEAST, MOST),
                        },
                    ],
                    On::Anything,
                )
            }
            Self::LogAndAdd(item, by) => {
                let log = below(
                    &on.spot(&at(&["log"]))?,
                    Action::Append {
                        items: texts(std::slice::from_ref(item)),
                    },
                );
                let n = below(&on.spot(&at(&["n"]))?, add(*by, LEAST, MOST));
                change(vec![log, n], On::Anything)
            }
            Self::Insert(index, item) => {
                let spot = on.spot(&at(&["list"]))?;
                let items = texts(std::slice::from_ref(item));
                let action = match element(&elements(spot.text.as_deref()?).ok()?, *index) {
                    Some(before) => Action::InsertAt { before, items },
                    None => Action::Append { items },
                };
                change(vec![below(&spot, action)], On::Anything)
            }
            Self::RemoveAt(index) => on.taken(|list| (*index < list.len()).then_some(*index)),
            Self::Pop => on.taken(|list| list.len().checked_sub(1)),
            Self::RemoveItem(item) => {
                let content = Content::of(&item.to_string());
                on.taken(|list| {
                    list.iter()
                        .position(|element| Content::of(element) == content)
                })
            }
            Self::SetAt(index, item) => on.set(
                &[at(&["list"]), vec![PathSegment::Index(*index)]].concat(),
                item,
                On::Anything,
            ),
            Self::Clear(name) => on.set(&at(&[name]), &Value::Array(Vec::new()), On::Anything),
            Self::ClearMap => on.set(
                &at(&["map"]),
                &Value::Object(serde_json::Map::new()),
                On::Anything,
            ),
            Self::MapInsert(name, value) => {
                let map = on.spot(&at(&["map"]))?;
                let before = member(map.text.as_deref()?, name).ok()?.map(Content::of);
                on.put(
                    &at(&["map", name]),
                    Action::Set {
                        value: json(value),
                        seen: before.into(),
                    },
                )
            }
            Self::MapExtend(entries) => {
                let map = on.spot(&at(&["map"]))?;
                let there = members(map.text.as_deref()?).ok()?;
                let operations = entries.iter().map(|(name, value)| {
                    let before = there
                        .iter()
                        .find(|(other, _)| other == name)
                        .map(|(_, before)| Content::of(before));
                    let action = Action::Set {
                        value: json(value),
                        seen: before.into(),
                    };
                    Operation {
                        path: on
                            .spot(&at(&["map", name]))
                            .map(|spot| spot.path)
                            .unwrap_or_default(),
                        action,
                    }
                });
                change(operations.collect(), On::Anything)
            }
            Self::GetOrInsert(name, value) => {
                let map = on.spot(&at(&["map"]))?;
                if member(map.text.as_deref()?, name).ok()?.is_some() {
                    return Some(Recorded::Nothing);
                }
                on.put(
                    &at(&["map", name]),
                    Action::SetIfAbsent { value: json(value) },
                )
            }
            Self::MapRemove(name) => on.removed(&at(&["map", name])),
            Self::Name(name) => on.set(&at(&["deep", "user", "name"]), name, On::Anything),
            Self::NoName => on.removed(&at(&["deep", "user", "name"])),
            Self::User(user) => on.set(&at(&["deep", "user"]), user, On::Anything),
            Self::NoUser => on.removed(&at(&["deep", "user"])),
            Self::Assign(mark) => Some(Recorded::Assign(assigned(*mark))),
            Self::Delete => Some(Recorded::Delete),
            _ => on.closure(self),
        }
    }

    /// The element that it takes out of the list, and what brings that back, as `Synced` has it;
    /// nothing where it takes none.
    pub(super) fn taken(&self, shown: Option<&str>, origin: &Json) -> Option<(Json, Operation)> {
        let spot = Recorder { shown, origin }.spot(&places(&["list"]))?;
        let mut list = elements(spot.text.as_deref()?).ok()?;
        let index = match self {
            Self::RemoveAt(index) => *index,
            Self::Pop => list.len().checked_sub(1)?,
            _ => return None,
        };
        let item = Json::parse(list.remove(index).to_owned()).ok()?;
        let items = vec![item.clone()];
        let action = match element(&list, index) {
            Some(before) => Action::InsertAt { before, items },
            None => Action::Append { items },
        };
        Some((item, below(&spot, action)))
    }

    /// What the operations say, in the terms of the reference; and whether they come to what the
    /// call is to do, done to what is shown.
    pub(super) fn edits(
        &self,
        operations: &[Operation],
        shown: Option<&Value>,
        origin: &Value,
    ) -> Result<Vec<Edit>, String> {
        let mut now = shown.cloned();
        let mut edits = Vec::new();
        for operation in operations {
            let edit = Edit::of(operation, now.as_ref(), Some(origin));
            let one = Edits {
                all: vec![edit.clone()],
                ..Edits::default()
            };
            let way =
                ways(now, Some(origin), &[&one], Rule::Latest).and_then(|mut ways| ways.pop());
            now = way.and_then(|way| way.value);
            edits.push(edit);
        }
        let mut expected = completed(shown);
        let made = plainly(self, &mut expected);
        let result = completed(now.as_ref());
        if made && result != completed(Some(&expected)) {
            return Err(format!(
                "{self:?} on {shown:?} is recorded as what makes {result} instead of {expected}"
            ));
        }
        Ok(edits)
    }
}

struct Recorder<'a> {
    shown: Option<&'a str>,
    origin: &'a Json,
}

/// A place in what is shown.
struct Found {
    path: Vec<PathStep>,
    text: Option<String>,
    exists: bool,
    seen: ObservedValue,
}

impl Recorder<'_> {
    fn spot(&self, places: &[PathSegment]) -> Option<Found> {
        let spot = locate(self.shown, Some(self.origin), places).ok()?;
        let seen = seen(&spot);
        Some(Found {
            path: spot.path,
            text: spot.found.map(str::to_owned),
            exists: spot.exists,
            seen,
        })
    }

    fn plain(&self, places: &[PathSegment], action: Action) -> Option<Recorded> {
        Some(Recorded::Change(
            vec![below(&self.spot(places)?, action)],
            On::Anything,
        ))
    }

    fn put(&self, places: &[PathSegment], action: Action) -> Option<Recorded> {
        Some(Recorded::Change(
            vec![below(&self.spot(places)?, action)],
            On::Places,
        ))
    }

    fn set(&self, places: &[PathSegment], value: &Value, on: On) -> Option<Recorded> {
        let spot = self.spot(places)?;
        Some(Recorded::Change(
            vec![below(
                &spot,
                Action::Set {
                    value: json(value),
                    seen: spot.seen,
                },
            )],
            on,
        ))
    }

    fn removed(&self, places: &[PathSegment]) -> Option<Recorded> {
        let spot = self.spot(places)?;
        if !spot.exists {
            return Some(Recorded::Nothing);
        }
        Some(Recorded::Change(
            vec![below(&spot, Action::Remove { seen: spot.seen })],
            On::Places,
        ))
    }

    fn taken(&self, pick: impl Fn(&[&str]) -> Option<usize>) -> Option<Recorded> {
        let spot = self.spot(&places(&["list"]))?;
        let list = elements(spot.text.as_deref()?).ok()?;
        let Some(element) = pick(&list).and_then(|index| element(&list, index)) else {
            return Some(Recorded::Nothing);
        };
        let seen = ObservedValue::Content(element.content);
        let path = [&spot.path[..], &[PathStep::Element(element)]].concat();
        Some(Recorded::Change(
            vec![Operation {
                path,
                action: Action::Remove { seen },
            }],
            On::Places,
        ))
    }

    fn closure(&self, kind: &Kind) -> Option<Recorded> {
        match kind {
            Kind::Truncate(_) | Kind::Splice(..) | Kind::Sort | Kind::Swap(..) => {
                self.difference(&places(&["list"]), "list", kind)
            }
            Kind::Retain(name, _) => self.difference(&places(&[name]), name, kind),
            Kind::Count(..) | Kind::Move(..) => self.difference(&places(&["map"]), "map", kind),
            Kind::Tag(..) => self.difference(&places(&["tags"]), "tags", kind),
            Kind::EditRow(..) => self.difference(&places(&["rows"]), "rows", kind),
            Kind::Update(..) | Kind::Person(..) | Kind::Spend(_) => self.difference(&[], "", kind),
            Kind::Withdraw => Some(self.shown.map_or(Recorded::Nothing, |shown| {
                let seen = ObservedValue::Content(Content::of(shown));
                Recorded::Change(
                    vec![Operation {
                        path: Vec::new(),
                        action: Action::Remove { seen },
                    }],
                    On::Whole,
                )
            })),
            _ => None,
        }
    }

    /// What a closure makes of a place.
    fn difference(&self, places: &[PathSegment], name: &str, kind: &Kind) -> Option<Recorded> {
        let spot = self.spot(places)?;
        let found = spot.text.as_deref()?;
        let before: Value = serde_json::from_str(found).ok()?;
        // As its type reads it: what is missing is what it is taken for.
        let mut whole = completed(name.is_empty().then_some(&before));
        if !name.is_empty() {
            whole[name] = before;
        }
        let before = whole.clone();
        if !plainly(kind, &mut whole) {
            return None;
        }
        let [before, after] =
            [&before, &whole].map(|whole| if name.is_empty() { whole } else { &whole[name] });
        let operations = diff(found, &encoded(name, before), &encoded(name, after), &[]);
        let operations: Vec<Operation> = operations
            .into_iter()
            .map(|Operation { path, action }| Operation {
                path: [&spot.path[..], &path].concat(),
                action,
            })
            .collect();
        Some(if operations.is_empty() {
            Recorded::Nothing
        } else {
            Recorded::Change(operations, On::Whole)
        })
    }
}

fn below(spot: &Found, action: Action) -> Operation {
    Operation {
        path: spot.path.clone(),
        action,
    }
}

fn json(value: &Value) -> Json {
    Json::parse(value.to_string()).expect("a value is JSON")
}

fn texts(items: &[Value]) -> Vec<Json> {
    items.iter().map(json).collect()
}

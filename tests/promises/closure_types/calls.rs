//! Calls that change a value, each by a view of it and by what it has to come to.

use std::collections::HashMap;

use fastrand::Rng;
use synced_memory::{Error, Key, Memory, Synced, SyncedMemory, Value};

use super::any::Any;
use super::collections::in_order;
use super::people::Person;

/// What this test stores.
pub(super) trait Tested: Any + Value {}

impl<T: Any + Value> Tested for T {}

/// The name of the one key of a case; each has a scope of its own.
pub(super) const NAME: &str = "value";

pub(super) fn view<T: Value>(memory: &Memory) -> Synced<T> {
    memory.synced(&Key::new(NAME))
}

/// What went wrong, if anything did.
pub(super) type Told = Result<(), String>;

type ByView<T> = fn(&Memory, &T, u64) -> Told;
type ByValue<T> = fn(&mut T, u64);

/// One call. What it does depends on a seed, and for some on the value that is there.
pub(super) struct Call<T> {
    pub(super) name: &'static str,
    /// It runs a closure: while cut off it is recorded as the difference that this made.
    pub(super) is_closure: bool,
    pub(super) by_view: ByView<T>,
    pub(super) by_value: ByValue<T>,
    /// Whether it may have left this as well: what was there, and what is there now.
    pub(super) may_leave: fn(&T, &T) -> bool,
}

impl<T> Call<T> {
    pub(super) fn closure(name: &'static str, by_view: ByView<T>, by_value: ByValue<T>) -> Self {
        Self {
            name,
            is_closure: true,
            by_view,
            by_value,
            may_leave: |_, _| false,
        }
    }

    pub(super) fn plain(name: &'static str, by_view: ByView<T>, by_value: ByValue<T>) -> Self {
        Self {
            name,
            is_closure: false,
            by_view,
            by_value,
            may_leave: |_, _| false,
        }
    }

    pub(super) fn or(self, may_leave: fn(&T, &T) -> bool) -> Self {
        Self { may_leave, ..self }
    }
}

/// What the closures of this test do: for one seed always the same.
pub(super) fn change<T: Any>(value: &mut T, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    for _ in 0..[0, 1, 1, 1, 1, 2, 2, 3][rng.usize(..8)] {
        value.change(&mut rng);
    }
}

pub(super) fn told<R>(result: Result<R, Error>) -> Told {
    result.map(drop).map_err(|error| error.to_string())
}

/// For a call that says whether what it names is there.
pub(super) fn told_whether(is_there: Result<bool, Error>, expected: bool) -> Told {
    match is_there {
        Ok(is_there) if is_there != expected => Err(format!("the call says {is_there}")),
        result => told(result),
    }
}

/// The `Err` of a closure.
enum Refused {
    ByClosure,
    ByMemory(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::ByMemory(error)
    }
}

/// A place in what has so many, chosen by a seed.
pub(super) fn place(len: usize, seed: u64) -> usize {
    Rng::with_seed(seed).usize(..len)
}

/// The calls that each view has.
pub(super) fn of_any<T: Tested>() -> Vec<Call<T>> {
    vec![
        Call::closure(
            "update",
            |memory, _, seed| told(view::<T>(memory).update(|value| change(value, seed))),
            change,
        ),
        Call::closure(
            "try_update",
            |memory, _, seed| {
                told(view::<T>(memory).try_update(|value| {
                    change(value, seed);
                    Ok::<_, Error>(())
                }))
            },
            change,
        ),
        Call::closure(
            "try_update that fails",
            |memory, _, seed| {
                let tried = view::<T>(memory).try_update(|value| {
                    change(value, seed);
                    Err::<(), _>(Refused::ByClosure)
                });
                match tried {
                    Err(Refused::ByClosure) => Ok(()),
                    Err(Refused::ByMemory(error)) => Err(error.to_string()),
                    Ok(()) => Err("the closure failed, and the call did not".to_owned()),
                }
            },
            |_, _| {},
        ),
        Call::closure(
            "Memory::update",
            |memory, _, seed| {
                told(memory.update(&Key::<T>::new(NAME), |value| {
                    change(value.as_mut().expect("it is set"), seed);
                }))
            },
            change,
        ),
    ]
}

/// A struct that is nested, as the field of another.
#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct Root {
    #[synced(nested)]
    value: Person,
}

/// The calls by the handle of a nested struct.
pub(super) fn of_nested() -> Vec<Call<Person>> {
    vec![
        Call::closure(
            "update_value",
            |memory, _, seed| {
                told(Root::attach(memory).update_value(|person| change(person, seed)))
            },
            change,
        ),
        Call::closure(
            "update_tags",
            |memory, _, seed| {
                told(
                    Root::attach(memory)
                        .value()
                        .update_tags(|tags| change(tags, seed)),
                )
            },
            |person, seed| change(&mut person.tags, seed),
        ),
        Call::closure(
            "update_years",
            |memory, _, seed| {
                told(
                    Root::attach(memory)
                        .value()
                        .update_years(|years| change(years, seed)),
                )
            },
            |person, seed| change(&mut person.years, seed),
        ),
        Call::closure(
            "update_home_address",
            |memory, _, seed| {
                told(
                    Root::attach(memory)
                        .value()
                        .update_home_address(|address| change(address, seed)),
                )
            },
            |person, seed| change(&mut person.home_address, seed),
        ),
        Call::closure(
            "update_rooms",
            |memory, _, seed| {
                told(
                    Root::attach(memory)
                        .value()
                        .home_address()
                        .update_rooms(|rooms| change(rooms, seed)),
                )
            },
            |person, seed| change(&mut person.home_address.rooms, seed),
        ),
    ]
}

/// The calls by the handle of an element.
pub(super) fn of_listed() -> Vec<Call<Vec<Person>>> {
    vec![Call::plain(
        "at(i).fields().update_tags",
        |memory, before, seed| match before.len() {
            0 => Ok(()),
            len => {
                let person = view::<Vec<Person>>(memory).at(place(len, seed)).fields();
                told(person.update_tags(|tags| change(tags, seed)))
            }
        },
        |list, seed| match list.len() {
            0 => {}
            len => change(&mut list[place(len, seed)].tags, seed),
        },
    )]
}

/// The calls by the handle of an entry.
pub(super) fn of_mapped() -> Vec<Call<HashMap<String, Person>>> {
    vec![Call::plain(
        "at(k).fields().update_home_address",
        |memory, before, seed| match before.len() {
            0 => Ok(()),
            len => {
                let key = &in_order(before.keys())[place(len, seed)];
                let person = view::<HashMap<String, Person>>(memory).at(key).fields();
                told(person.update_home_address(|address| change(address, seed)))
            }
        },
        |map, seed| {
            if !map.is_empty() {
                let key = &in_order(map.keys())[place(map.len(), seed)];
                change(
                    &mut map.get_mut(key).expect("it is there").home_address,
                    seed,
                );
            }
        },
    )]
}

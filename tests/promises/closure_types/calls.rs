//! Calls that change a value: each as a call of a view, and as the same change of a plain value.

use std::collections::HashMap;

use fastrand::Rng;
use synced_memory::{Error, Key, Memory, Synced, SyncedMemory, Value};

use super::any::Any;
use super::collections::in_order;
use super::people::Person;

/// A type of which this test stores values.
pub(super) trait Tested: Any + Value {}

impl<T: Any + Value> Tested for T {}

/// The name of the only key of a case; each case has its own scope.
pub(super) const NAME: &str = "value";

pub(super) fn view<T: Value>(memory: &Memory) -> Synced<T> {
    memory.synced(&Key::new(NAME))
}

/// The error of a call as text.
pub(super) type CallResult = Result<(), String>;

type ByView<T> = fn(&Memory, &T, u64) -> CallResult;
type ByValue<T> = fn(&mut T, u64);

/// One call. What it does depends on a seed, and for some calls on the current value.
pub(super) struct Call<T> {
    pub(super) name: &'static str,
    /// Whether it runs a closure, which is recorded as a difference while cut off.
    pub(super) is_closure: bool,
    pub(super) by_view: ByView<T>,
    pub(super) by_value: ByValue<T>,
    /// Whether it may also have left another result: given the value before, and the value now.
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

/// What the closures of this test do; always the same for one seed.
pub(super) fn change<T: Any>(value: &mut T, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    for _ in 0..[0, 1, 1, 1, 1, 2, 2, 3][rng.usize(..8)] {
        value.change(&mut rng);
    }
}

pub(super) fn checked<R>(result: Result<R, Error>) -> CallResult {
    result.map(drop).map_err(|error| error.to_string())
}

/// For a call that returns whether an element or key is there.
pub(super) fn checked_presence(is_there: Result<bool, Error>, expected: bool) -> CallResult {
    match is_there {
        Ok(is_there) if is_there != expected => Err(format!("the call returned {is_there}")),
        result => checked(result),
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

/// An index below `len`, chosen by a seed.
pub(super) fn index_in(len: usize, seed: u64) -> usize {
    Rng::with_seed(seed).usize(..len)
}

/// The calls that every view has.
pub(super) fn of_any<T: Tested>() -> Vec<Call<T>> {
    vec![
        Call::closure(
            "update",
            |memory, _, seed| checked(view::<T>(memory).update(|value| change(value, seed))),
            change,
        ),
        Call::closure(
            "try_update",
            |memory, _, seed| {
                checked(view::<T>(memory).try_update(|value| {
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
                checked(memory.update(&Key::<T>::new(NAME), |value| {
                    change(value.as_mut().expect("it is set"), seed);
                }))
            },
            change,
        ),
    ]
}

/// A struct with a nested struct as a field.
#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct Root {
    #[synced(nested)]
    value: Person,
}

/// Calls of the handle of a nested struct.
pub(super) fn of_nested() -> Vec<Call<Person>> {
    vec![
        Call::closure(
            "update_value",
            |memory, _, seed| {
                checked(Root::attach(memory).update_value(|person| change(person, seed)))
            },
            change,
        ),
        Call::closure(
            "update_tags",
            |memory, _, seed| {
                checked(
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
                checked(
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
                checked(
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
                checked(
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

/// Calls of the handle of an element.
pub(super) fn of_listed() -> Vec<Call<Vec<Person>>> {
    vec![Call::plain(
        "at(i).fields().update_tags",
        |memory, before, seed| match before.len() {
            0 => Ok(()),
            len => {
                let person = view::<Vec<Person>>(memory).at(index_in(len, seed)).fields();
                checked(person.update_tags(|tags| change(tags, seed)))
            }
        },
        |list, seed| match list.len() {
            0 => {}
            len => change(&mut list[index_in(len, seed)].tags, seed),
        },
    )]
}

/// Calls of the handle of an entry.
pub(super) fn of_mapped() -> Vec<Call<HashMap<String, Person>>> {
    vec![Call::plain(
        "at(k).fields().update_home_address",
        |memory, before, seed| match before.len() {
            0 => Ok(()),
            len => {
                let key = &in_order(before.keys())[index_in(len, seed)];
                let person = view::<HashMap<String, Person>>(memory).at(key).fields();
                checked(person.update_home_address(|address| change(address, seed)))
            }
        },
        |map, seed| {
            if !map.is_empty() {
                let key = &in_order(map.keys())[index_in(map.len(), seed)];
                change(
                    &mut map.get_mut(key).expect("it is there").home_address,
                    seed,
                );
            }
        },
    )]
}

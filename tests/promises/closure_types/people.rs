//! Structs that derive `SyncedMemory`: as a field of another each of their own fields is a part.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

use super::any::{Any, one_part};
use super::structs::structs;

structs! {
    #[derive(SyncedMemory)]
    struct Address {
        street: String,
        #[serde(alias = "no")]
        number: i64,
        rooms: HashSet<i64>,
    }

    #[derive(SyncedMemory)]
    #[serde(rename_all = "camelCase")]
    struct Person {
        full_name: String,
        #[serde(alias = "age")]
        years: i64,
        tags: HashSet<String>,
        visits: HashMap<String, i64>,
        #[synced(nested)]
        home_address: Address,
    }
}

/// What two changes of a nested struct come to: each of its fields is a part.
pub(super) fn fields_merged(start: &Person, mine: &Person, theirs: &Person, end: &Person) -> bool {
    /// Whether a field is as one of them left it, or their merge.
    fn field<'a, S, T: Any + 'a>(all: [&'a S; 4], of: impl Fn(&'a S) -> &'a T) -> bool {
        let [start, mine, theirs, end] = all.map(of);
        T::merged(start, mine, theirs, end) || one_part(start, mine, theirs, end)
    }
    let all = [start, mine, theirs, end];
    field(all, |it| &it.full_name)
        && field(all, |it| &it.years)
        && field(all, |it| &it.tags)
        && field(all, |it| &it.visits)
        && field(all, |it| &it.home_address.street)
        && field(all, |it| &it.home_address.number)
        && field(all, |it| &it.home_address.rooms)
}

/// Whether no field, nor part of one, was changed by both.
pub(super) fn fields_apart(start: &Person, mine: &Person, theirs: &Person) -> bool {
    let (at, of, by) = (
        &start.home_address,
        &mine.home_address,
        &theirs.home_address,
    );
    Any::apart(&start.full_name, &mine.full_name, &theirs.full_name)
        && Any::apart(&start.years, &mine.years, &theirs.years)
        && Any::apart(&start.tags, &mine.tags, &theirs.tags)
        && Any::apart(&start.visits, &mine.visits, &theirs.visits)
        && Any::apart(&at.street, &of.street, &by.street)
        && Any::apart(&at.number, &of.number, &by.number)
        && Any::apart(&at.rooms, &of.rooms, &by.rooms)
}

//! Structs that derive `SyncedMemory`: in a nested one each field is a part of its own.

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

/// Whether each field of a nested struct is the merge of both changes.
pub(super) fn fields_merged(start: &Person, mine: &Person, theirs: &Person, end: &Person) -> bool {
    /// Whether a field is as one of both left it, or is their merge.
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

/// Whether no field, and no part of a field, was changed by both.
pub(super) fn fields_apart(start: &Person, mine: &Person, theirs: &Person) -> bool {
    let (start_home, my_home, their_home) = (
        &start.home_address,
        &mine.home_address,
        &theirs.home_address,
    );
    Any::apart(&start.full_name, &mine.full_name, &theirs.full_name)
        && Any::apart(&start.years, &mine.years, &theirs.years)
        && Any::apart(&start.tags, &mine.tags, &theirs.tags)
        && Any::apart(&start.visits, &mine.visits, &theirs.visits)
        && Any::apart(&start_home.street, &my_home.street, &their_home.street)
        && Any::apart(&start_home.number, &my_home.number, &their_home.number)
        && Any::apart(&start_home.rooms, &my_home.rooms, &their_home.rooms)
}

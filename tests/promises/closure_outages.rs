//! A closure that ran while cut off is made if it still applies to what is stored by then, and
//! becomes a dead letter if not.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use synced_memory::{Key, Memory, Synced, SyncedMemory, Written};

use crate::line::{DEADLINE, Line, forget_dead_letters, wait_for_later_stamp};

/// Forgets all dead letters, and returns their keys.
fn take_dead_letters(memory: &Memory) -> Vec<String> {
    forget_dead_letters(memory)
        .into_iter()
        .map(|letter| letter.key)
        .collect()
}

#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct State {
    map: BTreeMap<String, i64>,
    lists: BTreeMap<String, Vec<i64>>,
    #[synced(nested)]
    user: User,
    list: Vec<i64>,
    tags: HashSet<String>,
    any: Value,
    gone_entry: BTreeMap<String, i64>,
    gone_item: Vec<i64>,
    gone_member: HashSet<String>,
    flag: bool,
    text: String,
    option: Option<i64>,
    flags: BTreeMap<String, bool>,
    count: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct User {
    name: String,
    age: i64,
    #[synced(nested)]
    home: Home,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct Home {
    street: String,
    number: i64,
}

fn entries<T: Clone>(entries: &[(&str, T)]) -> BTreeMap<String, T> {
    entries
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

fn set(members: &[&str]) -> HashSet<String> {
    members.iter().map(|member| (*member).to_owned()).collect()
}

fn state() -> State {
    State {
        map: entries(&[("a", 1), ("b", 2)]),
        lists: entries(&[("a", vec![1]), ("b", vec![2])]),
        user: User {
            name: "Ada".to_owned(),
            age: 36,
            home: Home {
                street: "Main".to_owned(),
                number: 1,
            },
        },
        list: vec![1, 2, 3],
        tags: set(&["a", "b"]),
        any: json!({"a": 1, "list": [1], "object": {"x": 1, "y": 2}}),
        gone_entry: entries(&[("a", 1), ("b", 2)]),
        gone_item: vec![1, 2, 3],
        gone_member: set(&["a", "b"]),
        flag: false,
        text: "old".to_owned(),
        option: Some(1),
        flags: entries(&[("a", false), ("b", false)]),
        count: 5,
    }
}

struct Two {
    line: Line,
    mine: SyncedState,
    theirs: SyncedState,
}

impl Two {
    /// Both have read the same state.
    fn new() -> Self {
        let line = Line::new();
        let (mine, theirs) = line.attach::<State>();
        theirs.restore(state()).unwrap();
        assert_eq!(mine.snapshot().unwrap(), state());
        Self { line, mine, theirs }
    }

    fn down(&self) {
        self.line.down(self.mine.memory());
    }

    /// Waits until writes of the other process have later stamps than `view`.
    fn wait_for_later_stamps<T: synced_memory::Value>(&self, view: &Synced<T>) {
        wait_for_later_stamp(self.theirs.memory(), view.last_modified().unwrap());
    }

    fn up(&self) {
        self.line.deliver(self.mine.memory());
        assert_eq!(
            self.mine.snapshot().unwrap(),
            self.theirs.snapshot().unwrap()
        );
    }

    #[track_caller]
    fn assert_counts(&self, dead_letters: &[&str], superseded: u64) {
        assert_eq!(take_dead_letters(self.mine.memory()), dead_letters);
        assert_eq!(self.mine.memory().status().superseded, superseded);
    }
}

#[test]
fn closures_that_change_different_parts_are_both_made_although_one_ran_while_cut_off() {
    let two = Two::new();
    let (mine, theirs) = (&two.mine, &two.theirs);
    let mut left = state();
    two.down();
    // Different entries, old ones and new ones.
    let change = |map: &mut BTreeMap<String, i64>| {
        map.insert("a".to_owned(), 10);
        map.insert("mine".to_owned(), 3);
    };
    mine.update_map(change).unwrap();
    let change = |map: &mut BTreeMap<String, i64>| {
        map.remove("b");
        map.insert("theirs".to_owned(), 4);
    };
    theirs.update_map(change).unwrap();
    left.map = entries(&[("a", 10), ("mine", 3), ("theirs", 4)]);
    // Different fields, to any depth.
    let change = |user: &mut User| (user.name, user.home.number) = ("Grace".to_owned(), 2);
    mine.update_user(change).unwrap();
    theirs
        .update_user(|user| (user.age, user.home.street) = (37, "Side".to_owned()))
        .unwrap();
    left.user = User {
        name: "Grace".to_owned(),
        age: 37,
        home: Home {
            street: "Side".to_owned(),
            number: 2,
        },
    };
    // Appends, also to one list in a map, and other changes of one list.
    mine.update_list(|list| list.push(8)).unwrap();
    mine.list().retain(|item| *item != 2).unwrap();
    let change = |list: &mut Vec<i64>| {
        list[0] = 10;
        list.push(7);
    };
    theirs.update_list(change).unwrap();
    left.list = vec![10, 3, 7, 8];
    mine.update_lists(|lists| lists.get_mut("a").unwrap().push(8))
        .unwrap();
    theirs
        .update_lists(|lists| lists.get_mut("a").unwrap().extend([6, 7]))
        .unwrap();
    left.lists = entries(&[("a", vec![1, 6, 7, 8]), ("b", vec![2])]);
    // Members of a set.
    mine.update_tags(|tags| tags.insert("mine".to_owned()) && tags.remove("a"))
        .unwrap();
    theirs
        .update_tags(|tags| tags.extend(["theirs".to_owned(), "mine".to_owned()]))
        .unwrap();
    left.tags = set(&["b", "mine", "theirs"]);
    // Members of an object.
    let change = |any: &mut Value| (any["object"]["x"], any["new"]) = (json!(10), json!([1]));
    mine.update_any(change).unwrap();
    theirs
        .update_any(|any| (any["object"]["y"], any["a"]) = (json!(20), json!("text")))
        .unwrap();
    left.any = json!({"a": "text", "list": [1], "object": {"x": 10, "y": 20}, "new": [1]});
    two.up();
    assert_eq!(theirs.snapshot().unwrap(), left);
    two.assert_counts(&[], 0);
}

#[test]
fn a_closure_that_only_removes_what_is_already_gone_succeeds() {
    let two = Two::new();
    let (mine, theirs) = (&two.mine, &two.theirs);
    two.down();
    for state in [mine, theirs] {
        state
            .update_map(|map| map.retain(|name, _| name != "a"))
            .unwrap();
        state.map().retain(|name, _| name != "b").unwrap();
        state.update_list(|list| list.remove(1)).unwrap();
        state.list().retain(|item| *item != 3).unwrap();
        state.update_tags(|tags| tags.remove("a")).unwrap();
        state
            .update_any(|any| any.as_object_mut().unwrap().remove("a"))
            .unwrap();
    }
    two.up();
    let left = State {
        map: entries(&[]),
        list: vec![1],
        tags: set(&["b"]),
        any: json!({"list": [1], "object": {"x": 1, "y": 2}}),
        ..state()
    };
    assert_eq!(theirs.snapshot().unwrap(), left);
    two.assert_counts(&[], 0);
}

#[test]
fn a_closure_that_deletes_what_is_already_deleted_succeeds() {
    let two = Two::new();
    two.down();
    for state in [&two.mine, &two.theirs] {
        let was_there = state
            .memory()
            .update(&Key::<i64>::new("count"), |count| count.take().is_some());
        assert!(was_there.unwrap());
    }
    two.line.up();
    two.mine.memory().flush(DEADLINE).unwrap();
    assert_eq!(
        (
            two.mine.synced_count().find().unwrap(),
            two.theirs.synced_count().find().unwrap()
        ),
        (None, None)
    );
    two.assert_counts(&[], 0);
}

#[test]
fn a_closure_that_removes_and_changes_is_a_dead_letter_if_what_it_removes_is_gone() {
    let two = Two::new();
    two.down();
    let moves = |map: &mut BTreeMap<String, i64>| {
        let a = map.remove("a").unwrap();
        *map.get_mut("b").unwrap() += a;
    };
    two.mine.update_map(moves).unwrap();
    two.theirs.map().remove("a").unwrap();
    two.up();
    assert_eq!(two.theirs.map().to_map().unwrap(), entries(&[("b", 2)]));
    two.assert_counts(&["memory:map"], 0);
}

#[test]
fn a_closure_whose_result_is_already_stored_succeeds_unless_it_is_a_number() {
    let two = Two::new();
    two.down();
    for state in [&two.mine, &two.theirs] {
        state.update_flag(|flag| *flag = true).unwrap();
        state.update_text(|text| text.push_str(" and new")).unwrap();
        state.update_option(|option| *option = None).unwrap();
        state
            .update_flags(|flags| flags.insert("a".to_owned(), true))
            .unwrap();
        state.update_count(|count| *count += 1).unwrap();
        state
            .update_map(|map| *map.get_mut("a").unwrap() += 1)
            .unwrap();
    }
    two.up();
    let left = State {
        flag: true,
        text: "old and new".to_owned(),
        option: None,
        flags: entries(&[("a", true), ("b", false)]),
        count: 6,
        map: entries(&[("a", 2), ("b", 2)]),
        ..state()
    };
    assert_eq!(two.theirs.snapshot().unwrap(), left);
    let mut dead = take_dead_letters(two.mine.memory());
    dead.sort_unstable();
    assert_eq!(
        dead,
        ["memory:count", "memory:map"],
        "only `add` says that the change is an addition"
    );
}

#[test]
fn a_new_entry_that_another_process_inserted_meanwhile_is_not_replaced() {
    let two = Two::new();
    two.down();
    two.mine
        .update_map(|map| *map.entry("new".to_owned()).or_default() += 1)
        .unwrap();
    two.theirs
        .update_map(|map| *map.entry("new".to_owned()).or_default() += 7)
        .unwrap();
    two.up();
    assert_eq!(two.theirs.map().at("new").get().unwrap(), 7);
    two.assert_counts(&["memory:map"], 0);
}

#[test]
fn a_dead_letter_includes_the_later_calls_that_build_on_it_and_no_others() {
    let two = Two::new();
    two.theirs
        .map()
        .extend(entries(&[("c", 3), ("d", 4)]))
        .unwrap();
    two.mine.map().len().unwrap();
    two.down();
    two.mine
        .update_map(|map| *map.get_mut("a").unwrap() += 10)
        .unwrap();
    let builds_on_it = |map: &mut BTreeMap<String, i64>| {
        *map.get_mut("a").unwrap() -= 5;
        *map.get_mut("b").unwrap() += 5;
    };
    two.mine.update_map(builds_on_it).unwrap();
    // These build on what that call wrote.
    two.mine
        .update_map(|map| *map.get_mut("b").unwrap() += 100)
        .unwrap();
    two.mine.map().at("b").update(|b| *b += 100).unwrap();
    // These do not.
    two.mine
        .update_map(|map| *map.get_mut("c").unwrap() += 1)
        .unwrap();
    two.mine.map().at("d").add(1).unwrap();
    assert_eq!(
        two.mine.map().to_map().unwrap(),
        entries(&[("a", 6), ("b", 207), ("c", 4), ("d", 5)])
    );
    two.theirs.map().at("a").add(1).unwrap();
    two.up();
    assert_eq!(
        two.theirs.map().to_map().unwrap(),
        entries(&[("a", 2), ("b", 2), ("c", 4), ("d", 5)])
    );
    two.assert_counts(&["memory:map"], 0);
}

#[test]
fn a_closure_on_a_superseded_assignment_is_superseded_with_it() {
    let two = Two::new();
    two.down();
    assert_eq!(two.mine.set_count(100).unwrap(), Written::Queued);
    two.mine.update_count(|count| *count += 1).unwrap();
    assert_eq!(two.mine.count().unwrap(), 101);
    two.wait_for_later_stamps(two.mine.synced_count());
    two.theirs.set_count(7).unwrap();
    two.mine.map().at("a").set(100).unwrap();
    two.mine
        .update_map(|map| *map.get_mut("a").unwrap() += 1)
        .unwrap();
    two.wait_for_later_stamps(two.mine.map());
    two.theirs.map().at("a").set(7).unwrap();
    two.up();
    assert_eq!(
        (
            two.theirs.count().unwrap(),
            two.theirs.map().at("a").get().unwrap()
        ),
        (7, 7)
    );
    assert_eq!(
        take_dead_letters(two.mine.memory()),
        [""; 0],
        "it is superseded, not a dead letter"
    );
    // Two assignments, and the closures on them, which may be counted separately.
    let superseded = two.mine.memory().status().superseded;
    assert!((2..=4).contains(&superseded), "{superseded}");
}

#[test]
fn a_closure_that_deletes_while_cut_off_deletes_nothing_that_another_process_wrote_meanwhile() {
    let two = Two::new();
    let (count, option) = (Key::<i64>::new("count"), Key::<Option<i64>>::new("option"));
    let text = Key::<String>::new("text");
    two.down();
    // One write before the closure and one after it: this process has seen neither.
    two.theirs.add_count(1).unwrap();
    two.mine
        .memory()
        .update(&count, |count| *count = None)
        .unwrap();
    two.mine
        .memory()
        .update(&option, |option| *option = None)
        .unwrap();
    assert_eq!(
        (
            two.mine.memory().get(&count).unwrap(),
            two.mine.memory().get(&option).unwrap()
        ),
        (None, None)
    );
    two.theirs
        .update_option(|option| option.as_mut().map(|option| *option += 1))
        .unwrap();
    // A value that no other process has changed is deleted.
    two.mine
        .memory()
        .update(&text, |text| *text = None)
        .unwrap();
    // This key was never read.
    two.mine
        .memory()
        .update(&Key::<i64>::new("made"), |made| *made = Some(1))
        .unwrap_err();
    two.line.up();
    two.mine.memory().flush(DEADLINE).unwrap();
    for state in [&two.theirs, &two.mine] {
        assert_eq!(
            (state.count().unwrap(), state.synced_text().find().unwrap()),
            (6, None)
        );
    }
    assert_eq!(two.theirs.option().unwrap(), Some(2));
    let mut dead = take_dead_letters(two.mine.memory());
    dead.sort_unstable();
    assert_eq!(
        (dead, two.mine.memory().status().superseded),
        (
            ["memory:count", "memory:option"]
                .map(str::to_owned)
                .to_vec(),
            0
        )
    );
}

#[test]
fn a_hundred_thousand_closures_on_one_counter_while_offline_are_one_command_on_reconnect() {
    const CALLS: i64 = 100_000;
    let line = Line::new();
    let memory = line.builder().outbox_limit(2_000).build().unwrap();
    let theirs = line.open_directly();
    let (count, map) = (
        Key::<i64>::new("count"),
        Key::<BTreeMap<String, i64>>::new("map"),
    );
    for is_in_a_map in [false, true] {
        theirs.set(&count, 5).unwrap();
        theirs
            .set(&map, entries(&[("hits", 5), ("other", 1)]))
            .unwrap();
        assert!(memory.get(&count).unwrap().is_some() && memory.get(&map).unwrap().is_some());
        line.down(&memory);
        let (number, entry) = (memory.synced(&count), memory.synced(&map));
        for _ in 0..CALLS {
            if is_in_a_map {
                entry
                    .update(|map| *map.entry("hits".to_owned()).or_default() += 1)
                    .unwrap();
            } else {
                number.update(|count| *count += 1).unwrap();
            }
        }
        assert_eq!(memory.status().pending, 1);
        line.server.reset_stats();
        line.up();
        memory.flush(DEADLINE).unwrap();
        let calls = line.server.command_count("eval") + line.server.command_count("evalsha");
        assert_eq!((line.server.command_count("set"), calls), (1, 1));
        let read = (
            theirs.get(&count).unwrap().unwrap(),
            theirs.synced(&map).at("hits").get().unwrap(),
        );
        assert_eq!(
            read,
            if is_in_a_map {
                (5, 5 + CALLS)
            } else {
                (5 + CALLS, 5)
            }
        );
        assert_eq!(take_dead_letters(&memory), [""; 0]);
    }
    // Together they become one dead letter.
    line.down(&memory);
    for _ in 0..100 {
        memory.synced(&count).update(|count| *count += 1).unwrap();
    }
    theirs.set(&count, 7).unwrap();
    line.up();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(
        (
            theirs.get(&count).unwrap(),
            take_dead_letters(&memory).len()
        ),
        (Some(7), 1)
    );
}

//! Strings that somebody has made to share the number by which a journal names them are different
//! values: no call takes one for the other.

use std::collections::HashSet;
use std::fmt::Debug;
use std::time::Duration;

use synced_memory::{Key, Memory, Synced, Value};

use crate::line::{DEADLINE, Line};

/// Of 16 letters: to find another one with the same number takes a thousand tries.
const ONE: &str = "admin of company";
const OTHER: &str = "00000971oBf2Iixl";

fn both() -> [String; 2] {
    [ONE, OTHER].map(str::to_owned)
}

#[track_caller]
fn leaves<T: Value + Debug + PartialEq>(view: &Synced<T>, change: impl Fn(&mut T), expected: &T) {
    view.update(|value| change(value)).unwrap();
    assert_eq!(&view.get().unwrap(), expected);
}

fn check(memory: &Memory) {
    let [one, other] = both();
    let text = memory.synced(&Key::<String>::new("text"));
    text.set(one.clone()).unwrap();
    leaves(&text, |text| OTHER.clone_into(text), &other);

    let list = memory.synced(&Key::<Vec<String>>::new("list"));
    list.set(vec![one.clone()]).unwrap();
    assert!(!list.remove_item(&other).unwrap());
    leaves(
        &list,
        |list| OTHER.clone_into(&mut list[0]),
        &vec![other.clone()],
    );
    list.set(both().to_vec()).unwrap();
    leaves(
        &list,
        |list| list.swap(0, 1),
        &vec![other.clone(), one.clone()],
    );
    assert!(list.remove_item(&one).unwrap());
    assert_eq!(list.get().unwrap(), [OTHER]);

    let set = memory.synced(&Key::<HashSet<String>>::new("set"));
    set.set(HashSet::from([one.clone()])).unwrap();
    assert!(!set.remove(&other).unwrap());
    assert!(set.insert(other.clone()).unwrap());
    assert_eq!(set.get().unwrap(), HashSet::from(both()));
    leaves(
        &set,
        |set| _ = set.remove(OTHER),
        &HashSet::from([one.clone()]),
    );
    leaves(
        &set,
        |set| _ = set.insert(OTHER.to_owned()),
        &HashSet::from(both()),
    );
    leaves(&set, |set| _ = set.remove(ONE), &HashSet::from([other]));
}

#[test]
fn strings_that_were_made_to_share_a_number_are_different_in_every_call() {
    check(&Memory::open("memory:colliding_texts").unwrap());
}

#[test]
fn what_was_queued_for_one_of_them_changes_nothing_of_the_other() {
    let (line, [one, other]) = (Line::new(), both());
    let (mine, theirs) = (line.open(), line.open_directly());
    let key = Key::<HashSet<String>>::new("members");
    let (mine_set, their_set) = (mine.synced(&key), theirs.synced(&key));
    their_set.set(HashSet::from([one.clone()])).unwrap();
    assert_eq!(mine_set.len().unwrap(), 1);
    line.down(&mine);
    check(&mine.scope("away"));
    assert!(mine_set.insert(other.clone()).unwrap());
    assert!(mine_set.remove(&one).unwrap());
    line.deliver(&mine);
    assert_eq!(their_set.get().unwrap(), HashSet::from([other.clone()]));
    let text = theirs.scope("away").get(&Key::<String>::new("text"));
    assert_eq!(text.unwrap(), Some(other));
    assert_eq!(mine.dead_letters().len(), 0);
}

#[test]
fn a_watch_gets_the_one_after_the_other() {
    let memory = Memory::open("memory:colliding_watch").unwrap();
    let text = memory.synced(&Key::<String>::new("text"));
    let mut watch = text.watch();
    for expected in [ONE, OTHER, ONE] {
        text.set(expected.to_owned()).unwrap();
        let mut seen = None;
        while seen.as_deref() != Some(expected) {
            seen = watch.recv_timeout(DEADLINE).unwrap();
        }
    }
    assert!(watch.recv_timeout(Duration::ZERO).is_err());
}

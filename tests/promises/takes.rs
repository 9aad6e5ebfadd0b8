//! An element that a call takes without naming it is handed to one caller, or goes back by itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

use serde_json::{Value, json};
use support::Direction::{ToClient, ToServer};
use support::eventually;
use synced_memory::{ErrorKind, Key, Memory, Result, SyncedMemory, Written};

use crate::line::{DEADLINE, Line, commits, wait_disconnected};
use crate::sizes::{Size, with_both_sizes};

#[derive(Debug, PartialEq, SyncedMemory)]
struct State {
    list: Vec<i64>,
    queue: VecDeque<String>,
    map: BTreeMap<String, String>,
    nested: HashMap<String, Vec<i64>>,
    any: Value,
}

/// Two of the same fields, written behind.
#[derive(SyncedMemory)]
#[synced(behind)]
struct Behind {
    list: Vec<i64>,
    map: BTreeMap<String, String>,
}

fn initial(size: Size) -> State {
    let filler = size.filler(20_000).map(i64::from);
    State {
        list: [1, 2].into_iter().chain(filler).chain([3]).collect(),
        queue: ["a", "b", "c"].map(str::to_owned).into(),
        map: BTreeMap::from(
            [("a", "1"), ("b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())),
        ),
        nested: HashMap::from([("jobs".to_owned(), vec![1, 2, 3])]),
        any: json!({"list": [1, [2], {"three": 3}]}),
    }
}

fn kind<T: Debug>(said: Result<T>) -> ErrorKind {
    said.unwrap_err().kind()
}

type Take = (&'static str, fn(&SyncedState) -> Result<String>);

fn said(taken: Result<Option<impl Debug>>) -> Result<String> {
    taken.map(|taken| format!("{taken:?}"))
}

/// The calls that take an element which can go back to where it was.
const TAKES: &[Take] = &[
    ("pop", |s| said(s.list().pop())),
    ("remove of the first", |s| said(s.list().remove(0))),
    ("remove of one between", |s| said(s.list().remove(1))),
    ("pop of a deque", |s| said(s.queue().pop())),
    ("remove of the first of a deque", |s| {
        said(s.queue().remove(0))
    }),
    ("pop of a map", |s| said(s.map().pop())),
    ("pop inside a map", |s| said(s.nested().at("jobs").pop())),
    ("remove inside a map", |s| {
        said(s.nested().at("jobs").remove(0))
    }),
    ("pop in any JSON", |s| said(s.any().at("list").pop())),
    ("remove in any JSON", |s| said(s.any().at("list").remove(1))),
    ("pop of a confirmed view", |s| {
        said(s.list().confirmed().pop())
    }),
];

struct Two {
    line: Line,
    memory: Memory,
    mine: SyncedState,
    theirs: SyncedState,
    size: Size,
}

impl Two {
    fn new(size: Size) -> Self {
        let line = Line::new();
        let memory = line.open_for(size);
        let theirs = State::attach(&line.open_patiently());
        let mine = State::attach(&memory);
        theirs.restore(initial(size)).unwrap();
        assert_eq!(mine.snapshot().unwrap(), initial(size));
        Self {
            line,
            memory,
            mine,
            theirs,
            size,
        }
    }

    /// Makes a call that ends as `InDoubt`: the server takes the element, and the answer is lost.
    #[track_caller]
    fn in_doubt(&self, take: fn(&SyncedState) -> Result<String>) {
        self.line.proxy.lose_answer_to(commits);
        self.line.proxy.refuse(true);
        assert_eq!(kind(take(&self.mine)), ErrorKind::InDoubt);
        assert_ne!(
            self.theirs.snapshot().unwrap(),
            initial(self.size),
            "it was taken"
        );
    }

    fn up(&self) {
        self.line.deliver(&self.memory);
    }

    /// The key and the element of the one dead letter, which is a taken element.
    #[track_caller]
    fn taken_dead_letter(&self) -> (String, Value) {
        let letters = self.memory.dead_letters();
        let [letter] = &letters[..] else {
            panic!("{letters:?}")
        };
        assert!(!letter.may_have_been_made(), "{letter:?}");
        (letter.key.clone(), letter.taken().unwrap())
    }
}

#[test]
fn while_the_line_is_down_nothing_is_taken_whatever_the_policy() {
    let two = Two::new(Size::Small);
    let behind = Behind::attach(&two.memory);
    two.line.down(&two.memory);
    for (name, take) in TAKES {
        assert_eq!(kind(take(&two.mine)), ErrorKind::Unavailable, "{name}");
    }
    assert_eq!(kind(two.mine.list().splice(.., [])), ErrorKind::Unavailable);
    assert_eq!(kind(behind.list().pop()), ErrorKind::Unavailable);
    assert_eq!(kind(behind.list().remove(0)), ErrorKind::Unavailable);
    assert_eq!(kind(behind.map().pop()), ErrorKind::Unavailable);
    assert_eq!(
        (two.mine.snapshot().unwrap(), two.memory.status().pending),
        (initial(Size::Small), 0)
    );
    two.up();
    assert_eq!(
        (
            two.theirs.snapshot().unwrap(),
            two.memory.status().dead_letters
        ),
        (initial(Size::Small), 0)
    );
    assert_eq!(behind.list().pop().unwrap(), Some(3));
    assert_eq!(
        two.theirs.list().to_vec().unwrap(),
        [1, 2],
        "it was stored before it was handed out"
    );
}

with_both_sizes!(
    an_element_taken_in_doubt_goes_back_to_where_it_came_from,
    an_element_goes_back_once_however_often_the_line_is_cut_meanwhile,
);

fn an_element_taken_in_doubt_goes_back_to_where_it_came_from(size: Size) {
    for (name, take) in TAKES {
        let two = Two::new(size);
        two.in_doubt(*take);
        assert_eq!(two.memory.status().pending, 1, "{name}");
        two.up();
        assert_eq!(two.theirs.snapshot().unwrap(), initial(size), "{name}");
        assert_eq!(two.mine.snapshot().unwrap(), initial(size), "{name}");
        assert_eq!(
            two.memory.status().dead_letters,
            0,
            "{name}: {:?}",
            two.memory.dead_letters()
        );
        take(&two.mine).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_ne!(
            two.theirs.snapshot().unwrap(),
            initial(size),
            "{name}: it is there to be taken"
        );
    }
}

#[test]
fn an_element_that_was_not_taken_stays_even_if_the_request_arrives_late() {
    for (name, take) in TAKES {
        let two = Two::new(Size::Small);
        two.line.proxy.hold_requests();
        two.line.proxy.refuse(true);
        let error = kind(take(&two.mine));
        // A call of a view of a part may have read first, and that read was not answered.
        assert!(
            matches!(error, ErrorKind::InDoubt | ErrorKind::Unavailable),
            "{name}: {error:?}"
        );
        two.line.proxy.cut();
        two.up();
        two.line.proxy.release();
        eventually(DEADLINE, "the late request has arrived", || {
            two.line.proxy.open() == 1
        });
        two.theirs.list().confirmed().len().unwrap();
        assert_eq!(
            two.theirs.snapshot().unwrap(),
            initial(Size::Small),
            "{name}"
        );
        assert_eq!(two.memory.status().dead_letters, 0, "{name}");
    }
}

fn an_element_goes_back_once_however_often_the_line_is_cut_meanwhile(size: Size) {
    let two = Two::new(size);
    for round in 0..size.scaled(8_u64, 2) {
        two.in_doubt(|s| said(s.list().remove(0)));
        for cut in 0..6 {
            let direction = if cut % 2 == 0 { ToClient } else { ToServer };
            let cuts = two.line.proxy.cuts();
            two.line
                .proxy
                .cut_after_bytes(direction, 200 + 97 * round + 150 * cut);
            two.line.up();
            eventually(DEADLINE, "it is cut, or back", || {
                two.line.proxy.cuts() > cuts || two.memory.status().pending == 0
            });
        }
        two.line.proxy.do_not_cut();
        two.up();
        assert_eq!(
            two.theirs.list().to_vec().unwrap(),
            initial(size).list,
            "round {round}"
        );
    }
    assert_eq!(
        two.memory.status().dead_letters,
        0,
        "{:?}",
        two.memory.dead_letters()
    );
}

#[test]
fn an_element_that_goes_back_leaves_the_changes_of_others() {
    let two = Two::new(Size::Small);
    two.in_doubt(|s| said(s.list().remove(0)));
    two.theirs.list().push(4).unwrap();
    assert_eq!(two.theirs.list().remove(0).unwrap(), Some(2));
    two.theirs.list().insert(0, 9).unwrap();
    assert_eq!(two.mine.list().push(5).unwrap(), Written::Queued);
    two.up();
    let mut all = two.theirs.list().to_vec().unwrap();
    assert_eq!(two.mine.list().to_vec().unwrap(), all);
    all.sort_unstable();
    assert_eq!(all, [1, 3, 4, 5, 9]);
}

#[test]
fn an_element_that_cannot_go_back_into_another_type_is_a_dead_letter() {
    let two = Two::new(Size::Small);
    two.in_doubt(|s| said(s.list().pop()));
    two.theirs
        .memory()
        .set(&Key::<String>::new("list"), "text".to_owned())
        .unwrap();
    two.up();
    assert_eq!(
        two.taken_dead_letter(),
        ("memory:list".to_owned(), json!(3))
    );
    assert_eq!(
        two.theirs
            .memory()
            .get(&Key::<String>::new("list"))
            .unwrap()
            .unwrap(),
        "text"
    );
}

#[test]
fn an_entry_whose_key_was_set_meanwhile_is_a_dead_letter_even_if_it_is_the_same() {
    for value in ["other", "2"] {
        let two = Two::new(Size::Small);
        two.in_doubt(|s| said(s.map().pop()));
        two.theirs
            .map()
            .insert("b".to_owned(), value.to_owned())
            .unwrap();
        two.up();
        assert_eq!(two.theirs.map().at("b").get().unwrap(), value);
        assert_eq!(
            two.taken_dead_letter(),
            ("memory:map".to_owned(), json!({"b": "2"})),
            "{value}"
        );
        let letter = two.memory.dead_letters().remove(0);
        assert_eq!(
            kind(letter.retry()),
            ErrorKind::Conflict,
            "its key is still set"
        );
        assert_eq!(two.memory.status().dead_letters, 1);
        assert_eq!(
            two.theirs.map().remove("b").unwrap().as_deref(),
            Some(value)
        );
        assert_eq!(letter.retry().unwrap(), Written::Stored);
        assert_eq!(
            (
                two.theirs.map().at("b").get().unwrap(),
                two.memory.status().dead_letters
            ),
            ("2".to_owned(), 0)
        );
    }
}

#[test]
fn a_splice_in_doubt_is_a_dead_letter_only_if_it_took_something() {
    let two = Two::new(Size::Small);
    two.in_doubt(|s| said(s.list().splice(..2, [8, 9]).map(Some)));
    two.up();
    assert_eq!(
        two.taken_dead_letter(),
        ("memory:list".to_owned(), json!([1, 2]))
    );
    let letter = two.memory.dead_letters().remove(0);
    assert_eq!(
        kind(letter.retry()),
        ErrorKind::Conflict,
        "it has no place to go back to"
    );
    assert_eq!(two.memory.status().dead_letters, 1);
    letter.forget().unwrap();
    two.in_doubt(|s| said(s.list().splice(1..1, [7]).map(Some)));
    two.up();
    assert_eq!(two.theirs.list().to_vec().unwrap(), [8, 7, 9, 3]);
    assert_eq!(
        two.memory.status().dead_letters,
        0,
        "{:?}",
        two.memory.dead_letters()
    );
}

#[test]
fn a_delete_after_a_take_in_doubt_is_not_undone() {
    let deletes: [fn(&Two); 2] = [
        |two| assert!(two.theirs.list().delete().unwrap()),
        |two| {
            // Queued behind the call in doubt, before its element has gone back.
            assert!(two.mine.list().delete().unwrap());
        },
    ];
    for delete in deletes {
        let two = Two::new(Size::Small);
        two.in_doubt(|s| said(s.list().pop()));
        delete(&two);
        two.up();
        assert_eq!(two.theirs.list().find().unwrap(), None);
        assert_eq!(two.line.server.get_raw("memory:list"), None);
        assert_eq!(
            two.taken_dead_letter(),
            ("memory:list".to_owned(), json!(3))
        );
    }
}

#[test]
fn an_element_for_which_there_is_no_room_is_not_taken() {
    let line = Line::new();
    let memory = line.builder().outbox_limit(8_000).build().unwrap();
    let theirs = line.open_directly();
    let key = Key::<Vec<String>>::new("large");
    theirs
        .set(&key, vec!["x".repeat(20_000), "y".to_owned()])
        .unwrap();
    let mine = memory.synced(&key);
    assert_eq!(mine.pop().unwrap().as_deref(), Some("y"));
    assert_eq!(kind(mine.pop()), ErrorKind::OutboxFull);
    assert_eq!(theirs.get(&key).unwrap().unwrap().len(), 1);
}

#[test]
fn an_element_that_cannot_be_decoded_stays() {
    let two = Two::new(Size::Small);
    two.theirs
        .memory()
        .set(&Key::<Value>::new("list"), json!([1, "two"]))
        .unwrap();
    assert_eq!(kind(two.mine.list().pop()), ErrorKind::Decode);
    assert_eq!(
        two.theirs.memory().get(&Key::<Value>::new("list")).unwrap(),
        Some(json!([1, "two"]))
    );
    assert_eq!(
        two.mine.list().remove(7).map_err(|error| error.kind()),
        Ok(None),
        "there is no such index, whatever the elements are"
    );
}

#[test]
fn after_an_answer_that_comes_too_late_for_its_caller_the_element_goes_back() {
    let two = Two::new(Size::Small);
    let (memory, connections) = (two.line.open(), two.line.proxy.connections());
    two.line.proxy.delay(ToClient, Duration::from_millis(300));
    // The call reads first, and the answer to the take comes after its timeout.
    assert_eq!(
        kind(State::attach(&memory).list().pop()),
        ErrorKind::InDoubt
    );
    memory.flush(DEADLINE).unwrap();
    two.line.proxy.delay(ToClient, Duration::ZERO);
    assert_eq!(two.theirs.list().to_vec().unwrap(), [1, 2, 3]);
    assert_eq!(
        (two.line.proxy.connections(), memory.status().dead_letters),
        (connections, 0)
    );
}

#[test]
fn a_close_with_a_take_in_doubt_puts_it_back_or_names_what_was_not_delivered() {
    for is_back in [true, false] {
        let two = Two::new(Size::Small);
        two.in_doubt(|s| said(s.list().pop()));
        if is_back {
            two.line.up();
            two.memory.close(DEADLINE).unwrap();
        } else {
            wait_disconnected(&two.memory);
            let error = two.memory.close(Duration::from_millis(1)).unwrap_err();
            assert!(
                error.kind() == ErrorKind::Timeout && error.to_string().contains("memory:list"),
                "{error}"
            );
        }
        let expected = if is_back { vec![1, 2, 3] } else { vec![1, 2] };
        assert_eq!(two.theirs.list().to_vec().unwrap(), expected);
    }
}

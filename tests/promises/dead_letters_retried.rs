//! Reading a dead letter keeps it. A letter ends once: it is made as a new write, or forgotten.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::json;
use synced_memory::{DeadLetter, ErrorKind, Key, Memory, SyncedMemory, Written};

use crate::line::{Line, commits, wait_disconnected};

#[derive(SyncedMemory)]
pub(crate) struct State {
    list: Vec<i64>,
    map: BTreeMap<String, i64>,
    #[synced(default)]
    number: i64,
    #[synced(ttl = "60s")]
    brief: String,
    #[synced(ttl = "60s")]
    briefs: Vec<i64>,
}

pub(crate) struct Two {
    pub(crate) line: Line,
    pub(crate) memory: Memory,
    pub(crate) mine: SyncedState,
    pub(crate) theirs: SyncedState,
}

impl Two {
    fn new() -> Self {
        Self::on(Line::new(), Line::open)
    }

    pub(crate) fn on(line: Line, open: impl Fn(&Line) -> Memory) -> Self {
        let memory = open(&line);
        let (mine, theirs) = (State::attach(&memory), State::attach(&line.open_directly()));
        theirs.list().set(vec![1]).unwrap();
        theirs.set_number(100).unwrap();
        theirs.map().insert("a".to_owned(), 1).unwrap();
        assert_eq!(
            (
                mine.list().len().unwrap(),
                mine.number().unwrap(),
                mine.map().len().unwrap()
            ),
            (1, 100, 1)
        );
        Self {
            line,
            memory,
            mine,
            theirs,
        }
    }

    pub(crate) fn down(&self) {
        self.line.down(&self.memory);
    }

    pub(crate) fn up(&self) {
        self.line.deliver(&self.memory);
    }

    pub(crate) fn replace<T: synced_memory::Value>(&self, name: &'static str, value: T) {
        self.theirs
            .memory()
            .set(&Key::<T>::new(name), value)
            .unwrap();
    }

    /// Restricts the keys that the server lets this memory write.
    pub(crate) fn allow(&self, keys: &str) {
        self.line.server.cli(&[
            "ACL",
            "SETUSER",
            "default",
            "resetkeys",
            keys,
            "~synced-memory/*",
        ]);
    }

    /// The dead letter of a push of `item` that found a text instead of the list.
    pub(crate) fn letter_of_a_push(&self, item: i64) -> DeadLetter {
        self.down();
        assert_eq!(self.mine.list().push(item).unwrap(), Written::Queued);
        self.replace("list", "text".to_owned());
        self.up();
        self.one_letter()
    }

    #[track_caller]
    pub(crate) fn one_letter(&self) -> DeadLetter {
        let letters = self.memory.dead_letters();
        let [letter] = &letters[..] else {
            panic!("{letters:?}")
        };
        letter.clone()
    }
}

pub(crate) fn ids(memory: &Memory) -> Vec<u64> {
    memory
        .dead_letters()
        .iter()
        .map(|letter| letter.id)
        .collect()
}

#[test]
fn reading_a_dead_letter_keeps_it() {
    let two = Two::new();
    let letter = two.letter_of_a_push(2);
    for _ in 0..3 {
        assert_eq!(
            (ids(&two.memory), two.memory.status().dead_letters),
            (vec![letter.id], 1)
        );
    }
    assert_eq!(
        (letter.key.as_str(), letter.reason.kind()),
        ("memory:list", ErrorKind::Conflict)
    );
    assert_eq!(letter.changes()[0][0]["do"]["append"]["items"], json!([2]));
    assert_eq!(
        (letter.value(), letter.taken(), letter.ttl),
        (None, None, None)
    );
    assert!(!letter.may_have_been_made() && letter.last_modified > 1_600_000_000_000_000_000);
    assert!(
        !format!("{letter:?}").contains("append"),
        "`Debug` shows no value"
    );
    assert_eq!(letter.clone().id, letter.id);
}

#[test]
fn a_retry_makes_a_new_write_and_ends_the_letter() {
    let two = Two::new();
    let letter = two.letter_of_a_push(2);
    two.replace("list", vec![1]);
    let before = two.theirs.list().last_modified().unwrap();
    assert_eq!(letter.retry().unwrap(), Written::Stored);
    assert_eq!(two.theirs.list().to_vec().unwrap(), [1, 2]);
    assert!(two.theirs.list().last_modified().unwrap() > before);
    assert_eq!(
        (ids(&two.memory), two.memory.status().dead_letters),
        (vec![], 0)
    );
    let second = [
        letter.retry().map(drop),
        letter.retry_anyway().map(drop),
        letter.forget(),
    ];
    for second in second {
        assert_eq!(second.unwrap_err().kind(), ErrorKind::Conflict);
    }
    assert_eq!(
        two.theirs.list().to_vec().unwrap(),
        [1, 2],
        "a second end does nothing"
    );
}

#[test]
fn a_letter_that_is_forgotten_is_gone() {
    let two = Two::new();
    let letter = two.letter_of_a_push(2);
    letter.forget().unwrap();
    assert_eq!(
        (ids(&two.memory), two.memory.status().dead_letters),
        (vec![], 0)
    );
    two.replace("list", vec![1]);
    assert_eq!(letter.forget().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(letter.retry().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(two.theirs.list().to_vec().unwrap(), [1]);
}

#[test]
fn a_retry_that_fails_keeps_the_letter_in_its_place() {
    let two = Two::new();
    let first = two.letter_of_a_push(2);
    two.down();
    two.mine.add_number(1).unwrap();
    two.replace("number", "text".to_owned());
    two.up();
    let both = ids(&two.memory);
    assert_eq!((both.len(), both[0]), (2, first.id));
    let error = first.retry().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(ids(&two.memory), both, "the order stays, oldest first");
    two.allow("%R~*");
    assert_eq!(first.retry().unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!((ids(&two.memory), two.memory.status().pending), (both, 0));
    two.line
        .server
        .cli(&["ACL", "SETUSER", "default", "allkeys"]);
    two.replace("list", vec![1]);
    assert_eq!(first.retry().unwrap(), Written::Stored);
    assert_eq!(
        (
            two.theirs.list().to_vec().unwrap(),
            two.memory.status().dead_letters
        ),
        (vec![1, 2], 1)
    );
}

#[test]
fn a_retry_while_the_line_is_down_is_queued_and_may_become_another_letter() {
    let two = Two::new();
    let letter = two.letter_of_a_push(2);
    two.down();
    assert_eq!(letter.retry().unwrap(), Written::Queued);
    assert_eq!((ids(&two.memory), two.memory.status().pending), (vec![], 1));
    two.up();
    let another = two.one_letter();
    assert_ne!(another.id, letter.id, "the value was still a text");
    two.down();
    assert_eq!(another.retry().unwrap(), Written::Queued);
    two.replace("list", vec![1]);
    two.up();
    assert_eq!(
        (two.theirs.list().to_vec().unwrap(), ids(&two.memory)),
        (vec![1, 2], vec![])
    );
}

#[test]
fn a_write_that_may_have_been_made_is_made_again_only_by_retry_anyway() {
    let two = Two::new();
    two.line.proxy.lose_answer_to(commits);
    two.line.proxy.refuse(true);
    assert_eq!(two.mine.list().push(2).unwrap(), Written::Queued);
    wait_disconnected(&two.memory);
    two.allow("%R~*");
    two.up();
    two.line
        .server
        .cli(&["ACL", "SETUSER", "default", "allkeys"]);
    let letter = two.one_letter();
    assert!(letter.may_have_been_made());
    assert_eq!(letter.retry().unwrap_err().kind(), ErrorKind::InDoubt);
    assert_eq!(
        (two.theirs.list().to_vec().unwrap(), ids(&two.memory)),
        (vec![1, 2], vec![letter.id])
    );
    assert_eq!(letter.retry_anyway().unwrap(), Written::Stored);
    assert_eq!(
        (two.theirs.list().to_vec().unwrap(), ids(&two.memory)),
        (vec![1, 2, 2], vec![])
    );
}

#[test]
fn only_one_of_many_concurrent_calls_ends_a_letter() {
    let two = Two::new();
    for round in 0..10 {
        let letter = two.letter_of_a_push(2);
        two.replace("list", vec![1]);
        let done: usize = thread::scope(|scope| {
            let end = |n: u32| {
                if n == 0 {
                    letter.forget().map(|()| 0)
                } else {
                    letter.retry().map(|_| 1)
                }
            };
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || end(n))).collect();
            let ended: Vec<_> = threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap().ok())
                .collect();
            assert_eq!(ended.len(), 1, "round {round}");
            ended[0]
        });
        assert_eq!(two.theirs.list().len().unwrap(), 1 + done);
        assert_eq!(ids(&two.memory), [0; 0]);
    }
}

#[derive(SyncedMemory)]
#[synced(prefix = "app:")]
struct OtherPrefix {
    list: Vec<i64>,
}

#[test]
fn a_scope_lists_its_own_letters_and_the_root_lists_all() {
    let two = Two::new();
    let (one, other) = (two.memory.scope("one"), two.memory.scope("other"));
    let other_prefix = OtherPrefix::attach(&two.memory);
    other_prefix.list().push(1).unwrap();
    let lists = [&one, &other, &one.scope("below")]
        .map(|memory| memory.synced(&Key::<Vec<i64>>::new("list")));
    two.down();
    for list in &lists {
        list.push(1).unwrap();
    }
    other_prefix.list().push(2).unwrap();
    two.allow("%R~*");
    two.up();
    let keys = |memory: &Memory| {
        let mut keys: Vec<String> = memory
            .dead_letters()
            .iter()
            .map(|letter| letter.key.clone())
            .collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(keys(&one), ["memory:one:below:list", "memory:one:list"]);
    assert_eq!(keys(&other), ["memory:other:list"]);
    assert_eq!(
        keys(&two.memory),
        [
            "app:list",
            "memory:one:below:list",
            "memory:one:list",
            "memory:other:list"
        ]
    );
    assert_eq!(two.memory.status().dead_letters, 4);
}

#[test]
fn every_kind_of_dead_letter_is_retried_as_the_write_that_it_was() {
    let two = Two::new();
    two.down();
    two.mine.set_number(7).unwrap();
    two.mine.list().delete().unwrap();
    two.mine
        .update_map(|map| *map.get_mut("a").unwrap() += 1)
        .unwrap();
    two.mine.set_brief("text".to_owned()).unwrap();
    two.mine.briefs().push(1).unwrap();
    // The closure's entry has changed by then, and the server refuses the other writes.
    two.theirs.map().insert("a".to_owned(), 5).unwrap();
    two.line.server.cli(&[
        "ACL",
        "SETUSER",
        "default",
        "resetkeys",
        "~memory:map",
        "%R~*",
        "~synced-memory/*",
    ]);
    two.up();
    let letters = two.memory.dead_letters();
    assert_eq!(letters.len(), 5, "{letters:?}");
    two.line
        .server
        .cli(&["ACL", "SETUSER", "default", "allkeys"]);
    for letter in letters {
        let retried = letter.retry();
        assert_eq!(retried.unwrap(), Written::Stored, "{letter:?}");
    }
    assert_eq!(ids(&two.memory), [0; 0]);
    assert_eq!(
        (
            two.theirs.number().unwrap(),
            two.theirs.list().find().unwrap()
        ),
        (7, None)
    );
    assert_eq!(
        two.theirs.map().at("a").get().unwrap(),
        2,
        "the retry assigns, whatever is stored"
    );
    assert_eq!(
        (
            two.theirs.brief().unwrap(),
            two.theirs.briefs().to_vec().unwrap()
        ),
        ("text".to_owned(), vec![1])
    );
}

#[test]
fn the_time_to_live_of_a_letter_counts_from_its_retry() {
    let two = Two::new();
    let left =
        |key: &str| redis::from_redis_value::<i64>(two.line.server.cli(&["PTTL", key])).unwrap();
    two.theirs.briefs().push(0).unwrap();
    two.mine.briefs().len().unwrap();
    two.down();
    two.mine.set_brief("text".to_owned()).unwrap();
    two.mine.briefs().push(1).unwrap();
    two.replace("briefs", "text".to_owned());
    two.line.server.cli(&[
        "ACL",
        "SETUSER",
        "default",
        "resetkeys",
        "~memory:briefs",
        "~synced-memory/*",
    ]);
    two.up();
    two.line
        .server
        .cli(&["ACL", "SETUSER", "default", "allkeys"]);
    let letters = two.memory.dead_letters();
    assert_eq!(letters.len(), 2, "{letters:?}");
    two.theirs.briefs().delete().unwrap();
    for letter in letters {
        assert_eq!(letter.ttl, Some(Duration::from_secs(60)), "{letter:?}");
        letter.retry().unwrap();
    }
    for key in ["memory:brief", "memory:briefs"] {
        assert!(
            (30_000..=60_000).contains(&left(key)),
            "{key}: {}",
            left(key)
        );
    }
}

#[test]
fn dead_letters_have_their_own_budget_and_a_taken_element_is_never_dropped() {
    const LIMIT: usize = 64_000;
    let two = Two::on(Line::new(), |line| {
        line.builder().outbox_limit(LIMIT).build().unwrap()
    });
    two.theirs.list().set(vec![1, 2, 3]).unwrap();
    assert_eq!(two.mine.list().len().unwrap(), 3);
    two.line.proxy.lose_answer_to(commits);
    two.line.proxy.refuse(true);
    assert_eq!(
        two.mine.list().pop().unwrap_err().kind(),
        ErrorKind::InDoubt
    );
    two.replace("list", "text".to_owned());
    two.up();
    let taken = two.one_letter();
    let write = |prefix: &str, number: usize| {
        let key = Key::<String>::named(format!("{prefix}{number}"));
        two.memory
            .set(&key, "x".repeat(1_000))
            .map_err(|error| error.kind())
    };
    let queued = |prefix: &str| {
        (0..1_000)
            .take_while(|number| write(prefix, *number).is_ok())
            .count()
    };
    two.down();
    let first = queued("first");
    two.allow("%R~*");
    two.up();
    two.line
        .server
        .cli(&["ACL", "SETUSER", "default", "allkeys"]);
    let status = two.memory.status();
    let letters = two.memory.dead_letters();
    assert_eq!(
        (status.dead_letters, letters.len()),
        (letters.len(), letters.len())
    );
    assert_eq!(
        status.dead_letters as u64 + status.dropped_dead_letters,
        1 + first as u64,
        "{status:?}"
    );
    assert!(
        (8..16).contains(&letters.len()),
        "a quarter of the limit: {} of {first}",
        letters.len()
    );
    assert_eq!(letters[0].id, taken.id);
    assert_eq!(letters[0].taken(), Some(json!(3)));
    two.down();
    assert_eq!(
        queued("second"),
        first,
        "dead letters take no room from queued writes"
    );
    two.up();
    assert_eq!(two.memory.status().dead_letters, letters.len());
}

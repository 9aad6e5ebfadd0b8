//! A watch yields the current value, then the newest one whenever it has changed, in any process.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use support::{Child, Server};
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory, Watch};

use crate::line::{DEADLINE, Line, on_every_backend, quick};

/// How long a test waits for an item that must not come.
const A_WHILE: Duration = Duration::from_millis(150);

#[derive(SyncedMemory, Debug)]
struct Sample {
    #[synced(default = 7)]
    count: i64,
    #[synced(rename = "all-items")]
    items: Vec<String>,
    #[synced(alias = "former")]
    name: Option<String>,
    #[synced(nested)]
    user: User,
    #[synced(default, ttl = "200ms")]
    brief: i64,
}

#[derive(SyncedMemory, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct User {
    full_name: String,
    visits: u64,
}

fn key() -> Key<i64> {
    Key::new("count")
}

/// The next item, which must come in time.
#[track_caller]
pub(crate) fn next<T>(watch: &mut Watch<T>) -> Option<T> {
    watch.recv_timeout(DEADLINE).unwrap()
}

/// Whether nothing comes.
#[track_caller]
fn is_silent<T: std::fmt::Debug>(watch: &mut Watch<T>) -> bool {
    watch
        .recv_timeout(A_WHILE)
        .is_err_and(|error| error.kind() == ErrorKind::Timeout)
}

#[test]
fn a_watch_yields_the_current_value_then_the_newest_and_a_delete_as_none() {
    on_every_backend("watch-values", |one, other| {
        other.set(&key(), 1).unwrap();
        let mut watch = one.watch(&key());
        assert_eq!(next(&mut watch), Some(1));
        for n in 2..30 {
            other.set(&key(), n).unwrap();
            assert_eq!(next(&mut watch), Some(n));
        }
        other.delete(&key()).unwrap();
        assert_eq!(next(&mut watch), None);
        one.set(&key(), 5).unwrap();
        assert_eq!(
            next(&mut watch),
            Some(5),
            "what this process writes is a change as well"
        );
        assert!(is_silent(&mut watch));
    });
}

#[test]
fn an_unset_key_is_none_whatever_its_default() {
    let state = Sample::open("memory:").unwrap();
    assert_eq!(state.count().unwrap(), 7);
    let mut count = state.synced_count().watch();
    assert_eq!(next(&mut count), None);
    state.add_count(1).unwrap();
    assert_eq!(next(&mut count), Some(8));
    let mut visits = state.user().synced_visits().watch();
    assert_eq!(next(&mut visits), None);
    state.user().set_full_name("Ada".to_owned()).unwrap();
    assert!(is_silent(&mut visits));
}

#[test]
fn an_older_name_is_watched_too() {
    on_every_backend("watch-aliases", |one, other| {
        let mut watch = Sample::attach(one).synced_name().watch();
        assert_eq!(next(&mut watch), None);
        other.set(&Key::new("former"), "old".to_owned()).unwrap();
        assert_eq!(next(&mut watch).flatten().as_deref(), Some("old"));
        other.set(&Key::new("name"), "new".to_owned()).unwrap();
        assert_eq!(next(&mut watch).flatten().as_deref(), Some("new"));
        other.set(&Key::new("former"), "older".to_owned()).unwrap();
        assert!(is_silent(&mut watch));
        other.delete(&Key::<String>::new("name")).unwrap();
        assert_eq!(next(&mut watch).flatten().as_deref(), Some("older"));
    });
}

#[test]
fn the_same_value_again_is_no_item() {
    let server = Server::redis().start();
    let (one, other) = (
        Memory::open(&server.url()).unwrap(),
        Memory::open(&server.url()).unwrap(),
    );
    let key = Key::<HashMap<String, f64>>::new("map");
    let map = HashMap::from([("a".to_owned(), 1.0), ("ü".to_owned(), 100.0)]);
    other.set(&key, map.clone()).unwrap();
    let mut watch = one.watch(&key);
    assert_eq!(next(&mut watch), Some(map.clone()));
    other.set(&key, map.clone()).unwrap();
    server.set_raw(
        "memory:map",
        r#"{"value": {"\u00fc": 1e2, "a": 1.0}, "last_modified": 5}"#,
    );
    server.set_raw("memory:map", r#" {"a":1.0,"ü":100.0} "#);
    assert!(
        is_silent(&mut watch),
        "it is the same value, written differently"
    );
    server.set_raw("memory:map", r#"{"a": 1.0}"#);
    assert_eq!(next(&mut watch).unwrap().len(), 1);
}

#[test]
fn a_watch_of_a_part_yields_an_item_only_when_that_part_has_changed() {
    on_every_backend("watch-parts", |one, other| {
        let (mine, theirs) = (Sample::attach(one), Sample::attach(other));
        let mut visits = mine.user().synced_visits().watch();
        let mut second = mine.items().at(1).watch();
        let data = one.synced(&Key::<Value>::new("data"));
        let mut deep = data.at("users").at(0).watch();
        assert_eq!(
            (next(&mut visits), next(&mut second), next(&mut deep)),
            (None, None, None)
        );

        theirs.user().set_full_name("Ada".to_owned()).unwrap();
        theirs.user().set_visits(3).unwrap();
        assert_eq!(next(&mut visits), Some(3));
        theirs.user().set_full_name("Grace".to_owned()).unwrap();
        assert!(is_silent(&mut visits));
        theirs.synced_user().delete().unwrap();
        assert_eq!(next(&mut visits), None);

        theirs
            .items()
            .extend(["a", "b"].map(str::to_owned))
            .unwrap();
        assert_eq!(next(&mut second).as_deref(), Some("b"));
        theirs.items().push("c".to_owned()).unwrap();
        theirs.items().at(0).set("x".to_owned()).unwrap();
        assert!(is_silent(&mut second));
        theirs.items().remove(0).unwrap();
        assert_eq!(next(&mut second).as_deref(), Some("c"));

        let data = other.synced(&Key::<Value>::new("data"));
        data.set(json!({"users": ["Ada", "Grace"], "more": 1}))
            .unwrap();
        assert_eq!(next(&mut deep), Some(json!("Ada")));
        data.set(json!({"users": ["Ada"]})).unwrap();
        assert!(is_silent(&mut deep));
        data.set(json!({"users": {}})).unwrap();
        assert_eq!(
            deep.recv_timeout(DEADLINE).unwrap_err().kind(),
            ErrorKind::Decode,
            "that is no list"
        );
        data.set(json!({"users": []})).unwrap();
        assert_eq!(next(&mut deep), None);
    });
}

#[test]
fn a_watch_of_a_whole_handle_names_the_fields_that_have_changed() {
    on_every_backend("watch-handles", |one, other| {
        let (mine, theirs) = (Sample::attach(one), Sample::attach(other));
        let mut watch = mine.watch();
        assert_eq!(
            next(&mut watch).unwrap(),
            Sample::NAMES,
            "at first all of them"
        );
        assert_eq!(
            Sample::NAMES,
            ["count", "all-items", "name", "user", "brief"]
        );
        theirs.set_count(1).unwrap();
        assert_eq!(next(&mut watch).unwrap(), ["count"]);
        theirs.items().push("a".to_owned()).unwrap();
        assert_eq!(next(&mut watch).unwrap(), ["all-items"]);
        assert_eq!(mine.items().to_vec().unwrap(), ["a"]);
        theirs.user().add_visits(1).unwrap();
        other.set(&Key::new("former"), "old".to_owned()).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(next(&mut watch).unwrap());
        }
        seen.sort_unstable();
        assert_eq!(seen, ["name", "user"]);
        theirs.set_count(1).unwrap();
        assert!(is_silent(&mut watch));

        // The fields of a handle inside a key are parts of one value.
        let mut inside = mine.user().watch();
        assert_eq!(next(&mut inside).unwrap(), User::NAMES);
        theirs.user().set_full_name("Ada".to_owned()).unwrap();
        assert_eq!(next(&mut inside).unwrap(), ["full_name"]);
        theirs.synced_user().delete().unwrap();
        assert_eq!(next(&mut inside).unwrap(), ["full_name", "visits"]);
    });
}

#[test]
fn a_handle_of_generic_fields_and_one_without_fields_are_watched_too() {
    #[derive(SyncedMemory, Debug)]
    struct Generic<T: Clone, U> {
        one: T,
        #[synced(nested)]
        two: U,
    }
    #[derive(SyncedMemory, Debug)]
    struct Nothing {}

    let memory = Memory::open("memory:").unwrap();
    let state = Generic::<u8, User>::attach(&memory);
    let mut watch = state.watch();
    assert_eq!(next(&mut watch).unwrap(), ["one", "two"]);
    state.two().add_visits(1).unwrap();
    assert_eq!(next(&mut watch).unwrap(), ["two"]);
    let mut nothing = Nothing::attach(&memory).watch();
    assert_eq!(next(&mut nothing).unwrap(), [""; 0]);
    assert!(is_silent(&mut nothing));
    drop((memory, state));
    assert_eq!(nothing.recv().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_slow_watcher_sees_the_newest_value_and_delays_no_other_thread() {
    /// A number that takes long to read, for one thread.
    #[derive(Clone, Serialize)]
    struct Slow(i64);
    static READING: Mutex<Option<(Sender<()>, Receiver<()>)>> = Mutex::new(None);
    impl<'de> Deserialize<'de> for Slow {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            if let Some((begun, go_on)) = READING.lock().unwrap().take() {
                begun.send(()).unwrap();
                go_on.recv_timeout(DEADLINE).unwrap();
            }
            i64::deserialize(deserializer).map(Slow)
        }
    }

    on_every_backend("watch-slow", |one, other| {
        let slow_key = Key::<Slow>::new("count");
        let (mut never_asked, mut quick) = (one.watch(&key()), one.watch(&key()));
        other.set(&key(), 0).unwrap();
        while next(&mut quick) != Some(0) {}

        let ((begun, has_begun), (go_on, may_go_on)) = (channel(), channel());
        *READING.lock().unwrap() = Some((begun, may_go_on));
        let mut slow = one.watch(&slow_key);
        let reader = thread::spawn(move || {
            let first = next(&mut slow).unwrap().0;
            (first, next(&mut slow).unwrap().0)
        });
        has_begun.recv_timeout(DEADLINE).unwrap();
        for n in 1..=200 {
            other.set(&key(), n).unwrap();
            one.set(&Key::new("more"), n).unwrap();
        }
        while next(&mut quick) != Some(200) {}
        assert_eq!(one.get(&key()).unwrap(), Some(200));
        go_on.send(()).unwrap();
        assert_eq!(
            reader.join().unwrap(),
            (0, 200),
            "those in between are skipped"
        );
        assert_eq!(next(&mut never_asked), Some(200));
        assert!(is_silent(&mut never_asked));
    });
}

#[test]
fn values_are_decoded_only_by_the_thread_that_asks() {
    #[derive(Clone, Serialize, Debug)]
    struct Traced(i64);
    static READERS: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());
    impl<'de> Deserialize<'de> for Traced {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            READERS.lock().unwrap().push(thread::current().id());
            i64::deserialize(deserializer).map(Traced)
        }
    }

    let server = Server::redis().start();
    let (one, other) = (
        Memory::open(&server.url()).unwrap(),
        Memory::open(&server.url()).unwrap(),
    );
    let mut watch = one.watch(&Key::<Traced>::new("count"));
    for n in 0..20 {
        other.set(&key(), n).unwrap();
        while next(&mut watch).is_none_or(|traced| traced.0 != n) {}
    }
    let readers = READERS.lock().unwrap();
    assert!(
        readers.len() >= 20
            && readers
                .iter()
                .all(|reader| *reader == thread::current().id())
    );
}

#[test]
fn the_end_of_a_time_to_live_is_a_none() {
    on_every_backend("watch-ttl", |one, other| {
        let (mine, theirs) = (Sample::attach(one), Sample::attach(other));
        let mut watch = mine.synced_brief().watch();
        assert_eq!(next(&mut watch), None);
        for writer in [&mine, &theirs] {
            writer.set_brief(5).unwrap();
            assert_eq!(next(&mut watch), Some(5));
            let since = Instant::now();
            assert_eq!(next(&mut watch), None);
            assert!(
                since.elapsed() < Duration::from_secs(2),
                "{:?}",
                since.elapsed()
            );
        }
    });
}

#[test]
fn a_value_that_cannot_be_read_is_an_error_once_and_the_watch_goes_on() {
    let line = Line::new();
    let mut watch = line.open().watch(&key());
    let memory = line.open();
    let mut watch_of_two = memory.watch(&key());
    assert_eq!(
        watch.recv_timeout(DEADLINE).unwrap_err().kind(),
        ErrorKind::Closed,
        "its memory is gone"
    );
    assert_eq!(next(&mut watch_of_two), None);
    let mut kind = || {
        watch_of_two
            .recv_timeout(DEADLINE)
            .map_err(|error| error.kind())
    };
    for _ in 0..3 {
        line.server.set_raw("memory:count", r#""text""#);
        assert_eq!(kind(), Err(ErrorKind::Decode));
        line.server.set_raw("memory:count", "garbage");
        assert_eq!(kind(), Err(ErrorKind::Decode));
        assert_eq!(
            line.server.cli(&["DEL", "memory:count"]),
            redis::Value::Int(1)
        );
        assert_eq!(kind(), Ok(None));
        line.server.cli(&["RPUSH", "memory:count", "1"]);
        assert_eq!(kind(), Err(ErrorKind::Rejected), "a key of another type");
        line.server.cli(&["RPUSH", "memory:count", "2"]);
        assert_eq!(memory.get(&key()).unwrap_err().kind(), ErrorKind::Rejected);
        line.server.cli(&["DEL", "memory:count"]);
        assert_eq!(kind(), Ok(None));
        line.server.set_raw("memory:count", "5");
        assert_eq!(kind(), Ok(Some(5)));
    }
}

#[test]
fn a_watcher_in_another_process_sees_what_is_written() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).unwrap();
    let state = Sample::attach(&memory);
    let mut child = Child::spawn(
        env!("CARGO_BIN_EXE_watcher"),
        [server.url(), "all-items".to_owned()],
    );
    assert_eq!(child.recv(), "null");
    for n in 0..20 {
        state.items().push(n.to_string()).unwrap();
        let items: Vec<String> = serde_json::from_str(&child.recv()).unwrap();
        assert_eq!(items, state.items().to_vec().unwrap());
    }
    server.set_raw(
        "memory:all-items",
        r#"{"value": ["bare"], "last_modified": 1}"#,
    );
    assert_eq!(child.recv(), r#"["bare"]"#);
    server.cli(&["FLUSHALL"]);
    assert_eq!(child.recv(), "null");
    child.hang_up();
    assert!(child.wait(DEADLINE).success());
}

#[test]
fn without_the_right_to_track_a_watch_asks_the_server() {
    let server = Server::redis().start();
    server.cli(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">pw",
        "~*",
        "resetchannels",
        "+@all",
        "-client|tracking",
    ]);
    let memory = quick(server.url_as("app", "pw")).build().unwrap();
    let mut watch = memory.watch(&key());
    assert_eq!(next(&mut watch), None);
    for n in 0..3 {
        server.set_raw("memory:count", n.to_string());
        assert_eq!(next(&mut watch), Some(n));
    }
}

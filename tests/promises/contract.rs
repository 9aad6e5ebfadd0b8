//! The same tests on every backend: a rule that holds on one holds on all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::{Cluster, Dragonfly, Server, eventually};
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory, Written};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

/// A backend for one test, and what keeps it alive.
struct TestBackend {
    url: String,
    _alive: Resource,
}

#[allow(dead_code, clippy::large_enum_variant)]
enum Resource {
    Memory(Memory),
    Directory(TempDir),
    Server(Server),
    Dragonfly(Dragonfly, Server),
    Sentinel { sentinel: Server, server: Server },
    Cluster(Cluster),
}

impl TestBackend {
    fn process() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let url = format!("memory:contract{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let memory = Memory::open(&url).unwrap();
        Self {
            url,
            _alive: Resource::Memory(memory),
        }
    }

    fn sqlite() -> Self {
        let directory = TempDir::new().unwrap();
        let url = format!("sqlite:{}", directory.path().join("state.db").display());
        Self {
            url,
            _alive: Resource::Directory(directory),
        }
    }

    fn on(server: Server) -> Self {
        Self {
            url: server.url(),
            _alive: Resource::Server(server),
        }
    }

    /// A Redis behind a proxy that enforces Dragonfly's rules.
    fn dragonfly() -> Self {
        let server = Server::redis().start();
        let dragonfly = Dragonfly::over(&server);
        Self {
            url: dragonfly.url(),
            _alive: Resource::Dragonfly(dragonfly, server),
        }
    }

    fn sentinel() -> Self {
        let server = Server::redis().start();
        let monitor = format!("monitor mymaster 127.0.0.1 {} 1", server.port());
        let sentinel = Server::redis().sentinel().arg("sentinel", &monitor).start();
        Self {
            url: format!("redis-sentinel://127.0.0.1:{}/mymaster", sentinel.port()),
            _alive: Resource::Sentinel { sentinel, server },
        }
    }

    /// Three primaries, over which the keys are spread.
    fn cluster() -> Self {
        let cluster = Cluster::start(Server::redis, 3, 0);
        Self {
            url: cluster.url(),
            _alive: Resource::Cluster(cluster),
        }
    }

    fn open(&self) -> Memory {
        // Some of these tests run so many threads that calls are slow.
        let memory = Memory::builder()
            .url(&self.url)
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        assert!(memory.status().connected, "{:?}", memory.status());
        memory
    }
}

fn number(name: &str) -> Key<i64> {
    Key::named(name.to_owned())
}

fn every_memory_reads_what_another_one_wrote(backend: &TestBackend) {
    let (one, other) = (backend.open(), backend.open());
    let key = Key::<String>::new("theme");
    assert_eq!(other.get(&key).unwrap(), None);
    for (writer, reader, value) in [
        (&one, &other, "dark"),
        (&other, &one, "light"),
        (&one, &other, "blue"),
    ] {
        assert_eq!(writer.set(&key, value.to_owned()).unwrap(), Written::Stored);
        assert_eq!(reader.get(&key).unwrap().as_deref(), Some(value));
        assert!(reader.contains(&key).unwrap());
    }
    let stamps = [&one, &other].map(|memory| memory.synced(&key).last_modified().unwrap());
    assert!(stamps[0].is_some() && stamps[0] == stamps[1]);
    one.set(&key, "last".to_owned()).unwrap();
    assert!(
        other.synced(&key).last_modified().unwrap() > stamps[0],
        "stamps rise"
    );
}

fn a_deleted_key_stays_deleted(backend: &TestBackend) {
    let (one, other) = (backend.open(), backend.open());
    let (key, items) = (number("n"), Key::<Vec<i64>>::new("items"));
    let held = other.synced(&items);
    one.set(&key, 5).unwrap();
    held.push(1).unwrap();
    assert_eq!(other.get(&key).unwrap(), Some(5));
    assert!(one.delete(&key).unwrap() && one.delete(&items).unwrap());
    assert_eq!(
        (other.get(&key).unwrap(), held.find().unwrap()),
        (None, None)
    );
    assert!(!other.delete(&key).unwrap() && !other.contains(&key).unwrap());
    // Later changes start from an empty value.
    other.add(&key, 2).unwrap();
    held.push(2).unwrap();
    assert_eq!(
        (one.get(&key).unwrap(), one.get(&items).unwrap()),
        (Some(2), Some(vec![2]))
    );
}

fn changes_of_many_memories_to_one_value_all_survive(backend: &TestBackend) {
    const MEMORIES: usize = 4;
    const EACH: usize = 25;
    let barrier = Barrier::new(MEMORIES);
    thread::scope(|scope| {
        for own in 0..MEMORIES {
            // Opened here, because a thread that fails leaves the others at the barrier.
            let (memory, barrier) = (backend.open(), &barrier);
            scope.spawn(move || {
                let items = memory.synced(&Key::<Vec<String>>::new("items"));
                let map = memory.synced(&Key::<BTreeMap<String, usize>>::new("map"));
                let set = memory.synced(&Key::<HashSet<usize>>::new("set"));
                barrier.wait();
                for step in 0..EACH {
                    items.push(format!("{own}/{step}")).unwrap();
                    memory.add(&number("count"), 1).unwrap();
                    map.insert(format!("{own}/{step}"), step).unwrap();
                    set.insert(step).unwrap();
                    memory
                        .update(&number("updates"), |value| {
                            *value = Some(value.unwrap_or(0) + 1);
                        })
                        .unwrap();
                }
                memory.close(DEADLINE).unwrap();
            });
        }
    });
    let memory = backend.open();
    let items = memory
        .get(&Key::<Vec<String>>::new("items"))
        .unwrap()
        .unwrap();
    for own in 0..MEMORIES {
        let of_own: Vec<_> = items
            .iter()
            .filter(|item| item.starts_with(&format!("{own}/")))
            .collect();
        assert_eq!(
            of_own,
            (0..EACH)
                .map(|step| format!("{own}/{step}"))
                .collect::<Vec<_>>()
                .iter()
                .collect::<Vec<_>>()
        );
    }
    assert_eq!(items.len(), MEMORIES * EACH);
    for name in ["count", "updates"] {
        assert_eq!(
            memory.get(&number(name)).unwrap(),
            Some((MEMORIES * EACH).try_into().unwrap()),
            "{name}"
        );
    }
    assert_eq!(
        memory
            .get(&Key::<BTreeMap<String, usize>>::new("map"))
            .unwrap()
            .unwrap()
            .len(),
        MEMORIES * EACH
    );
    assert_eq!(
        memory
            .get(&Key::<HashSet<usize>>::new("set"))
            .unwrap()
            .unwrap()
            .len(),
        EACH
    );
}

fn concurrent_calls_of_get_or_insert_return_the_same_value(backend: &TestBackend) {
    let barrier = Barrier::new(4);
    let got: HashSet<usize> = thread::scope(|scope| {
        let racers: Vec<_> = (0..4)
            .map(|own| {
                let map = backend
                    .open()
                    .synced(&Key::<HashMap<String, usize>>::new("map"));
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    map.get_or_insert("leader".to_owned(), own).unwrap()
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect()
    });
    assert_eq!(got.len(), 1, "{got:?}");
}

fn a_change_that_does_not_fit_is_a_conflict_and_changes_nothing(backend: &TestBackend) {
    let (one, other) = (backend.open(), backend.open());
    let value = Key::<Value>::new("value");
    one.set(&value, json!({"a": [1, 2], "n": i64::MAX}))
        .unwrap();
    let fields = other.synced(&value);
    assert_eq!(fields.at("n").get().unwrap(), json!(i64::MAX));
    one.set(&value, json!("text")).unwrap();
    assert_eq!(
        other
            .synced(&Key::<Vec<i64>>::new("value"))
            .push(1)
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
    assert_eq!(other.get(&value).unwrap(), Some(json!("text")));
    assert_eq!(
        other.get(&Key::<i64>::new("value")).unwrap_err().kind(),
        ErrorKind::Decode
    );
    one.set(&number("most"), i64::MAX).unwrap();
    assert_eq!(
        other.add(&number("most"), 1).unwrap_err().kind(),
        ErrorKind::Conflict
    );
    assert_eq!(one.get(&number("most")).unwrap(), Some(i64::MAX));
    let status = other.status();
    assert_eq!((status.pending, status.dead_letters), (0, 0));
}

fn threads_that_share_a_memory_see_their_writes_in_order(backend: &TestBackend) {
    let (memory, other) = (backend.open(), backend.open());
    thread::scope(|scope| {
        for own in 0..8 {
            let memory = memory.clone();
            scope.spawn(move || {
                let key = number(&format!("thread{own}"));
                for step in 0..50 {
                    memory.set(&key, step).unwrap();
                    assert_eq!(memory.get(&key).unwrap(), Some(step));
                    memory.add(&number("all"), 1).unwrap();
                }
            });
        }
    });
    assert_eq!(other.get(&number("all")).unwrap(), Some(400));
    assert_eq!(other.names().unwrap().len(), 9);
}

fn names_and_purge_keep_to_their_scope_whatever_its_name(backend: &TestBackend) {
    let under = |prefix: &str| {
        Memory::builder()
            .url(&backend.url)
            .prefix(prefix)
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap()
    };
    let prefixes = ["a*[b]?:", "a%_:", "é'\"\\:", "a:"];
    for prefix in prefixes {
        let memory = under(prefix);
        for scope in ["", "s", "s:t", "s%", "ü"] {
            let scoped = if scope.is_empty() {
                memory.clone()
            } else {
                memory.scope(scope)
            };
            for name in ["one", "two", "drei ß", "%", "_"] {
                scoped.set(&number(name), 1).unwrap();
            }
        }
    }
    let all = ["%", "_", "drei ß", "one", "two"];
    for prefix in prefixes {
        let memory = under(prefix);
        memory.scope("s").delete(&number("two")).unwrap();
        assert_eq!(memory.names().unwrap(), all);
        assert_eq!(memory.scope("s").names().unwrap(), all[..4]);
        assert_eq!(
            memory.scope("s").purge().unwrap(),
            9,
            "including the scope below it"
        );
        assert_eq!(memory.scope("s").scope("t").names().unwrap(), [""; 0]);
        assert_eq!(memory.scope("s%").names().unwrap(), all);
        assert_eq!(memory.names().unwrap(), all);
    }
    assert_eq!(under(prefixes[0]).purge().unwrap(), 15);
    assert_eq!(under(prefixes[1]).names().unwrap(), all);
}

fn many_names_are_listed_and_purged(backend: &TestBackend) {
    let memory = backend.open();
    let scope = memory.scope("many");
    memory.set(&number("stays"), 1).unwrap();
    let names: Vec<String> = (0..2_300).map(|number| format!("{number:05}")).collect();
    thread::scope(|threads| {
        for some in names.chunks(300) {
            let scope = &scope;
            threads.spawn(move || {
                for name in some {
                    scope.set(&number(name), 1).unwrap();
                }
            });
        }
    });
    assert_eq!(scope.names().unwrap(), names);
    assert_eq!(backend.open().scope("many").purge().unwrap(), 2_300);
    assert_eq!(memory.names().unwrap(), ["stays"]);
    assert_eq!(scope.names().unwrap(), [""; 0]);
}

fn values_of_any_size_are_read_as_they_were_written(backend: &TestBackend) {
    let (one, other) = (backend.open(), backend.open());
    let text = Key::<String>::new("text");
    for value in ["", "\0", "\u{10ffff}'\"\\", &"é\n".repeat(1_500_000)] {
        assert_eq!(one.set(&text, value.to_owned()).unwrap(), Written::Stored);
        assert!(
            other.get(&text).unwrap().as_deref() == Some(value),
            "{} bytes",
            value.len()
        );
    }
    let numbers = Key::<(i64, u64, f64, f64)>::new("numbers");
    let exact = (i64::MIN, u64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2);
    one.set(&numbers, exact).unwrap();
    assert_eq!(other.get(&numbers).unwrap(), Some(exact));
    let list = other.synced(&Key::<Vec<String>>::new("list"));
    one.set(&Key::new("list"), vec!["x".repeat(400_000); 3])
        .unwrap();
    list.push("last".to_owned()).unwrap();
    assert_eq!(
        one.synced(&Key::<Vec<String>>::new("list"))
            .at(3)
            .get()
            .unwrap(),
        "last"
    );
}

#[derive(SyncedMemory, Debug, PartialEq)]
#[synced(prefix = "shop:", scope = "cart")]
struct Cart {
    count: u32,
    #[synced(alias = "name", default = "none".to_owned())]
    title: String,
    items: Vec<String>,
    #[synced(ttl = "300ms")]
    hold: Option<String>,
    #[synced(nested, default)]
    owner: Owner,
}

#[derive(SyncedMemory, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
struct Owner {
    name: String,
    visits: u64,
}

fn a_struct_is_read_and_restored_as_a_whole(backend: &TestBackend) {
    let (one, other) = (
        Cart::open(&backend.url).unwrap(),
        Cart::open(&backend.url).unwrap(),
    );
    let cart = |count| Cart {
        count,
        title: "Friday".to_owned(),
        items: vec!["tea".to_owned()],
        hold: None,
        owner: Owner {
            name: "Ada".to_owned(),
            visits: 1,
        },
    };
    assert_eq!(one.restore(cart(3)).unwrap(), Written::Stored);
    assert_eq!(other.snapshot().unwrap(), cart(3));
    other.owner().add_visits(1).unwrap();
    one.owner().set_name("Grace".to_owned()).unwrap();
    other.items().push("milk".to_owned()).unwrap();
    assert_eq!(
        one.snapshot().unwrap().owner,
        Owner {
            name: "Grace".to_owned(),
            visits: 2
        }
    );
    assert_eq!(one.items().len().unwrap(), 2);
    other
        .memory()
        .set(&Key::new("name"), "older".to_owned())
        .unwrap();
    one.synced_title().delete().unwrap();
    assert_eq!(
        other.title().unwrap(),
        "none",
        "a delete includes the older name"
    );
    assert_eq!(
        other.memory().names().unwrap(),
        ["count", "hold", "items", "owner"]
    );
}

fn a_value_expires_and_a_write_without_a_time_to_live_keeps_the_expiry(backend: &TestBackend) {
    let (one, other) = (
        Cart::open(&backend.url).unwrap(),
        Cart::open(&backend.url).unwrap(),
    );
    one.set_hold(Some("mine".to_owned())).unwrap();
    // The same key, without its attributes.
    other
        .memory()
        .set(
            &Key::<Option<String>>::new("hold"),
            Some("still".to_owned()),
        )
        .unwrap();
    eventually(DEADLINE, "the value expires", || {
        let held = one.hold().unwrap();
        assert!(
            held.as_deref().is_none_or(|held| held == "still"),
            "{held:?}"
        );
        held.is_none()
    });
    assert_eq!(other.synced_hold().find().unwrap(), None);
    assert_eq!(other.memory().names().unwrap(), [""; 0]);
    // The expiry is gone: a later write does not inherit it.
    other
        .memory()
        .set(&Key::<Option<String>>::new("hold"), Some("new".to_owned()))
        .unwrap();
    assert_eq!(one.hold().unwrap().as_deref(), Some("new"));
}

fn after_one_memory_is_closed_others_go_on_and_a_later_one_reads_everything(backend: &TestBackend) {
    let (one, other) = (backend.open(), backend.open());
    one.set(&number("n"), 1).unwrap();
    one.synced(&Key::<Vec<i64>>::new("items"))
        .extend([1, 2])
        .unwrap();
    one.close(DEADLINE).unwrap();
    assert_eq!(
        one.set(&number("n"), 2).unwrap_err().kind(),
        ErrorKind::Closed
    );
    other.add(&number("n"), 1).unwrap();
    let later = backend.open();
    assert_eq!(later.get(&number("n")).unwrap(), Some(2));
    assert_eq!(
        later.get(&Key::<Vec<i64>>::new("items")).unwrap(),
        Some(vec![1, 2])
    );
    assert_eq!(later.status().pending, 0);
}

macro_rules! on {
    ($name:ident, $backend:expr) => {
        mod $name {
            use super::*;

            on!(@ $backend, every_memory_reads_what_another_one_wrote,
                a_deleted_key_stays_deleted,
                changes_of_many_memories_to_one_value_all_survive,
                concurrent_calls_of_get_or_insert_return_the_same_value,
                a_change_that_does_not_fit_is_a_conflict_and_changes_nothing,
                threads_that_share_a_memory_see_their_writes_in_order,
                names_and_purge_keep_to_their_scope_whatever_its_name,
                many_names_are_listed_and_purged,
                values_of_any_size_are_read_as_they_were_written,
                a_struct_is_read_and_restored_as_a_whole,
                a_value_expires_and_a_write_without_a_time_to_live_keeps_the_expiry,
                after_one_memory_is_closed_others_go_on_and_a_later_one_reads_everything);
        }
    };
    (@ $backend:expr, $($rule:ident),+) => {
        $(#[test] fn $rule() { super::$rule(&$backend) })+
    };
}

on!(process, TestBackend::process());
on!(sqlite, TestBackend::sqlite());
on!(redis, TestBackend::on(Server::redis().start()));
on!(redis_6, TestBackend::on(Server::redis_6().start()));
on!(valkey, TestBackend::on(Server::valkey().start()));
on!(dragonfly, TestBackend::dragonfly());
on!(sentinel, TestBackend::sentinel());
on!(cluster, TestBackend::cluster());

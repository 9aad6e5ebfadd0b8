//! Names that another program gave its keys, and the names that are the library's own.

use std::time::Duration;

use support::{Logs, Server, eventually};
use synced_memory::{ErrorKind, Key, Memory};

#[test]
fn a_key_whose_name_is_not_utf_8_is_skipped_and_counted_in_one_warning() {
    let server = Server::redis().start();
    let memory = Memory::builder()
        .url(server.url())
        .prefix("odd names:")
        .build()
        .unwrap();
    memory.set(&Key::new("a"), 1).unwrap();
    memory.scope("s").set(&Key::new("b"), 2).unwrap();
    for key in ["odd names:\\255\\254", "odd names:s:\\255", "other:\\255"] {
        server.cli(&["EVAL", &format!("redis.call('SET', '{key}', '1')"), "0"]);
    }

    let logs = Logs::capture();
    let warnings = || {
        let events = logs.events().into_iter();
        let ours = events.filter(|event| event.field("prefix") == Some("odd names:"));
        ours.filter_map(|event| event.field("keys").map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(memory.names().unwrap(), ["a"]);
    eventually(Duration::from_secs(10), "the warning is there", || {
        !warnings().is_empty()
    });
    assert_eq!(warnings(), ["2"]);
    assert_eq!(memory.scope("s").names().unwrap(), ["b"]);
    assert_eq!(memory.purge().unwrap(), 2);
    assert_eq!(memory.names().unwrap(), [""; 0]);
    // They are not this memory's to delete.
    let left = server.cli(&[
        "EVAL",
        "return redis.call('EXISTS', 'odd names:\\255\\254')",
        "0",
    ]);
    assert_eq!(left, redis::Value::Int(1));
}

#[test]
fn a_prefix_that_leads_to_the_library_s_own_keys_is_refused() {
    for prefix in [
        "s",
        "syn",
        "synced-memory",
        "synced-memory/",
        "synced-memory/a",
    ] {
        let opened = Memory::builder().url("memory:").prefix(prefix).build();
        let error = opened.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{prefix}");
        assert!(error.to_string().contains(prefix), "{error}");
        let url = format!("memory:?prefix={prefix}");
        let error = Memory::open(&url).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
    }
}

#[test]
fn without_a_prefix_no_name_hides_among_the_library_s_own_keys() {
    let server = Server::redis().start();
    let memory = Memory::builder()
        .url(server.url())
        .prefix("")
        .build()
        .unwrap();
    let key = |name: &str| Key::<u8>::named(name.to_owned());
    for (memory, name) in [
        (memory.clone(), "synced-memory/a"),
        (memory.scope("synced-memory/a"), "b"),
    ] {
        let set = memory.set(&key(name), 1).unwrap_err();
        let get = memory.get(&key(name)).unwrap_err();
        assert_eq!(
            (set.kind(), get.kind()),
            (ErrorKind::Config, ErrorKind::Config)
        );
    }
    memory.set(&key("synced-memory"), 1).unwrap();
    memory.set(&key("a"), 1).unwrap();
    memory.delete(&key("a")).unwrap();
    assert_eq!(memory.names().unwrap(), ["synced-memory"]);
}

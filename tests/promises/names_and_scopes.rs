//! Prefixes, scopes, names, purge, time to live, older names.

use std::time::{Duration, Instant};

use support::{Server, eventually};
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory, Written};

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn a_key_is_prefix_scope_and_name() {
    let server = Server::redis().start();
    let memory = Memory::builder()
        .url(server.url())
        .prefix("app:")
        .build()
        .unwrap();
    let key = Key::<i64>::new("n");
    memory.set(&key, 1).unwrap();
    memory.scope("a").set(&key, 2).unwrap();
    memory.scope("a").scope("b").set(&key, 3).unwrap();
    memory.scope("a:b").set(&Key::new("m"), 4).unwrap();
    for (full, value) in [
        ("app:n", 1),
        ("app:a:n", 2),
        ("app:a:b:n", 3),
        ("app:a:b:m", 4),
    ] {
        assert!(
            server
                .get_text(full)
                .unwrap()
                .starts_with(&format!(r#"{{"value": {value},"#)),
            "{full}"
        );
    }
}

#[test]
fn names_are_those_of_this_scope_and_purge_includes_the_scopes_below() {
    let server = Server::redis().start();
    let memory = Memory::builder()
        .url(server.url())
        .prefix("a*[x]?:")
        .build()
        .unwrap();
    server.set_raw("abx:decoy", "1");
    server.set_raw("a*[x]?other", "1");
    let scope = memory.scope("s");
    for name in ["one", "two"] {
        memory.set(&Key::named(name.to_owned()), 1).unwrap();
        scope.set(&Key::named(name.to_owned()), 1).unwrap();
        scope
            .scope("t")
            .set(&Key::named(name.to_owned()), 1)
            .unwrap();
    }
    scope.delete(&Key::<i32>::new("two")).unwrap();
    assert_eq!(memory.names().unwrap(), ["one", "two"]);
    assert_eq!(scope.names().unwrap(), ["one"]);
    assert_eq!(scope.purge().unwrap(), 3);
    assert_eq!(scope.names().unwrap(), [""; 0]);
    assert_eq!(scope.scope("t").names().unwrap(), [""; 0]);
    assert_eq!(memory.names().unwrap(), ["one", "two"]);
    assert_eq!(memory.purge().unwrap(), 2);
    assert!(server.get_raw("abx:decoy").is_some() && server.get_raw("a*[x]?other").is_some());
}

#[test]
fn an_invalid_name_is_an_error_at_each_use() {
    let memory = Memory::open("memory:").unwrap();
    for name in ["", "a:b", "{a}"] {
        let key = Key::<i32>::named(name.to_owned());
        assert_eq!(memory.set(&key, 1).unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(memory.get(&key).unwrap_err().kind(), ErrorKind::Config);
    }
    for scope in ["", "a{b", "a::b"] {
        assert_eq!(
            memory
                .scope(scope)
                .set(&Key::new("n"), 1)
                .unwrap_err()
                .kind(),
            ErrorKind::Config
        );
        assert_eq!(
            memory
                .scope(scope)
                .scope("fine")
                .names()
                .unwrap_err()
                .kind(),
            ErrorKind::Config
        );
    }
    assert_eq!(
        Memory::builder()
            .url("memory:")
            .prefix("a{b")
            .build()
            .unwrap_err()
            .kind(),
        ErrorKind::Config
    );
    let bare = Memory::builder().url("memory:").prefix("").build().unwrap();
    assert_eq!(bare.purge().unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn contains_is_true_for_keys_that_are_set_or_queued_to_be_set() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).unwrap();
    let key = Key::<i32>::new("n");
    assert!(!memory.contains(&key).unwrap());
    memory.set(&key, 1).unwrap();
    assert!(memory.contains(&key).unwrap());
    server.kill();
    eventually(DEADLINE, "the loss is noticed", || {
        !memory.status().connected
    });
    assert!(memory.contains(&key).unwrap());
    assert_eq!(
        memory
            .contains(&Key::<i32>::new("other"))
            .unwrap_err()
            .kind(),
        ErrorKind::Unavailable
    );
    assert!(memory.delete(&key).unwrap());
    assert!(!memory.contains(&key).unwrap());
    assert_eq!(memory.names().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[derive(SyncedMemory, Debug, PartialEq)]
#[synced(prefix = "shop:", scope = "cart", rename_all = "camelCase")]
struct Cart {
    item_count: u32,
    #[synced(alias = "oldTitle", alias = "olderTitle", default = "none".to_owned())]
    title: String,
    #[synced(ttl = "300ms")]
    hold: Option<String>,
}

#[test]
fn an_older_name_is_read_while_the_new_one_is_unset_and_a_delete_covers_both() {
    let server = Server::redis().start();
    let cart = Cart::open(&server.url()).unwrap();
    assert_eq!(cart.title().unwrap(), "none");
    server.set_raw("shop:cart:olderTitle", "\"older\"");
    assert_eq!(cart.title().unwrap(), "older");
    server.set_raw("shop:cart:oldTitle", "\"old\"");
    assert_eq!(cart.title().unwrap(), "old");
    assert_eq!(cart.set_title("new".to_owned()).unwrap(), Written::Stored);
    assert_eq!(cart.title().unwrap(), "new");
    assert!(cart.synced_title().delete().unwrap());
    assert_eq!(cart.title().unwrap(), "none");
    assert_eq!(server.get_raw("shop:cart:oldTitle"), None);
    assert_eq!(server.get_raw("shop:cart:olderTitle"), None);
}

#[test]
fn a_key_constant_behaves_like_the_methods_of_its_field() {
    let cart = Cart::open("memory:").unwrap();
    assert_eq!(
        cart.memory().get(&SyncedCart::TITLE).unwrap().as_deref(),
        Some("none")
    );
    cart.memory().set(&SyncedCart::ITEM_COUNT, 3).unwrap();
    assert_eq!(cart.item_count().unwrap(), 3);
    assert_eq!(cart.memory().names().unwrap(), ["itemCount"]);
    assert_eq!(Cart::NAMES, ["itemCount", "title", "hold"]);
}

#[test]
fn a_time_to_live_counts_from_the_write_and_a_write_without_one_keeps_it() {
    let server = Server::redis().start();
    for url in [server.url(), "memory:".to_owned()] {
        let cart = Cart::open(&url).unwrap();
        cart.set_hold(Some("mine".to_owned())).unwrap();
        assert_eq!(cart.hold().unwrap().as_deref(), Some("mine"));
        // The same key, without its attributes.
        cart.memory()
            .set(
                &Key::<Option<String>>::new("hold"),
                Some("still".to_owned()),
            )
            .unwrap();
        assert_eq!(cart.hold().unwrap().as_deref(), Some("still"));
        eventually(DEADLINE, "the value expires", || {
            cart.synced_hold().find().unwrap().is_none()
        });
    }
}

/// The memory expects the value to expire, but its expiry was removed on the server.
#[test]
fn a_value_whose_expiry_was_removed_is_read_and_changed_as_before() {
    let server = Server::redis().start();
    let cart = Cart::open(&server.url()).unwrap();
    let set_and_remove_expiry = || {
        cart.set_hold(Some("mine".to_owned())).unwrap();
        let expiry = Instant::now() + Duration::from_millis(300);
        server.cli(&["PERSIST", "shop:cart:hold"]);
        eventually(DEADLINE, "the former expiry has passed", || {
            Instant::now() > expiry
        });
    };
    set_and_remove_expiry();
    assert_eq!(cart.hold().unwrap().as_deref(), Some("mine"));
    set_and_remove_expiry();
    cart.synced_hold()
        .update(|hold| *hold = hold.take().map(|hold| hold + " still"))
        .unwrap();
    cart.memory().flush(DEADLINE).unwrap();
    assert_eq!(cart.hold().unwrap().as_deref(), Some("mine still"));
}

#[test]
fn a_time_to_live_ends_locally_too_while_the_backend_is_away() {
    let server = Server::redis().start();
    let cart = Cart::open(&server.url()).unwrap();
    cart.set_hold(Some("mine".to_owned())).unwrap();
    server.kill();
    eventually(DEADLINE, "the loss is noticed", || {
        !cart.memory().status().connected
    });
    eventually(DEADLINE, "the value expires", || {
        cart.synced_hold().find().unwrap().is_none()
    });
}

#[test]
fn an_entry_that_expired_in_the_outbox_is_dropped_and_counted() {
    let server = Server::redis().start();
    let cart = Cart::open(&server.url()).unwrap();
    server.kill();
    eventually(DEADLINE, "the loss is noticed", || {
        !cart.memory().status().connected
    });
    assert_eq!(
        cart.set_hold(Some("mine".to_owned())).unwrap(),
        Written::Queued
    );
    assert_eq!(cart.set_item_count(2).unwrap(), Written::Queued);
    eventually(DEADLINE, "the value expires", || {
        cart.synced_hold().find().unwrap().is_none()
    });
    server.start();
    cart.memory().flush(DEADLINE).unwrap();
    assert_eq!(server.get_raw("shop:cart:hold"), None);
    assert!(server.get_raw("shop:cart:itemCount").is_some());
    assert_eq!(cart.memory().status().expired, 1);
}

#[test]
fn a_named_memory_is_shared_within_the_process_and_a_nameless_one_is_not() {
    let key = Key::<i32>::new("n");
    let (first, second) = (
        Memory::open("memory:shared-by-two").unwrap(),
        Memory::open("memory:shared-by-two").unwrap(),
    );
    first.set(&key, 1).unwrap();
    assert_eq!(second.get(&key).unwrap(), Some(1));
    assert_eq!(Memory::open("memory:").unwrap().get(&key).unwrap(), None);
    drop((first, second));
    assert_eq!(
        Memory::open("memory:shared-by-two")
            .unwrap()
            .get(&key)
            .unwrap(),
        None
    );
}

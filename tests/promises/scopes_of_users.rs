//! A scope that is made of what a user wrote is one level, whatever that contains.

use std::collections::HashSet;

use support::Server;
use synced_memory::{ErrorKind, Key, Memory};

const NAMES: &[&str] = &[
    "a", "a:b", "a:", ":a", "a::b", ":", "{x}", "{", "}", "a}b{c", "%", "%3A", "a%3Ab", "a*", "?",
    "[a]", "é", "a b", "..", "a\nb", "💥",
];

#[test]
fn scope_for_makes_one_level_of_any_name() {
    let server = Server::redis().start();
    for memory in [Memory::open(&server.url()), Memory::open("memory:")] {
        let memory = memory.expect("a memory");
        let key = Key::<u64>::new("n");
        for (number, name) in (0..).zip(NAMES) {
            memory.scope_for(name).set(&key, number).expect(name);
            memory
                .scope_for(name)
                .scope("deeper")
                .set(&key, number)
                .expect(name);
        }
        for (number, name) in (0..).zip(NAMES) {
            let scope = memory.scope_for(name);
            assert_eq!(scope.get(&key).expect(name), Some(number), "{name:?}");
            assert_eq!(scope.names().expect(name), ["n"], "{name:?}");
            // Its own, and that of the scope below it: none of another name.
            assert_eq!(scope.purge().expect(name), 2, "{name:?}");
        }
    }
}

#[test]
fn scope_for_writes_only_what_means_something_in_another_way() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).expect("a memory");
    for (name, key) in [
        ("session_abc", "memory:session_abc:n"),
        ("é b*", "memory:é b*:n"),
        ("a:b{c}%", "memory:a%3Ab%7Bc%7D%25:n"),
    ] {
        memory
            .scope_for(name)
            .set(&Key::new("n"), 1)
            .expect("stored");
        assert!(server.get_raw(key).is_some(), "{key}");
    }
    let keys: HashSet<String> = NAMES
        .iter()
        .map(|name| format!("{:?}", memory.scope_for(name)))
        .collect();
    assert_eq!(keys.len(), NAMES.len());
    let empty = memory.scope_for("").get(&Key::<u64>::new("n"));
    assert_eq!(empty.expect_err("it has no name").kind(), ErrorKind::Config);
}

//! The derive in crates that make it hard: every lint denied, the names of the prelude taken, the
//! dependency renamed. That this file compiles is most of the test.

#![deny(warnings, missing_docs, unreachable_pub, clippy::pedantic)]

use synced_memory::SyncedMemory as _;

/// Everything public and documented.
pub mod public {
    use std::collections::HashMap;

    use synced_memory::SyncedMemory;

    /// The state of an agent.
    #[derive(Debug, Clone, PartialEq, SyncedMemory)]
    #[synced(prefix = "hygiene:", scope = "agents:one", rename_all = "camelCase")]
    pub struct AgentState {
        /// How often it ran.
        ///
        /// Counted by all processes.
        pub run_count: i64,
        /// The colours.
        #[synced(default = "dark".to_string(), into)]
        pub theme: String,
        /// What was said.
        pub history: Vec<String>,
        /// Anything.
        pub settings: HashMap<String, serde_json::Value>,
        /// One value, though it holds many.
        #[synced(value)]
        pub tags: Vec<String>,
        /// Not always there.
        pub note: Option<String>,
        /// Renamed twice.
        #[synced(rename = "last-seen", alias = "last_seen", alias = "seen", ttl = "1h 30m")]
        pub last_seen: u64,
        /// `r#type` is a field like any other.
        #[synced(default)]
        pub r#type: String,
        /// Its own names.
        #[synced(accessor = "stored_memory", default = 0.5)]
        pub memory: f64,
        /// Only here.
        #[synced(skip)]
        pub cached: Vec<u8>,
    }

    /// With parameters.
    #[derive(Debug, Clone, PartialEq, SyncedMemory)]
    #[synced(handle = LiveShelf)]
    pub struct Shelf<T, U: Ord = u8, const N: usize = 4>
    where
        T: std::fmt::Debug,
    {
        /// What stands on it.
        pub items: Vec<T>,
        /// The first of them.
        pub first: Option<T>,
        /// One by one.
        pub by_number: std::collections::BTreeMap<u32, T>,
        /// Of a plain type.
        pub label: String,
        /// Only here.
        #[synced(skip)]
        pub unshared: Option<U>,
        /// Only here.
        #[synced(skip)]
        pub slots: std::marker::PhantomData<[(); N]>,
    }

    /// Nothing in it.
    #[derive(Debug, Clone, Copy, PartialEq, SyncedMemory)]
    pub struct Empty {}

    /// Holds itself.
    #[derive(Debug, Clone, PartialEq, SyncedMemory, serde::Serialize, serde::Deserialize)]
    pub struct Tree {
        /// The trees below.
        pub children: Vec<Self>,
        /// The text of this one.
        #[synced(default = Self::nameless())]
        pub name: String,
    }

    impl Tree {
        /// The name of those without.
        #[must_use]
        pub fn nameless() -> String {
            "-".to_owned()
        }
    }
}

/// No text in the whole struct, and nobody uses it.
mod private {
    use synced_memory::SyncedMemory;

    #[derive(SyncedMemory)]
    struct Unused {
        counter: i64,
        names: Vec<String>,
    }

    #[derive(SyncedMemory)]
    #[allow(non_snake_case)]
    pub(super) struct Visible {
        pub(super) fooBar: u8,
        #[deprecated = "use fooBar"]
        old: u8,
    }
}

/// The names of the prelude and of the runtime mean something else here.
#[allow(dead_code, non_upper_case_globals)]
mod shadowed {
    struct Result;
    struct Option;
    struct String;
    struct Vec;
    struct Arc;
    struct Memory;
    struct Key;
    struct Spec;
    struct Field;
    struct Synced;
    struct Written;
    struct Value;
    struct Error;
    trait Clone {}
    trait Debug {}
    trait Default {}
    trait Into {}
    trait Handle {}
    trait SyncedMemory {}
    const Ok: u8 = 1;
    const Err: u8 = 2;
    const Some: u8 = 3;
    const None: u8 = 4;
    mod std {}
    mod core {}
    mod synced_memory {}
    mod serde {}

    #[derive(::synced_memory::SyncedMemory)]
    #[synced(prefix = "p", scope = "s")]
    pub(super) struct State {
        pub(super) counter: i64,
        #[synced(into, default = 1)]
        value: i64,
        #[synced(default, ttl = "1s", alias = "b", accessor = "restored")]
        restore: u8,
        #[synced(skip)]
        inner: u8,
        note: ::std::option::Option<u8>,
        list: ::std::vec::Vec<u8>,
    }
}

/// As if `Cargo.toml` had renamed the dependency.
mod renamed {
    use synced_memory as storage;

    #[derive(storage::SyncedMemory)]
    #[synced(crate = storage)]
    pub(super) struct State {
        pub(super) counter: i64,
    }
}

/// From a macro, with fragments.
mod from_macro {
    use synced_memory::SyncedMemory;

    macro_rules! state {
        ($name:ident { $($field:ident: $ty:ty = $default:expr, $wire:literal),* }) => {
            #[derive(SyncedMemory)]
            pub(super) struct $name { $(#[synced(default = $default, rename = $wire)] pub(super) $field: $ty),* }
        };
    }

    state!(State { counter: i64 = 1 + 1, "count", list: Vec<u8> = vec![1], "items" });
}

#[test]
fn names_are_the_wire_names_in_field_order() {
    assert_eq!(
        public::AgentState::NAMES,
        ["runCount", "theme", "history", "settings", "tags", "note", "last-seen", "type", "memory"]
    );
    assert_eq!(<public::Shelf<u8>>::NAMES, ["items", "first", "by_number", "label"]);
    assert!(public::Empty::NAMES.is_empty());
    assert_eq!(private::Visible::NAMES, ["fooBar", "old"]);
    assert_eq!(renamed::State::NAMES, ["counter"]);
    assert_eq!(from_macro::State::NAMES, ["count", "items"]);
    assert_eq!(
        <shadowed::State as synced_memory::SyncedMemory>::NAMES,
        ["counter", "value", "restore", "note", "list"]
    );
}

#[test]
fn a_handle_is_cloned_and_printed_without_bounds_on_the_values() {
    fn is_a_handle<H: Clone + std::fmt::Debug + Send + Sync + 'static>() {}
    is_a_handle::<public::SyncedAgentState>();
    is_a_handle::<public::LiveShelf<u8, u8, 2>>();
}

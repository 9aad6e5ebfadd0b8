//! The derive in crates that make it difficult: every lint is denied, names of the prelude have
//! another meaning, the dependency is renamed. Most of the test is that this file compiles.

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
        #[synced(
            rename = "last-seen",
            alias = "last_seen",
            alias = "seen",
            ttl = "1h 30m"
        )]
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

    /// Who it works for.
    #[derive(
        Debug, Clone, Default, PartialEq, SyncedMemory, serde::Serialize, serde::Deserialize,
    )]
    #[serde(default, rename_all = "camelCase", deny_unknown_fields, bound = "")]
    #[synced(prefix = "ignored:", rename_all = "UPPERCASE")]
    pub struct User {
        /// In full.
        #[synced(into)]
        pub full_name: String,
        /// In years.
        #[serde(rename = "years", alias = "age", alias = "years", default)]
        pub age: u128,
        /// Where.
        #[synced(nested, default = Address { street: "-".to_owned(), number: 1 }, into)]
        #[serde(default = "Address::nowhere")]
        pub address: Address,
        /// Only here.
        #[synced(skip)]
        #[serde(skip)]
        pub cached: Option<u8>,
    }

    /// A place.
    #[derive(
        Debug, Clone, Default, PartialEq, SyncedMemory, serde::Serialize, serde::Deserialize,
    )]
    #[serde(default = "Address::nowhere")]
    pub struct Address {
        /// The street.
        pub street: String,
        /// The house.
        #[serde(default = "Default::default", skip_serializing_if = "is_zero")]
        pub number: u8,
    }

    impl Address {
        /// No place.
        #[must_use]
        pub fn nowhere() -> Self {
            Self {
                street: String::new(),
                number: 0,
            }
        }
    }

    impl From<u8> for Address {
        fn from(number: u8) -> Self {
            Self {
                street: String::new(),
                number,
            }
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_zero(number: &u8) -> bool {
        *number == 0
    }

    /// Of every shape.
    #[derive(Debug, Clone, PartialEq, SyncedMemory)]
    pub struct Shapes<A: SyncedMemory, B, R = u8>
    where
        R: std::fmt::Debug,
    {
        /// One.
        #[synced(nested)]
        pub user: User,
        /// Of a parameter with a bound.
        #[synced(nested)]
        pub one: A,
        /// Of a parameter without one.
        #[synced(nested, ttl = "1h")]
        pub two: B,
        /// Of a type with a parameter.
        #[synced(nested)]
        pub wrapped: Wrapped<B>,
        /// Of any type.
        #[serde(default)]
        pub any: R,
        /// An alias.
        #[synced(collection, default = vec!["a".to_owned()])]
        pub names: Names,
        /// Any JSON.
        pub json: serde_json::Value,
        /// One value.
        #[synced(value)]
        pub one_json: serde_json::Value,
        /// A ratio.
        #[synced(default, ttl = "1s")]
        pub ratio: f32,
    }

    type Names = Vec<String>;

    /// A wrapper around another value.
    #[derive(
        Debug, Clone, Default, PartialEq, SyncedMemory, serde::Serialize, serde::Deserialize,
    )]
    #[serde(default)]
    pub struct Wrapped<T> {
        /// The wrapped value.
        #[synced(nested)]
        pub inner: T,
        /// By name.
        pub by_name: HashMap<String, T>,
    }

    /// With parameters.
    #[derive(Debug, Clone, PartialEq, SyncedMemory)]
    #[synced(handle = SharedShelf)]
    pub struct Shelf<T, U: Ord = u8, const N: usize = 4>
    where
        T: std::fmt::Debug,
    {
        /// What is on it.
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

/// Structs without docs, of which hardly anything is used.
mod private {
    use synced_memory::SyncedMemory;

    #[derive(SyncedMemory)]
    pub(super) struct Unused {
        counter: i64,
        names: Vec<String>,
    }

    #[derive(SyncedMemory)]
    #[allow(non_snake_case)]
    pub(super) struct Visible {
        pub(super) fooBar: u8,
        #[deprecated = "use fooBar"]
        old: u8,
        #[synced(nested)]
        #[deprecated = "use fooBar"]
        inner: Inner,
        #[deprecated]
        list: Vec<u8>,
    }

    #[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
    struct Inner {
        #[serde(rename = "type")]
        kind: u8,
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
    struct Place;
    struct Part;
    struct OnceLock;
    struct R;
    trait FnMut {}
    trait Number {}
    trait Integer {}
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
        #[synced(nested)]
        nested: Nested,
        #[synced(value)]
        json: ::serde_json::Value,
        #[synced(nested, accessor = "own")]
        own: user::Value,
    }

    #[derive(
        ::synced_memory::SyncedMemory,
        ::std::clone::Clone,
        ::std::default::Default,
        ::serde::Serialize,
        ::serde::Deserialize,
    )]
    #[serde(default)]
    struct Nested {
        change: i64,
        amount: f64,
        part: u8,
        place: u8,
        #[synced(into)]
        value: ::std::string::String,
    }

    mod user {
        // A `Value` of the user's own.
        #[derive(
            ::synced_memory::SyncedMemory,
            ::std::clone::Clone,
            ::serde::Serialize,
            ::serde::Deserialize,
        )]
        pub(super) struct Value {
            pub(super) number: u8,
        }

        #[derive(::synced_memory::SyncedMemory)]
        pub(super) struct Holder {
            #[synced(nested)]
            nested: Value,
            #[synced(value)]
            value: Value,
        }
    }
}

/// As if `Cargo.toml` had renamed the dependency.
mod renamed {
    use synced_memory as storage;

    #[derive(storage::SyncedMemory)]
    #[synced(crate = storage)]
    pub(super) struct State {
        pub(super) counter: i64,
        list: Vec<u8>,
        #[synced(nested)]
        nested: Nested,
    }

    #[derive(Clone, storage::SyncedMemory, serde::Serialize, serde::Deserialize)]
    #[synced(crate = storage)]
    #[serde(crate = "serde")]
    struct Nested {
        counter: i64,
    }
}

/// From a macro, with fragments.
mod from_macro {
    use synced_memory::SyncedMemory;

    macro_rules! state {
        ($name:ident { $($field:ident: $ty:ty = $default:expr, $wire:literal),* }) => {
            #[derive(SyncedMemory)]
            pub(super) struct $name {
                $(#[synced(default = $default, rename = $wire)] pub(super) $field: $ty),*
            }
        };
    }

    state!(State { counter: i64 = 1 + 1, "count", list: Vec<u8> = vec![1], "items" });

    macro_rules! nested {
        ($name:ident { $($field:ident: $ty:ty, $wire:literal, $default:literal),* }) => {
            #[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
            pub(super) struct $name {
                $(
                    #[synced(nested)]
                    #[serde(rename = $wire, default = $default)]
                    pub(super) $field: $ty
                ),*
            }
        };
    }

    nested!(Outer { inner: Inner, "in", "inner" });

    #[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
    pub(super) struct Inner {
        number: u8,
    }

    fn inner() -> Inner {
        Inner { number: 0 }
    }
}

#[test]
fn names_are_the_wire_names_in_field_order() {
    assert_eq!(
        public::AgentState::NAMES,
        [
            "runCount",
            "theme",
            "history",
            "settings",
            "tags",
            "note",
            "last-seen",
            "type",
            "memory"
        ]
    );
    assert_eq!(
        <public::Shelf<u8>>::NAMES,
        ["items", "first", "by_number", "label"]
    );
    assert!(public::Empty::NAMES.is_empty());
    assert_eq!(private::Unused::NAMES, ["counter", "names"]);
    assert_eq!(private::Visible::NAMES, ["fooBar", "old", "inner", "list"]);
    assert_eq!(renamed::State::NAMES, ["counter", "list", "nested"]);
    assert_eq!(public::User::NAMES, ["FULL_NAME", "AGE", "ADDRESS"]);
    assert_eq!(from_macro::Outer::NAMES, ["inner"]);
    assert_eq!(from_macro::State::NAMES, ["count", "items"]);
    assert_eq!(
        <shadowed::State as synced_memory::SyncedMemory>::NAMES,
        [
            "counter", "value", "restore", "note", "list", "nested", "json", "own"
        ]
    );
}

#[test]
fn a_handle_is_cloned_and_printed_without_bounds_on_the_values() {
    fn is_a_handle<H: Clone + std::fmt::Debug + Send + Sync + 'static>() {}
    is_a_handle::<public::SyncedAgentState>();
    is_a_handle::<public::SharedShelf<u8, u8, 2>>();
    is_a_handle::<public::SyncedShapes<public::User, public::Address, [(); 2]>>();
}

#[test]
fn every_shape_has_its_methods() -> synced_memory::Result<()> {
    use public::{Address, Shapes, SyncedAddress, SyncedUser, User};
    use synced_memory::Synced;

    let shapes = Shapes::<User, Address, f64>::open("memory:")?;
    let user: &SyncedUser = shapes.user();
    let address: &SyncedAddress = user.address();
    let _: &SyncedAddress = shapes.wrapped().inner();
    let _: (&SyncedUser, &SyncedAddress) = (shapes.one(), shapes.two());
    let _: (&Synced<User>, &Synced<Address>, &Synced<u8>) = (
        shapes.synced_user(),
        user.synced_address(),
        address.synced_number(),
    );
    let _: (&Synced<Vec<String>>, &Synced<serde_json::Value>) = (shapes.names(), shapes.json());
    let _: (
        synced_memory::Result<serde_json::Value>,
        &Synced<serde_json::Value>,
    ) = (shapes.one_json(), shapes.synced_one_json());
    let _ = |user: User, address: u8, names: Vec<String>| -> synced_memory::Result<()> {
        shapes.set_user(user)?;
        shapes.user().set_address(address)?;
        shapes.user().set_full_name("Ada")?;
        shapes.set_names(names)?;
        shapes.user().add_age(1)?;
        shapes.user().sub_age(1)?;
        shapes.add_ratio(0.5)?;
        let lengths: (usize, usize) = (
            shapes.update_names(|names| names.len())?,
            shapes.update_json(|_| 1)?,
        );
        let text: String = shapes.update_user(|user| std::mem::take(&mut user.full_name))?;
        shapes.update_any(|any| *any += 1.0)?;
        shapes.update_names(|names| names.push(text.clone()))?;
        let _ = (lengths, shapes.user().snapshot()?, shapes.user().memory());
        Ok(())
    };
    Ok(())
}

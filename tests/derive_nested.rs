//! Handles inside a key: each field is a member of the JSON object, under its name in serde.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use synced_memory::{ErrorKind, Key, Memory, Result, SyncedMemory};

#[derive(Debug, Clone, PartialEq, SyncedMemory)]
#[synced(rename_all = "UPPERCASE")]
struct State {
    #[synced(nested, rename = "user")]
    user: User,
    #[synced(nested, rename = "plan", default = Plan { name: "free".to_owned(), seats: 1 })]
    plan: Plan,
    counter: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
#[serde(rename_all = "camelCase")]
#[synced(
    prefix = "ignored:",
    scope = "ignored",
    rename_all = "SCREAMING_SNAKE_CASE"
)]
struct User {
    #[synced(into)]
    full_name: String,
    #[serde(rename = "years", alias = "age")]
    #[synced(rename = "root-age", alias = "root-years", ttl = "1ms")]
    age: u32,
    #[serde(default = "fallback")]
    #[synced(default = 0.25)]
    share: f64,
    #[synced(default = 3)]
    level: u8,
    #[serde(default)]
    visits: u64,
    r#type: Option<String>,
    logged_in: Vec<u64>,
    #[synced(nested, default)]
    address: Address,
    #[synced(skip)]
    #[serde(skip)]
    cached: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
#[serde(default)]
struct Address {
    street: String,
    #[serde(rename = "no")]
    number: u16,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct Plan {
    name: String,
    seats: u32,
}

impl Default for Address {
    fn default() -> Self {
        Self {
            street: "-".to_owned(),
            number: 7,
        }
    }
}

fn fallback() -> f64 {
    0.5
}

fn ada() -> User {
    User {
        full_name: "Ada".to_owned(),
        age: 36,
        share: 0.75,
        level: 1,
        visits: 2,
        r#type: Some("human".to_owned()),
        logged_in: vec![1],
        address: Address {
            street: "St James".to_owned(),
            number: 12,
        },
        cached: Vec::new(),
    }
}

fn stored(state: &SyncedState, key: &'static str) -> Value {
    state
        .memory()
        .get(&Key::<Value>::new(key))
        .expect("the key reads")
        .expect("the key is set")
}

#[test]
fn a_renamed_member_that_is_set_by_handle_and_by_update_stays_one() -> Result<()> {
    let state = State::open("memory:")?;
    state.set_user(ada())?;
    let before = stored(&state, "user");
    state.user().set_full_name("Grace")?;
    state.user().set_age(85)?;
    state.update_user(|user| {
        user.full_name.push_str(" Hopper");
        user.age += 1;
    })?;
    state.user().update_age(|age| *age += 1)?;
    assert_eq!(state.user().full_name()?, "Grace Hopper");
    assert_eq!(state.user().age()?, 87);
    let mut expected = before;
    expected["fullName"] = json!("Grace Hopper");
    expected["years"] = json!(87);
    assert_eq!(
        stored(&state, "user"),
        expected,
        "no member was added or removed"
    );
    Ok(())
}

#[test]
fn members_have_their_serde_names_and_not_those_of_the_root() -> Result<()> {
    let state = State::open("memory:")?;
    state.user().restore(ada())?;
    assert_eq!(
        stored(&state, "user"),
        serde_json::to_value(ada()).expect("a user has a JSON form")
    );
    assert_eq!(
        state.memory().names()?,
        ["user"],
        "the nested struct has no prefix or scope of its own"
    );
    Ok(())
}

#[test]
fn a_setter_under_an_unset_parent_starts_from_an_object_with_only_that() -> Result<()> {
    let state = State::open("memory:")?;
    state.user().set_full_name("Ada")?;
    assert_eq!(stored(&state, "user"), json!({ "fullName": "Ada" }));
    assert_eq!(state.user().full_name()?, "Ada");
    let error = state.synced_user().get().unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unset,
        "some fields are still missing"
    );
    assert!(error.to_string().contains("years"), "{error}");
    Ok(())
}

#[test]
fn what_is_missing_deep_inside_is_named_with_its_path() -> Result<()> {
    #[derive(SyncedMemory, Serialize, Deserialize, Clone, Debug)]
    struct Inner {
        first: u8,
        second: u8,
    }
    #[derive(SyncedMemory, Serialize, Deserialize, Clone, Debug)]
    struct Outer {
        #[synced(nested)]
        inner: Inner,
    }
    #[derive(SyncedMemory)]
    struct Whole {
        #[synced(nested)]
        outer: Outer,
    }
    let whole = Whole::open("memory:")?;
    whole.outer().inner().set_first(1)?;
    let error = whole.synced_outer().get().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unset);
    assert!(
        error.to_string().contains("`inner.second` is missing"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_setter_under_an_unset_parent_starts_from_its_default() -> Result<()> {
    let state = State::open("memory:")?;
    state.plan().set_seats(5)?;
    assert_eq!(
        stored(&state, "plan"),
        json!({ "name": "free", "seats": 5 })
    );
    state.user().address().set_street("Main".to_owned())?;
    assert_eq!(
        stored(&state, "user"),
        json!({ "address": { "street": "Main", "no": 7 } })
    );
    Ok(())
}

#[test]
fn a_missing_member_reads_as_its_serde_default_or_else_as_its_synced_default() -> Result<()> {
    let state = State::open("memory:")?;
    state.user().set_full_name("Ada")?;
    let user = state.user();
    assert_eq!(
        user.share()?.to_bits(),
        0.5_f64.to_bits(),
        "the function of serde(default = …)"
    );
    assert_eq!(user.level()?, 3, "the expression of synced(default = …)");
    assert_eq!(user.visits()?, 0, "serde(default)");
    assert_eq!(user.r#type()?, None);
    assert!(user.logged_in().get()?.is_empty());
    assert_eq!(user.age().unwrap_err().kind(), ErrorKind::Unset);
    // With serde(default) on the struct, a missing member reads as that of the struct's default.
    state
        .memory()
        .set(&Key::<Value>::new("user"), json!({ "address": {} }))?;
    assert_eq!(user.address().street()?, "-");
    assert_eq!(user.address().number()?, 7);
    Ok(())
}

#[test]
fn an_older_name_of_a_member_is_read_and_is_not_left_beside_the_new_one() -> Result<()> {
    let state = State::open("memory:")?;
    let mut old = serde_json::to_value(ada()).expect("a user has a JSON form");
    let members = old.as_object_mut().expect("an object");
    let age = members.remove("years").expect("the member");
    members.insert("age".to_owned(), age);
    state.memory().set(&Key::<Value>::new("user"), old)?;
    assert_eq!(state.user().age()?, 36);
    state.user().set_age(37)?;
    assert_eq!(state.user().age()?, 37);
    assert_eq!(
        state.synced_user().get()?.age,
        37,
        "serde refuses a member that is there twice"
    );
    Ok(())
}

#[test]
fn a_collection_and_a_number_inside_a_key_are_changed_one_part_at_a_time() -> Result<()> {
    let state = State::open("memory:")?;
    state.set_user(ada())?;
    state.user().logged_in().push(2)?;
    state.user().add_visits(3)?;
    state.user().sub_visits(1)?;
    state.user().add_share(-0.25)?;
    let user = state.user().snapshot()?;
    assert_eq!(user.logged_in, [1, 2]);
    assert_eq!(user.visits, 4);
    assert_eq!(user.share.to_bits(), 0.5_f64.to_bits());
    assert_eq!(state.user().update_logged_in(|times| times.len())?, 2);
    Ok(())
}

#[test]
fn snapshot_and_restore_of_a_nested_handle_are_of_its_struct_only() -> Result<()> {
    let state = State::open("memory:")?;
    state.set_user(ada())?;
    state.set_counter(1)?;
    let address = Address {
        street: "Main".to_owned(),
        number: 1,
    };
    state.user().address().restore(address.clone())?;
    assert_eq!(state.user().address().snapshot()?, address);
    assert_eq!(state.snapshot()?.user, User { address, ..ada() });
    assert_eq!(state.user().snapshot()?, state.synced_user().get()?);
    Ok(())
}

#[test]
fn a_nested_handle_is_made_once_and_has_the_memory_of_the_outer_one() -> Result<()> {
    let state = State::attach(&Memory::open("memory:")?.scope("tenant"));
    assert!(std::ptr::eq(state.user(), state.clone().user()));
    state.user().set_full_name("Ada")?;
    assert_eq!(state.user().memory().names()?, ["user"]);
    Ok(())
}

#[test]
fn the_same_struct_at_the_root_has_the_names_of_the_attributes() -> Result<()> {
    assert_eq!(
        User::NAMES,
        [
            "FULL_NAME",
            "root-age",
            "SHARE",
            "LEVEL",
            "VISITS",
            "TYPE",
            "LOGGED_IN",
            "ADDRESS"
        ]
    );
    let memory = Memory::open("memory:")?;
    let user = User::attach(&memory);
    assert_eq!(
        user.share()?.to_bits(),
        0.25_f64.to_bits(),
        "at the root the serde default does not apply"
    );
    user.set_full_name("Ada")?;
    assert_eq!(user.memory().names()?, ["FULL_NAME"]);
    assert!(memory.names()?.is_empty(), "it is under its own prefix");
    Ok(())
}

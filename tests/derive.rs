//! What a derived handle does, on `memory:`.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use synced_memory::{ErrorKind, Key, Memory, Result, SyncedMemory, Written};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Message {
    text: String,
}

#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct AgentState {
    counter: i64,
    #[synced(default = "dark".to_string(), into)]
    theme: String,
    history: Vec<Message>,
    settings: HashMap<String, serde_json::Value>,
    note: Option<String>,
    #[synced(default)]
    ratio: f64,
    #[synced(rename = "last-seen", alias = "seen", alias = "last_seen")]
    last_seen: u64,
    #[synced(accessor = "stored_memory", default = 512)]
    memory: u32,
    #[synced(default)]
    r#type: String,
    #[synced(skip)]
    cached: Vec<u8>,
}

fn full() -> AgentState {
    AgentState {
        counter: -3,
        theme: "light".to_owned(),
        history: vec![Message {
            text: "hello".to_owned(),
        }],
        settings: HashMap::from([("lang".to_owned(), serde_json::json!("en"))]),
        note: Some("n".to_owned()),
        ratio: 0.1 + 0.2,
        last_seen: u64::MAX,
        memory: 1024,
        r#type: "t".to_owned(),
        cached: Vec::new(),
    }
}

#[test]
fn a_set_field_is_read_by_every_handle_of_the_backend() -> Result<()> {
    let one = AgentState::open("memory:a_set_field_is_read")?;
    let other = AgentState::open("memory:a_set_field_is_read")?;
    assert_eq!(one.set_counter(3)?, Written::Stored);
    one.set_theme("light")?;
    one.set_stored_memory(7)?;
    one.set_type("t".to_owned())?;
    for handle in [&one, &one.clone(), &other] {
        assert_eq!(handle.counter()?, 3);
        assert_eq!(handle.theme()?, "light");
        assert_eq!(handle.stored_memory()?, 7);
        assert_eq!(handle.r#type()?, "t");
    }
    Ok(())
}

#[test]
fn an_unset_field_reads_as_its_default_or_none_or_empty_or_is_an_error() -> Result<()> {
    let state = AgentState::open("memory:")?;
    assert_eq!(state.theme()?, "dark");
    assert_eq!(state.stored_memory()?, 512);
    assert_eq!(state.ratio()?.to_bits(), 0);
    assert_eq!(state.note()?, None);
    assert_eq!(state.history().get()?, []);
    assert!(state.settings().get()?.is_empty());
    let error = state.counter().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unset);
    assert!(error.to_string().contains("counter"), "{error}");
    assert_eq!(state.snapshot().unwrap_err().kind(), ErrorKind::Unset);
    Ok(())
}

#[test]
fn a_restored_struct_is_the_snapshot() -> Result<()> {
    let state = AgentState::open("memory:")?;
    let restored = AgentState {
        cached: vec![1],
        ..full()
    };
    assert_eq!(state.restore(restored)?, Written::Stored);
    assert_eq!(
        state.snapshot()?,
        full(),
        "and what is skipped is the default"
    );
    Ok(())
}

#[test]
fn an_older_name_is_read_where_the_new_one_is_unset() -> Result<()> {
    let state = AgentState::open("memory:")?;
    state.memory().set(&Key::<u64>::new("last_seen"), 1)?;
    assert_eq!(state.last_seen()?, 1);
    state.memory().set(&Key::<u64>::new("seen"), 2)?;
    assert_eq!(state.last_seen()?, 2, "the first alias wins");
    state.set_last_seen(3)?;
    assert_eq!(state.last_seen()?, 3);
    assert_eq!(state.memory().get(&Key::<u64>::new("last-seen"))?, Some(3));
    Ok(())
}

#[test]
fn an_update_gives_what_its_closure_gives() -> Result<()> {
    let state = AgentState::open("memory:")?;
    let length = state.update_theme(|theme| {
        theme.push_str("er");
        theme.len()
    })?;
    assert_eq!(
        (length, state.theme()?.as_str()),
        (6, "darker"),
        "an unset field starts from its default"
    );
    state.update_history(|history| {
        history.push(Message {
            text: "hello".to_owned(),
        });
    })?;
    assert_eq!(
        state.history().get()?,
        [Message {
            text: "hello".to_owned()
        }]
    );
    assert_eq!(
        state.update_counter(|counter| *counter).unwrap_err().kind(),
        ErrorKind::Unset
    );
    Ok(())
}

#[test]
fn numbers_are_added_to_and_subtracted_from() -> Result<()> {
    let state = AgentState::open("memory:")?;
    state.add_counter(5)?;
    assert_eq!(state.sub_counter(7)?, Written::Stored);
    assert_eq!(
        state.counter()?,
        -2,
        "an unset number without a default is zero to an addition"
    );
    state.add_ratio(0.5)?;
    assert_eq!(state.ratio()?.to_bits(), 0.5_f64.to_bits());
    state.set_stored_memory(1)?;
    state.sub_stored_memory(1)?;
    assert_eq!(state.stored_memory()?, 0);
    Ok(())
}

#[test]
fn a_collection_is_the_view_of_it() -> Result<()> {
    let state = AgentState::open("memory:")?;
    let history = state.history().clone();
    history.push(Message {
        text: "hello".to_owned(),
    })?;
    assert_eq!(
        state.snapshot().unwrap_err().kind(),
        ErrorKind::Unset,
        "of the counter"
    );
    assert_eq!(state.history().with(Vec::len)?, 1);
    Ok(())
}

#[test]
fn a_constant_is_the_key_of_its_field() -> Result<()> {
    let state = AgentState::open("memory:")?;
    state.memory().set(&SyncedAgentState::COUNTER, 5)?;
    state.memory().set(&SyncedAgentState::STORED_MEMORY, 6)?;
    assert_eq!(state.counter()?, 5);
    assert_eq!(state.stored_memory()?, 6);
    assert_eq!(SyncedAgentState::LAST_SEEN.name(), "last-seen");
    Ok(())
}

#[test]
fn the_names_in_the_backend_are_the_wire_names() -> Result<()> {
    let state = AgentState::open("memory:")?;
    state.restore(full())?;
    let stored: BTreeSet<_> = state.memory().names()?.into_iter().collect();
    let declared = AgentState::NAMES
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(stored, declared);
    Ok(())
}

#[derive(SyncedMemory)]
#[synced(scope = "sessions:one", rename_all = "camelCase")]
struct Session {
    user_name: String,
}

#[test]
fn a_scope_on_the_struct_is_under_the_scope_of_the_memory() -> Result<()> {
    let memory = Memory::open("memory:")?;
    let session = Session::attach(&memory.scope("tenant"));
    session.set_user_name("Ada".to_owned())?;
    let key = Key::<String>::new("userName");
    assert_eq!(
        memory.scope("tenant:sessions:one").get(&key)?,
        Some("Ada".to_owned())
    );
    assert_eq!(memory.get(&key)?, None);
    Ok(())
}

#[derive(SyncedMemory)]
#[synced(prefix = "elsewhere:")]
struct Elsewhere {
    counter: i64,
}

#[test]
fn a_prefix_on_the_struct_replaces_that_of_the_memory() -> Result<()> {
    let memory = Memory::open("memory:")?;
    Elsewhere::attach(&memory).set_counter(1)?;
    assert_eq!(memory.get(&Key::<i64>::new("counter"))?, None);
    assert_eq!(Elsewhere::attach(&memory).counter()?, 1);
    Ok(())
}

#[derive(Debug, PartialEq, SyncedMemory)]
struct Shelf<T, const N: usize>
where
    T: Debug,
{
    items: Vec<T>,
    first: Option<T>,
    pair: [T; N],
}

#[test]
fn a_generic_struct_is_shared_for_every_type_that_is_a_value() -> Result<()> {
    let shelf = Shelf::<String, 2>::open("memory:")?;
    shelf.set_items(vec!["a".to_owned()])?;
    shelf.set_pair(["a".to_owned(), "b".to_owned()])?;
    let expected = Shelf {
        items: vec!["a".to_owned()],
        first: None,
        pair: ["a".to_owned(), "b".to_owned()],
    };
    assert_eq!(shelf.snapshot()?, expected);
    assert!(Shelf::<u8, 1>::open("memory:")?.items().get()?.is_empty());
    Ok(())
}

#[derive(SyncedMemory)]
struct Short {
    #[synced(ttl = "40ms", default = 1)]
    lease: u8,
}

#[test]
fn a_value_with_a_ttl_ends() -> Result<()> {
    let short = Short::open("memory:")?;
    short.set_lease(2)?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while short.lease()? == 2 {
        assert!(std::time::Instant::now() < deadline, "the value stays");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(short.lease()?, 1);
    Ok(())
}

#[test]
fn a_printed_handle_names_its_memory_and_no_value() -> Result<()> {
    let state = AgentState::open("memory:")?;
    state.set_theme("a secret")?;
    let printed = format!("{state:?}");
    assert!(printed.starts_with("SyncedAgentState"), "{printed}");
    assert!(!printed.contains("a secret"), "{printed}");
    Ok(())
}

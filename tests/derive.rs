//! What a derived handle does, on `memory:`.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::time::Duration;

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
        "and a skipped field has its default"
    );
    Ok(())
}

#[test]
fn an_older_name_is_read_if_the_new_one_is_unset() -> Result<()> {
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
fn an_update_returns_what_its_closure_returns() -> Result<()> {
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
fn a_number_has_an_add_and_a_sub_method() -> Result<()> {
    let state = AgentState::open("memory:")?;
    state.add_counter(5)?;
    assert_eq!(state.sub_counter(7)?, Written::Stored);
    assert_eq!(
        state.counter()?,
        -2,
        "an addition to an unset number without a default starts from zero"
    );
    state.add_ratio(0.5)?;
    assert_eq!(state.ratio()?.to_bits(), 0.5_f64.to_bits());
    state.set_stored_memory(1)?;
    state.sub_stored_memory(1)?;
    assert_eq!(state.stored_memory()?, 0);
    Ok(())
}

#[test]
fn the_getter_of_a_collection_returns_its_view() -> Result<()> {
    let state = AgentState::open("memory:")?;
    let history = state.history().clone();
    history.push(Message {
        text: "hello".to_owned(),
    })?;
    assert_eq!(
        state.snapshot().unwrap_err().kind(),
        ErrorKind::Unset,
        "the counter is unset"
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
#[synced(prefix = "other:")]
struct OtherPrefix {
    counter: i64,
}

#[test]
fn a_prefix_on_the_struct_replaces_that_of_the_memory() -> Result<()> {
    let memory = Memory::open("memory:")?;
    OtherPrefix::attach(&memory).set_counter(1)?;
    assert_eq!(memory.get(&Key::<i64>::new("counter"))?, None);
    assert_eq!(OtherPrefix::attach(&memory).counter()?, 1);
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
fn a_value_with_a_ttl_expires() -> Result<()> {
    let short = Short::open("memory:")?;
    short.set_lease(2)?;
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while short.lease()? == 2 {
        assert!(std::time::Instant::now() < deadline, "the value stays");
        std::thread::sleep(Duration::from_millis(1));
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

/// The error kinds that the docs of a generated method name, read from the snapshot of the
/// expansion.
fn documented_kinds(method: &str) -> BTreeSet<&'static str> {
    let expansion = include_str!(
        "../synced-memory-derive/src/pipeline/snapshots/\
         synced_memory_derive__pipeline__tests__the_expansion_of_a_representative_struct.snap"
    );
    let declaration = expansion
        .find(&format!("pub fn {method}"))
        .expect("the method is generated");
    let errors = expansion[..declaration]
        .rsplit("# Errors")
        .next()
        .expect("it can fail");
    let reasons = errors.split(" if ").filter_map(|reason| {
        let (_, kind) = reason.strip_suffix('`')?.rsplit_once('`')?;
        Some(kind)
    });
    reasons.collect()
}

/// Asserts that a call failed with this kind, and that the docs of such a method name it.
fn assert_fails<T: Debug>(result: Result<T>, kind: ErrorKind, method: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{method}: {error}");
    let documented = documented_kinds(method);
    let kind = format!("{kind:?}");
    assert!(documented.contains(&*kind), "{method}: {documented:?}");
}

#[test]
fn a_call_fails_with_a_kind_that_its_docs_name() -> Result<()> {
    let state = AgentState::open("memory:")?;
    let memory = state.memory();
    assert_fails(state.counter(), ErrorKind::Unset, "counter(");
    assert_fails(state.snapshot(), ErrorKind::Unset, "snapshot(");
    let updated = state.update_counter(|counter| *counter += 1);
    assert_fails(updated, ErrorKind::Unset, "update_counter<");

    let text = "no number".to_owned();
    memory.set(&Key::<String>::new("counter"), text)?;
    assert_fails(state.counter(), ErrorKind::Decode, "counter(");
    assert_fails(state.snapshot(), ErrorKind::Decode, "snapshot(");
    let updated = state.update_counter(|counter| *counter += 1);
    assert_fails(updated, ErrorKind::Decode, "update_counter<");
    assert_fails(state.add_counter(1), ErrorKind::Conflict, "add_counter(");
    assert_fails(state.sub_counter(1), ErrorKind::Conflict, "sub_counter(");

    let nan = f64::NAN;
    assert_fails(state.set_ratio(nan), ErrorKind::Serialize, "set_ratio(");
    assert_fails(state.add_ratio(nan), ErrorKind::Serialize, "add_ratio(");
    let updated = state.update_ratio(|ratio| *ratio = nan);
    assert_fails(updated, ErrorKind::Serialize, "update_ratio<");
    let restored = state.restore(AgentState {
        ratio: nan,
        ..full()
    });
    assert_fails(restored, ErrorKind::Serialize, "restore(");
    let added = state.add_stored_memory(u32::MAX);
    assert_fails(added, ErrorKind::Conflict, "add_counter(");

    let mut inner = None;
    state.set_counter(1)?;
    let _ = state.update_counter(|_| inner = Some(state.set_counter(2)));
    let inner = inner.expect("the closure runs");
    assert_fails(inner, ErrorKind::Conflict, "update_counter<");
    Ok(())
}

#[test]
fn after_close_every_call_fails_as_its_docs_say() -> Result<()> {
    let state = AgentState::open("memory:")?;
    state.memory().close(Duration::from_secs(5))?;
    assert_fails(state.counter(), ErrorKind::Closed, "counter(");
    assert_fails(state.snapshot(), ErrorKind::Closed, "snapshot(");
    assert_fails(state.set_counter(1), ErrorKind::Closed, "set_counter(");
    assert_fails(state.add_counter(1), ErrorKind::Closed, "add_counter(");
    let updated = state.update_counter(|counter| *counter += 1);
    assert_fails(updated, ErrorKind::Closed, "update_counter<");
    assert_fails(state.restore(full()), ErrorKind::Closed, "restore(");
    Ok(())
}

/// Nothing listens on port 1.
const AWAY: &str = "redis://127.0.0.1:1?timeout=50ms&shutdown_timeout=1ms";

#[test]
fn while_the_server_is_away_reads_and_closures_are_unavailable_and_writes_are_queued() -> Result<()>
{
    let state = AgentState::open(AWAY)?;
    assert_fails(state.counter(), ErrorKind::Unavailable, "counter(");
    assert_fails(state.snapshot(), ErrorKind::Unavailable, "snapshot(");
    let updated = state.update_counter(|counter| *counter += 1);
    assert_fails(updated, ErrorKind::Unavailable, "update_counter<");
    assert_eq!(state.theme()?, "dark", "there is a default");

    assert_eq!(state.set_counter(1)?, Written::Queued);
    assert_eq!(state.add_counter(1)?, Written::Queued);
    assert_eq!(state.counter()?, 2, "it is known now");
    assert_eq!(state.restore(full())?, Written::Queued);
    assert_eq!(state.snapshot()?, full());
    Ok(())
}

#[derive(SyncedMemory)]
struct ConfirmedState {
    #[synced(confirmed)]
    counter: i64,
}

#[test]
fn while_the_server_is_away_a_confirmed_write_is_unavailable() -> Result<()> {
    let confirmed_state = ConfirmedState::open(AWAY)?;
    assert_fails(
        confirmed_state.set_counter(1),
        ErrorKind::Unavailable,
        "set_counter(",
    );
    assert_fails(
        confirmed_state.add_counter(1),
        ErrorKind::Unavailable,
        "add_counter(",
    );
    let updated = confirmed_state.update_counter(|counter| *counter += 1);
    assert_fails(updated, ErrorKind::Unavailable, "update_counter<");
    let restored = confirmed_state.restore(ConfirmedState { counter: 1 });
    assert_fails(restored, ErrorKind::Unavailable, "restore(");
    Ok(())
}

#[test]
fn a_full_outbox_refuses_a_write() -> Result<()> {
    let state = AgentState::open(&format!("{AWAY}&outbox_limit=4000"))?;
    let long = "x".repeat(5_000);
    let set = state.set_theme(long.as_str());
    assert_fails(set, ErrorKind::OutboxFull, "set_theme(");
    let restored = state.restore(AgentState {
        theme: long,
        ..full()
    });
    assert_fails(restored, ErrorKind::OutboxFull, "restore(");
    Ok(())
}

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
struct Person {
    name: String,
    age: u8,
}

#[derive(SyncedMemory)]
struct Team {
    #[synced(nested)]
    lead: Person,
    members: Vec<Person>,
}

#[test]
fn inside_a_key_a_call_fails_as_its_docs_say() -> Result<()> {
    let team = Team::open("memory:")?;
    let ada = || "Ada".to_owned();

    let missing = team.members().at(3).fields();
    assert_fails(missing.name(), ErrorKind::Unset, "theme(");
    assert_fails(missing.set_name(ada()), ErrorKind::Unset, "set_theme(");
    assert_fails(missing.add_age(1), ErrorKind::Unset, "add_counter(");

    let number = Key::<u8>::new("lead");
    team.memory().set(&number, 5)?;
    let lead = team.lead();
    assert_fails(lead.name(), ErrorKind::Decode, "theme(");
    assert_fails(lead.set_name(ada()), ErrorKind::Decode, "set_theme(");
    assert_fails(lead.add_age(1), ErrorKind::Decode, "add_counter(");
    Ok(())
}

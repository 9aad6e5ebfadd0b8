//! The first steps: derive, open, set, get, snapshot.
//!
//! Without a server, on a file beside the program (in `target/`), which any number of processes may
//! share. Run it twice, and it continues from where it stopped:
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! The same on a server. Stop the server, and it still runs:
//!
//! ```text
//! SYNCED_MEMORY_URL=redis://localhost cargo run --example quickstart
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory};

/// A plain struct: the schema of what is shared, and the type of a snapshot.
#[derive(SyncedMemory, Debug)]
#[synced(prefix = "quickstart:")]
struct AgentState {
    /// How often this example has run.
    #[synced(default)]
    runs: u64,
    #[synced(default = "dark".to_string(), into)]
    theme: String,
    /// A collection is changed part by part: the changes of many processes all survive.
    settings: HashMap<String, serde_json::Value>,
    note: Option<String>,
    #[synced(rename = "step-size")]
    step: f64,
    #[synced(nested, default)]
    user: User,
}

/// Serde stores it as one value, and `nested` gives its fields methods of their own.
#[derive(SyncedMemory, Serialize, Deserialize, Clone, Debug, Default)]
struct User {
    name: String,
    visits: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("SYNCED_MEMORY_URL")
        .ok()
        .filter(|url| !url.is_empty());
    let url = url.map_or_else(file_beside_the_program, Ok)?;
    let memory = Memory::open(&url)?;
    println!(
        "opened {memory:?}, connected: {}",
        memory.status().connected
    );

    // The handle has a getter and a setter for each field. Clone it, send it to a thread: it stays
    // live.
    let state = AgentState::attach(&memory);

    // What earlier runs have left behind. If the server was never reached, a field with a `default`
    // reads as its default, and any other field is `Unavailable`.
    let before = state.runs()?;
    match state.note() {
        Ok(Some(note)) => {
            assert!(before > 0, "a run writes its note after it was counted");
            println!("found after {before} runs: {note:?}");
        }
        Ok(None) => {}
        Err(error) if error.kind() == ErrorKind::Unavailable => println!("not known yet: {error}"),
        Err(error) => return Err(error.into()),
    }

    // Adds of many processes all count.
    let written = state.add_runs(1)?;
    let runs = state.runs()?;
    assert!(runs > before, "a process always reads its own writes");
    println!("run {runs}: {written:?}");

    // An unset field reads as its default; a collection as empty; an `Option` as `None`.
    state.synced_theme().delete()?;
    assert_eq!(state.theme()?, "dark");
    state.set_theme("light")?;
    assert_eq!(state.theme()?, "light");

    state.settings().insert("lang".to_string(), json!("en"))?;
    assert_eq!(state.settings().at("lang").get()?, "en");

    // Fields that belong together form one struct, which is stored as one value.
    state.user().set_name("Ada".to_string())?;
    state.user().add_visits(1)?;
    // A closure changes what it sees, so the current value has to be known. (Numbers are counted by
    // `add`, as above.)
    match state.update_user(|user| user.name.push_str(" Lovelace")) {
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            assert_eq!(state.user().name()?, "Ada");
        }
        updated => {
            updated?;
            assert_eq!(state.user().name()?, "Ada Lovelace");
        }
    }

    state.set_note(Some(format!("written in run {runs}")))?;

    // A field without a default has to be set before it is read.
    state.synced_step().delete()?;
    let error = state.step().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unset);
    println!("before it is set: {error}");
    state.set_step(0.25)?;

    // The whole struct, in one round trip.
    let snapshot = state.snapshot()?;
    println!("{snapshot:#?}");
    assert_eq!(snapshot.theme, "light");
    assert_eq!(snapshot.settings["lang"], "en");

    // A scope is a namespace of its own: here, one for each session.
    let session = AgentState::attach(&memory.scope_for("session_abc"));
    session.set_theme("blue")?;
    assert_eq!(
        (state.theme()?, session.theme()?),
        ("light".to_string(), "blue".to_string())
    );

    // A key whose name is known only at run time, beside the fields.
    let user = "ada";
    let visits = Key::<u32>::named(format!("visits_{user}"));
    state.memory().set(&visits, 7)?;
    assert_eq!(state.memory().get(&visits)?, Some(7));
    state.memory().delete(&visits)?;
    assert_eq!(state.memory().get(&visits)?, None);

    // Whatever opens the same URL finds all of it, in this process or another: now, or in the next
    // run.
    if memory.status().connected && !url.starts_with("memory:") {
        let other = AgentState::open(&url)?;
        assert!(other.runs()? >= runs);
        assert_eq!(other.theme()?, "light");
    }

    // A drop delivers what is queued, too; `close` says what could not be delivered.
    if let Err(error) = memory.close(Duration::from_secs(2)) {
        println!("the server was away until the end: {error}");
    }
    Ok(())
}

fn file_beside_the_program() -> Result<String, Box<dyn Error>> {
    let path = std::env::current_exe()?.with_extension("db");
    // These three characters have a meaning in a URL.
    let path = path
        .display()
        .to_string()
        .replace('%', "%25")
        .replace('#', "%23")
        .replace('?', "%3F");
    Ok(format!("sqlite:{path}"))
}

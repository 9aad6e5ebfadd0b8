//! A Rust process and a Python process (the package `synced-memory` 0.1.3) on one state.
//!
//! ```text
//! .ci/test --no-run                    # once: it makes the Python environment `.venv`
//! cargo run --example python_peer
//! ```
//!
//! It starts a redis-server of its own (which must be installed), and `peer.py` beside this file.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use synced_memory::{Memory, SyncedMemory};
use synced_memory_examples::RedisServer;

/// The prefix `memory:` and the names are those of the Python package, where these are attributes
/// of its `Memory`.
#[derive(SyncedMemory)]
struct Chat {
    turns: u64,
    temperature: f64,
    history: Vec<Message>,
    settings: BTreeMap<String, serde_json::Value>,
    note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    role: String,
    text: String,
}

fn message(role: &str, text: &str) -> Message {
    Message {
        role: role.to_string(),
        text: text.to_string(),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let python = python()?;
    let server = RedisServer::on_free_port();
    let memory = Memory::open(&server.url())?;
    let chat = Chat::attach(&memory);

    chat.restore(Chat {
        turns: 1,
        temperature: 0.1 + 0.2,
        history: vec![message("user", "Grüße!")],
        settings: BTreeMap::from([("lang".to_string(), "de".into())]),
        note: Some("to be deleted".to_string()),
    })?;
    println!("rust:   wrote a Chat");
    // A scope in Rust is a `PrefixedMemory` in Python.
    Chat::attach(&memory.scope("session_1")).set_turns(7)?;

    let status = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python_peer/peer.py"))
        .env("REDIS_HOST", "127.0.0.1")
        .env("REDIS_PORT", server.port().to_string())
        .status()?;
    assert!(status.success(), "peer.py found something unexpected");

    let snapshot = chat.snapshot()?;
    println!("rust:   turns {}, {:?}", snapshot.turns, snapshot.history);
    assert_eq!(snapshot.turns, 2);
    assert_eq!(
        snapshot.temperature.to_bits(),
        (0.1_f64 + 0.2).to_bits(),
        "floats survive bit for bit"
    );
    assert_eq!(
        snapshot.history,
        [message("user", "Grüße!"), message("assistant", "Hello.")]
    );
    assert_eq!(snapshot.settings["model"], "small");
    assert_eq!(snapshot.note, None, "Python has deleted it");
    Ok(())
}

/// The Python of the environment that `.ci/test` makes.
fn python() -> Result<PathBuf, String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    let venv =
        env::var_os("SYNCED_MEMORY_VENV").map_or_else(|| workspace.join(".venv"), PathBuf::from);
    let python = venv.join("bin/python3");
    if python.is_file() {
        return Ok(python);
    }
    Err(format!(
        "no Python environment at {}: run `.ci/test --no-run` once, which makes it",
        venv.display()
    ))
}

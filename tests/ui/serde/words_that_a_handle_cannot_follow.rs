use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
#[serde(tag = "type", rename_all(serialize = "camelCase", deserialize = "kebab-case"))]
struct State {
    #[serde(flatten)]
    extra: HashMap<String, u8>,
    #[serde(with = "text")]
    number: u64,
    #[serde(serialize_with = "text::serialize", default, deserialize_with = "text::deserialize")]
    other: u64,
    #[serde(rename(serialize = "a", deserialize = "b"))]
    renamed: u64,
}

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
#[serde(transparent)]
struct Around {
    inner: u8,
}

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
#[serde(from = "u8", into = "u8")]
struct Converted {
    number: u8,
}

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
#[serde(try_from = "u8")]
struct Checked {
    number: u8,
}

impl From<u8> for Converted {
    fn from(number: u8) -> Self {
        Self { number }
    }
}

impl From<Converted> for u8 {
    fn from(converted: Converted) -> Self {
        converted.number
    }
}

impl TryFrom<u8> for Checked {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        Ok(Self { number })
    }
}

mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        u64::deserialize(deserializer)
    }
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.set_number(1)?;
    state.extra().get()?;
    Ok(())
}

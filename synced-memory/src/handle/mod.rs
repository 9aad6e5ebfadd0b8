//! What users hold: memories and their options, typed keys, the views of values, watches, dead
//! letters.

pub(crate) mod config;
pub(crate) mod dead_letter;
pub(crate) mod follow;
pub(crate) mod key;
pub(crate) mod memory;
pub(crate) mod path;
pub(crate) mod reader;
pub(crate) mod schema;
pub(crate) mod status;
pub(crate) mod synced;
pub(crate) mod value;
pub(crate) mod watch;

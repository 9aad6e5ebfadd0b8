//! A write that could not be made, as it is handed out.

use crate::error::Error;

/// A write that was set aside: it no longer applies, or the server refused it for good.
///
/// It was accepted while the backend could not be asked, so it is handed out and not dropped.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SetAside {
    /// The key, with prefix and scope.
    pub key: String,
    /// The value that was assigned, as JSON; `None` for a delete, and where only a part was changed.
    pub value: Option<serde_json::Value>,
    /// The changes to a part of the value, one element for each call, as JSON: lists of operations, each with
    /// its `path` and what it was to `do` there.
    pub changes: Vec<serde_json::Value>,
    /// The stamp of the write, in ns since 1970.
    pub last_modified: u64,
    /// Why it was set aside.
    pub reason: Error,
}

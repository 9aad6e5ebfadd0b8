//! The scripts, put together: their constants are those of the code that calls them.

use std::sync::LazyLock;

use redis::{Cmd, Script};

use super::commit::{
    ABSENT, ADD, ADDED, ADDED_BEHIND, ALREADY_APPLIED, APPEND, APPLIED, CHANGE, DELETE, KEEP,
    NEVER, NOTHING, RECORD_EXPIRED, REFUSED, SERVER_ERROR, SHORT_GUARD, TIME,
};
use super::known::{TOO_LARGE, UNCHANGED};
use crate::backend::commit;
use crate::backend::effects::STARVATION_TIMEOUT;
use crate::base::clock::Stamp;
use crate::value::envelope;

/// Makes attempts.
pub(super) static COMMIT: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(COMMIT_TEMPLATE));

/// Reads a value of which something is known.
pub(super) static READ: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(READ_TEMPLATE));

const COMMIT_TEMPLATE: &str = include_str!("commit.lua");
const READ_TEMPLATE: &str = include_str!("read.lua");

/// What a template calls by these names. Others may be in them.
const PARTS: [(&str, &str); 2] = [
    ("EDIT", include_str!("edit.lua")),
    ("LOG", include_str!("log.lua")),
];

/// A script. Its text is the same in every process of this version, so that servers know it by its
/// hash.
pub(super) struct LuaScript {
    pub(super) text: String,
    hash: String,
}

impl LuaScript {
    fn new(template: &str) -> Self {
        let mut text = template.to_owned();
        for (name, part) in PARTS {
            text = text.replace(&format!("${{{name}}}"), part);
        }
        for (name, value) in constants() {
            text = text.replace(&format!("${{{name}}}"), &value);
        }
        // Each connection begins with it.
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("--"));
        let text = lines.collect::<Vec<_>>().join("\n");
        let hash = Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

impl LuaScript {
    /// Begins a call of it: by its text, if the server may lack it, or else by its hash.
    pub(super) fn name_in(&self, call: &mut Cmd, sends_text: bool) {
        if sends_text {
            call.arg("EVAL").arg(&self.text);
        } else {
            call.arg("EVALSHA").arg(&self.hash);
        }
    }
}

/// How many changes a log has at most.
const LOG_ENTRIES: usize = 64;

/// What the scripts call by these names.
fn constants() -> [(&'static str, String); 29] {
    let number = |number: i64| number.to_string();
    [
        ("SERVER_ERROR", number(SERVER_ERROR)),
        ("APPLIED", number(APPLIED)),
        ("ALREADY_APPLIED", number(ALREADY_APPLIED)),
        ("REFUSED", number(REFUSED)),
        ("RECORD_EXPIRED", number(RECORD_EXPIRED)),
        ("KEEP", KEEP.to_owned()),
        ("NEVER", NEVER.to_owned()),
        ("DELETE", DELETE.to_owned()),
        ("ABSENT", ABSENT.to_owned()),
        ("NOTHING", NOTHING.to_owned()),
        ("ADD", ADD.to_owned()),
        ("APPEND", APPEND.to_owned()),
        ("CHANGE", CHANGE.to_owned()),
        ("SHORT_GUARD", SHORT_GUARD.to_string()),
        ("ADDED", number(ADDED)),
        ("ADDED_BEHIND", number(ADDED_BEHIND)),
        ("PREFIX", envelope::PREFIX.to_owned()),
        ("PREFIX_LENGTH", envelope::PREFIX.len().to_string()),
        ("LONGEST_INTEGER", envelope::LONGEST_INTEGER.to_string()),
        (
            "LIST_END_LENGTH",
            r#"],"last_modified": }"#.len().to_string(),
        ),
        ("TIME", TIME.to_owned()),
        ("LAST", r#""last_modified":%s*(%d+)%s*}%s*$"#.to_owned()),
        ("LOG_ENTRIES", LOG_ENTRIES.to_string()),
        ("LONG", commit::LONG.to_string()),
        ("UNCHANGED", number(UNCHANGED)),
        ("TOO_LARGE", number(TOO_LARGE)),
        ("TAIL", envelope::TAIL.to_string()),
        ("LARGEST_STAMP", Stamp::MAX.to_string()),
        (
            "STARVATION_TIMEOUT",
            STARVATION_TIMEOUT.as_secs().to_string(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_is_in_a_script_and_no_name_is_left_in_one() {
        let parts = PARTS.iter().map(|(_, part)| *part);
        let parts: String = parts.chain([COMMIT_TEMPLATE, READ_TEMPLATE]).collect();
        for (name, _) in constants() {
            assert!(parts.contains(&format!("${{{name}}}")), "{name}");
        }
        for script in [&COMMIT, &READ] {
            assert!(!script.text.contains("${"), "{}", script.text);
        }
    }
}

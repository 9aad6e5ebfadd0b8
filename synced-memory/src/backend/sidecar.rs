//! Sidecars: the names of what backends keep beside a key, and which prefixes would collide.

use crate::backend::layout::{SlotNumber, hash_tag, slot_of};
use crate::base::error::{Error, ErrorKind, Result};

/// Refuses a prefix with braces other than one hash tag, and one that sidecars would be under.
pub(crate) fn check_prefix(prefix: &str) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::new(
            ErrorKind::Config,
            format!("the prefix `{prefix}` {why}"),
        ))
    };
    match prefix.matches(['{', '}']).collect::<String>().as_str() {
        "" => {}
        "{}" if !prefix.contains("{}") => {}
        _ => return refuse("has braces that are no hash tag; one `{tag}` is the most"),
    }
    if prefix.starts_with(SIDECARS) {
        return refuse("is reserved for the sidecars");
    }
    if !prefix.is_empty() && SIDECARS.starts_with(prefix) {
        return refuse("is the beginning of `synced-memory/`, below which the sidecars are");
    }
    Ok(())
}

/// Refuses a key among the sidecars, which only a memory without a prefix can have.
pub(crate) fn check_key(key: &str) -> Result<()> {
    if key.starts_with(SIDECARS) {
        let what = "is reserved for the sidecars: choose another name, or use a prefix";
        return Err(Error::of_key(ErrorKind::Config, key, what));
    }
    Ok(())
}

/// What the name of every sidecar begins with.
///
/// The derive refuses such prefixes too, before the program runs: its copy is `RESERVED_PREFIX`,
/// and a test there fails if the two differ.
pub(crate) const SIDECARS: &str = "synced-memory/";

/// The name of a key's sidecar, in the key's own cluster slot: with the key's hash tag if it has
/// one, else with the whole key as the tag.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "servers have sidecars")
)]
pub(crate) fn sidecar(key: &str) -> String {
    if hash_tag(key).is_some() {
        format!("{SIDECARS}{key}")
    } else if key.contains('}') {
        // Another program's, which a purge deletes: as a tag it would end at its first brace.
        format!("{SIDECARS}{{{}}}{key}", tag_of_slot(slot_of(key)))
    } else {
        format!("{SIDECARS}{{{key}}}")
    }
}

/// The least number that is, as a text, in a slot.
fn tag_of_slot(slot: SlotNumber) -> u32 {
    let is_there = |number: &u32| slot_of(&number.to_string()) == slot;
    (0..u32::MAX).find(is_there).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prefix_may_have_one_hash_tag_and_no_other_braces() {
        for prefix in ["", "memory:", "app{tag}:", "{t}"] {
            assert!(check_prefix(prefix).is_ok(), "{prefix}");
        }
        for prefix in ["a{", "}a{", "a{}b", "{a}{b}", "{{a}"] {
            assert!(check_prefix(prefix).is_err(), "{prefix}");
        }
    }

    #[test]
    fn no_key_of_a_user_can_be_among_the_sidecars() {
        for end in 1..=SIDECARS.len() {
            assert!(
                check_prefix(&SIDECARS[..end]).is_err(),
                "{}",
                &SIDECARS[..end]
            );
        }
        assert!(check_prefix("synced-memory/x").is_err());
        for prefix in ["synced-memory:", "synced-memory2/", "synced_memory/", "sy:"] {
            assert!(check_prefix(prefix).is_ok(), "{prefix}");
        }
        // Without a prefix a name may lead there.
        assert!(check_prefix("").is_ok());
        assert!(check_key("synced-memory/x").is_err());
        assert!(check_key("synced-memory").is_ok());
    }

    #[test]
    fn a_sidecar_has_the_hash_tag_of_its_key() {
        assert_eq!(sidecar("memory:counter"), "synced-memory/{memory:counter}");
        assert_eq!(
            sidecar("app{tag}:counter"),
            "synced-memory/app{tag}:counter"
        );
    }

    #[test]
    fn every_slot_has_a_tag() {
        for slot in (0..16_384).step_by(97).chain([16_383]) {
            assert_eq!(slot_of(&tag_of_slot(slot).to_string()), slot);
        }
    }

    proptest! {
        #[test]
        fn a_key_and_its_sidecar_are_in_one_slot(
            prefix in "[a{}:é]{0,6}",
            name in "[a-c_é/ ]{1,4}",
        ) {
            prop_assume!(check_prefix(&prefix).is_ok());
            let key = format!("{prefix}{name}");
            prop_assert_eq!(slot_of(&sidecar(&key)), slot_of(&key), "{}", key);
        }

        #[test]
        fn so_are_the_keys_of_other_programs(key in "[ab{}]{1,8}") {
            prop_assert_eq!(slot_of(&sidecar(&key)), slot_of(&key), "{}", key);
        }
    }
}

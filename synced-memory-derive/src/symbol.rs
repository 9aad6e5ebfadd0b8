//! The words of `#[synced(…)]`, how each is written, and which one a misspelt word may have meant.

pub(crate) const SYNCED: &str = "synced";

pub(crate) const ACCESSOR: &str = "accessor";
pub(crate) const ALIAS: &str = "alias";
pub(crate) const BEHIND: &str = "behind";
pub(crate) const COLLECTION: &str = "collection";
pub(crate) const CONFIRMED: &str = "confirmed";
pub(crate) const CRATE: &str = "crate";
pub(crate) const DEFAULT: &str = "default";
pub(crate) const HANDLE: &str = "handle";
pub(crate) const INTO: &str = "into";
pub(crate) const NEAR: &str = "near";
pub(crate) const NESTED: &str = "nested";
pub(crate) const PREFIX: &str = "prefix";
pub(crate) const RENAME: &str = "rename";
pub(crate) const RENAME_ALL: &str = "rename_all";
pub(crate) const SCOPE: &str = "scope";
pub(crate) const SKIP: &str = "skip";
pub(crate) const TTL: &str = "ttl";
pub(crate) const VALUE: &str = "value";

pub(crate) const STRUCT_WORDS: &[&str] = &[
    PREFIX, SCOPE, RENAME_ALL, HANDLE, CRATE, NEAR, BEHIND, CONFIRMED,
];
pub(crate) const FIELD_WORDS: &[&str] = &[
    RENAME, ALIAS, DEFAULT, TTL, INTO, ACCESSOR, SKIP, VALUE, COLLECTION, NESTED, NEAR, BEHIND,
    CONFIRMED,
];

/// Words of the language that this version does not have: known, so that they are refused by name.
pub(crate) const LATER: &[&str] = &[NEAR, BEHIND, CONFIRMED];

pub(crate) const SERDE: &str = "serde";

pub(crate) const FLATTEN: &str = "flatten";
pub(crate) const TAG: &str = "tag";
pub(crate) const TRANSPARENT: &str = "transparent";

/// serde's words by which a struct is no object, or one with other members.
pub(crate) const SERDE_STRUCT_REFUSED: &[&str] = &[
    TAG,
    "content",
    "untagged",
    TRANSPARENT,
    "from",
    INTO,
    "try_from",
    "remote",
];

/// serde's words by which a member has another form than its type.
pub(crate) const SERDE_FIELD_REFUSED: &[&str] =
    &[FLATTEN, "with", "serialize_with", "deserialize_with"];

/// serde's words by which a field is no member, or none in one direction.
pub(crate) const SERDE_SKIPS: &[&str] = &["skip", "skip_serializing", "skip_deserializing"];

/// Names of the handle's own methods, which no field's method may take.
pub(crate) const RESERVED_METHODS: &[&str] =
    &["memory", "snapshot", "restore", "watch", "clone", "fields"];

/// How a word is written.
pub(crate) fn usage(word: &str) -> &str {
    match word {
        PREFIX => r#"prefix = "myapp:""#,
        SCOPE => r#"scope = "session_1""#,
        RENAME_ALL => r#"rename_all = "camelCase""#,
        HANDLE => "handle = MyHandle",
        CRATE => "crate = path",
        RENAME => r#"rename = "name""#,
        ALIAS => r#"alias = "old_name""#,
        DEFAULT => "default = expression",
        TTL => r#"ttl = "30m""#,
        ACCESSOR => r#"accessor = "name""#,
        flag => flag,
    }
}

/// The known word that is nearest to `word`, if one is near.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .iter()
        .map(|&candidate| {
            let distance = strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|&(distance, candidate)| {
            // A third of the word may be wrong.
            distance * 3 <= candidate.chars().count().max(3)
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b` and `c` ``.
pub(crate) fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(|word| format!("`{word}`")).collect();
            format!("{} and `{last}`", first.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_the_nearest_one() {
        for (word, meant) in [
            ("defualt", Some(DEFAULT)),
            ("renmae", Some(RENAME)),
            ("rename_al", Some(RENAME_ALL)),
            ("Skip", Some(SKIP)),
            ("tll", Some(TTL)),
            ("accesor", Some(ACCESSOR)),
            ("flatten", None),
            ("x", None),
        ] {
            let known = [STRUCT_WORDS, FIELD_WORDS].concat();
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
    }

    #[test]
    fn every_word_has_a_usage_that_starts_with_it() {
        for word in [STRUCT_WORDS, FIELD_WORDS].concat() {
            assert!(usage(word).starts_with(word), "{word}");
        }
    }

    #[test]
    fn words_are_listed_in_a_sentence() {
        assert_eq!(list(&["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(list(&["a"]), "`a`");
    }
}

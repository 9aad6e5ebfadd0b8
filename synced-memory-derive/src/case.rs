//! The rules of `rename_all`, which are serde's rules for fields, and the names of constants.

/// How `rename_all` turns a field's name into its wire name. The rules, and what they do to a name
/// that is not in `snake_case`, are those of `serde_derive`'s `RenameRule::apply_to_field`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Case {
    Lower,
    Upper,
    Pascal,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
}

const RULES: &[(&str, Case)] = &[
    ("lowercase", Case::Lower),
    ("UPPERCASE", Case::Upper),
    ("PascalCase", Case::Pascal),
    ("camelCase", Case::Camel),
    ("snake_case", Case::Snake),
    ("SCREAMING_SNAKE_CASE", Case::ScreamingSnake),
    ("kebab-case", Case::Kebab),
    ("SCREAMING-KEBAB-CASE", Case::ScreamingKebab),
];

impl Case {
    pub(crate) fn named(name: &str) -> Option<Self> {
        let rule = RULES.iter().find(|(rule, _)| *rule == name);
        rule.map(|&(_, case)| case)
    }

    /// The names of all rules.
    pub(crate) fn names() -> Vec<&'static str> {
        RULES.iter().map(|&(name, _)| name).collect()
    }

    pub(crate) fn apply(self, field: &str) -> String {
        match self {
            Self::Lower | Self::Snake => field.to_owned(),
            Self::Upper | Self::ScreamingSnake => field.to_ascii_uppercase(),
            Self::Pascal => pascal(field),
            Self::Camel => {
                let pascal = pascal(field);
                let mut chars = pascal.chars();
                chars.next().map_or_else(String::new, |first| {
                    first.to_ascii_lowercase().to_string() + chars.as_str()
                })
            }
            Self::Kebab => field.replace('_', "-"),
            Self::ScreamingKebab => field.to_ascii_uppercase().replace('_', "-"),
        }
    }
}

fn pascal(field: &str) -> String {
    let mut name = String::with_capacity(field.len());
    let mut capitalize = true;
    for c in field.chars() {
        match c {
            '_' => capitalize = true,
            c if capitalize => {
                name.push(c.to_ascii_uppercase());
                capitalize = false;
            }
            c => name.push(c),
        }
    }
    name
}

/// The name as that of a constant: `last_seen` and `lastSeen` both become `LAST_SEEN`.
pub(crate) fn constant(name: &str) -> String {
    let mut constant = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_uppercase() && after_lower {
            constant.push('_');
        }
        after_lower = c.is_lowercase() || c.is_ascii_digit();
        constant.extend(c.to_uppercase());
    }
    constant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_renamed_as_serde_does() {
        // The table of serde_derive's own test of `apply_to_field`.
        for (field, expected) in [
            (
                "outcome",
                [
                    "outcome", "OUTCOME", "Outcome", "outcome", "outcome", "OUTCOME", "outcome",
                    "OUTCOME",
                ],
            ),
            (
                "very_tasty",
                [
                    "very_tasty",
                    "VERY_TASTY",
                    "VeryTasty",
                    "veryTasty",
                    "very_tasty",
                    "VERY_TASTY",
                    "very-tasty",
                    "VERY-TASTY",
                ],
            ),
            ("a", ["a", "A", "A", "a", "a", "A", "a", "A"]),
            (
                "z42",
                ["z42", "Z42", "Z42", "z42", "z42", "Z42", "z42", "Z42"],
            ),
        ] {
            for (&(name, case), expected) in RULES.iter().zip(expected) {
                assert_eq!(case.apply(field), expected, "{name} of {field}");
            }
        }
    }

    #[test]
    fn an_unknown_rule_has_no_name() {
        assert_eq!(Case::named("snakecase"), None);
    }

    #[test]
    fn constants_are_upper_snake() {
        for (name, expected) in [
            ("counter", "COUNTER"),
            ("last_seen", "LAST_SEEN"),
            ("lastSeen", "LAST_SEEN"),
            ("v2", "V2"),
            ("_hidden", "_HIDDEN"),
        ] {
            assert_eq!(constant(name), expected);
        }
    }
}

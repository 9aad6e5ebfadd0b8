//! The names of types in messages.

/// The name of `T` as its users write it: `Vec<String>`, and not
/// `alloc::vec::Vec<alloc::string::String>`.
pub(crate) fn type_name<T: ?Sized>() -> String {
    without_modules(std::any::type_name::<T>())
}

/// Of each path in `name` the last segment is left.
fn without_modules(name: &str) -> String {
    // The braces are those of `{{closure}}`, in which a type may be declared.
    let is_in_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '{' | '}' | '#');
    let mut short = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| !is_in_path(c)).unwrap_or(rest.len());
        if end == 0 {
            short.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (path, behind) = rest.split_at(end);
        short.push_str(path.rsplit("::").next().unwrap_or(path));
        rest = behind;
    }
    short
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_type_is_named_as_its_users_write_it() {
        struct Local<T>(T);

        for (name, expected) in [
            (type_name::<u8>(), "u8"),
            (type_name::<str>(), "str"),
            (type_name::<Vec<Option<String>>>(), "Vec<Option<String>>"),
            (
                type_name::<(HashMap<String, serde_json::Value>, [u8; 4])>(),
                "(HashMap<String, Value>, [u8; 4])",
            ),
            (type_name::<&'static [Box<str>]>(), "&[Box<str>]"),
            (
                type_name::<Box<dyn std::fmt::Debug + Send>>(),
                "Box<dyn Debug + Send>",
            ),
            (type_name::<Local<()>>(), "Local<()>"),
            (
                without_modules("a::b::{{closure}}::Größe<a::B>"),
                "Größe<B>",
            ),
        ] {
            assert_eq!(name, expected);
        }
    }
}

//! What a field type is, read from its syntax. A macro sees no types: an alias of a `Vec` is
//! [`Kind::Plain`] until the user says `collection`.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{GenericArgument, PathArguments, Type, TypePath};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Any type; one value.
    Plain,
    /// An `Option`; one value, `None` when unset.
    Option,
    /// A float: JSON numbers that can be added to.
    Float,
    /// An integer of at most 64 bits.
    Integer,
    /// A list, map, set or JSON tree; empty when unset.
    Collection,
}

impl Kind {
    pub(crate) fn is_number(self) -> bool {
        matches!(self, Self::Float | Self::Integer)
    }

    pub(crate) fn of(ty: &Type) -> Self {
        let Some(path) = path_of(ty) else {
            return Self::Plain;
        };
        let mut segments = path.path.segments.iter().rev();
        let Some(last) = segments.next() else {
            return Self::Plain;
        };
        let modules: Vec<String> = segments.map(|module| module.ident.to_string()).collect();
        let in_modules = |known: &[&str]| modules.iter().all(|m| known.contains(&m.as_str()));
        let arguments = match &last.arguments {
            PathArguments::AngleBracketed(arguments) => arguments.args.len(),
            _ => 0,
        };
        match (last.ident.to_string().as_str(), arguments) {
            ("i8" | "i16" | "i32" | "i64" | "isize" | "u8" | "u16" | "u32" | "u64" | "usize", 0)
                if in_modules(&["std", "core", "primitive"]) =>
            {
                Self::Integer
            }
            ("f32" | "f64", 0) if in_modules(&["std", "core", "primitive"]) => Self::Float,
            ("Option", 1) if in_modules(&["std", "core", "option"]) => Self::Option,
            (name, arguments) if is_collection(name, arguments, in_modules) => Self::Collection,
            _ => Self::Plain,
        }
    }
}

fn is_collection(name: &str, arguments: usize, in_modules: impl Fn(&[&str]) -> bool) -> bool {
    match (name, arguments) {
        // What hashes may name its hasher.
        ("Vec" | "VecDeque" | "BTreeSet", 1) | ("BTreeMap", 2) | ("HashSet", 1 | 2) | ("HashMap", 2 | 3) => {
            in_modules(STD_COLLECTIONS)
        }
        ("Value", 0) => in_modules(&["serde_json", "value"]),
        _ => false,
    }
}

const STD_COLLECTIONS: &[&str] =
    &["std", "alloc", "collections", "vec", "vec_deque", "hash_map", "hash_set", "btree_map", "btree_set"];

/// The `T` of a field that was declared as `Synced<T>`.
pub(crate) fn inside_synced(ty: &Type) -> Option<&Type> {
    let last = path_of(ty)?.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) if last.ident == "Synced" => Some(inner),
        _ => None,
    }
}

fn path_of(ty: &Type) -> Option<&TypePath> {
    match ty {
        // `macro_rules` puts a type that it was given in an invisible group.
        Type::Group(group) => path_of(&group.elem),
        Type::Paren(paren) => path_of(&paren.elem),
        Type::Path(path) if path.qself.is_none() => Some(path),
        _ => None,
    }
}

/// Whether one of `names` stands somewhere in the type.
pub(crate) fn mentions(ty: &Type, names: &[String]) -> bool {
    fn any(tokens: TokenStream, names: &[String]) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => names.iter().any(|name| ident == name),
            TokenTree::Group(group) => any(group.stream(), names),
            _ => false,
        })
    }
    !names.is_empty() && any(ty.to_token_stream(), names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(ty: &str) -> Kind {
        Kind::of(&syn::parse_str(ty).unwrap())
    }

    #[test]
    fn kinds_are_read_from_the_syntax() {
        for (kind_expected, types) in [
            (Kind::Integer, &["i64", "u8", "usize", "std::primitive::i32", "(i64)"][..]),
            (Kind::Float, &["f64", "f32", "core::primitive::f64"]),
            (Kind::Option, &["Option<i64>", "std::option::Option<Vec<u8>>"]),
            (
                Kind::Collection,
                &[
                    "Vec<T>",
                    "::std::vec::Vec<T>",
                    "VecDeque<u8>",
                    "HashMap<String, Value>",
                    "HashMap<String, u8, Hasher>",
                    "std::collections::BTreeMap<u8, u8>",
                    "HashSet<u8>",
                    "BTreeSet<u8>",
                    "Value",
                    "serde_json::Value",
                ],
            ),
            (
                Kind::Plain,
                &[
                    "String",
                    "u128",
                    "i128",
                    "bool",
                    "im::Vec<u8>",
                    "toml::Value",
                    "Value<T>",
                    "[u8; 4]",
                    "(u8, u8)",
                    "<T as Trait>::Vec",
                    "mine::i64",
                ],
            ),
        ] {
            for ty in types {
                assert_eq!(kind(ty), kind_expected, "{ty}");
            }
        }
    }

    #[test]
    fn a_type_parameter_is_found_at_any_depth() {
        let ty: Type = syn::parse_str("HashMap<String, [(u8, T); N]>").unwrap();
        assert!(mentions(&ty, &["T".to_owned()]));
        assert!(mentions(&ty, &["N".to_owned()]));
        assert!(!mentions(&ty, &["U".to_owned()]));
    }
}

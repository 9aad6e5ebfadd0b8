//! What the syntax of a field's type says about it. A macro sees no types: an alias of a `Vec` is
//! [`TypeSyntax::Plain`] until the user adds `collection`.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{GenericArgument, Ident, PathArguments, Type, TypePath};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TypeSyntax {
    /// Any type; one value.
    Plain,
    /// An `Option`; one value, `None` while it is unset.
    Option,
    Float,
    Integer,
    /// A list, map, set or JSON tree; empty while it is unset.
    Collection,
}

impl TypeSyntax {
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
            (
                "i8" | "i16" | "i32" | "i64" | "i128" | "isize" | "u8" | "u16" | "u32" | "u64"
                | "u128" | "usize",
                0,
            ) if in_modules(&["std", "core", "primitive"]) => Self::Integer,
            ("f32" | "f64", 0) if in_modules(&["std", "core", "primitive"]) => Self::Float,
            ("Option", 1) if in_modules(&["std", "core", "option"]) => Self::Option,
            // The `Value` of another crate, such as `toml::Value`, is a plain type; a bare one is
            // taken for serde_json's until the user adds `value`.
            ("Value", 0) if modules.is_empty() || is_of_serde_json(&modules) => Self::Collection,
            (name, arguments) if is_collection(name, arguments, in_modules) => Self::Collection,
            _ => Self::Plain,
        }
    }
}

fn is_collection(name: &str, arguments: usize, in_modules: impl Fn(&[&str]) -> bool) -> bool {
    match (name, arguments) {
        // A hash map or set may name its hasher.
        ("Vec" | "VecDeque" | "BTreeSet", 1)
        | ("BTreeMap", 2)
        | ("HashSet", 1 | 2)
        | ("HashMap", 2 | 3) => in_modules(STD_COLLECTIONS),
        _ => false,
    }
}

/// `modules` are those before the name, the innermost first.
fn is_of_serde_json(modules: &[String]) -> bool {
    match modules {
        [serde_json, ..] if serde_json == "serde_json" => true,
        [value, serde_json, ..] => value == "value" && serde_json == "serde_json",
        _ => false,
    }
}

const STD_COLLECTIONS: &[&str] = &[
    "std",
    "alloc",
    "collections",
    "vec",
    "vec_deque",
    "hash_map",
    "hash_set",
    "btree_map",
    "btree_set",
];

/// The `T` of a field that was declared as `Synced<T>`.
pub(crate) fn inside_synced(ty: &Type) -> Option<&Type> {
    first_type_argument(ty)
        .filter(|(name, _)| *name == "Synced")
        .map(|(_, inner)| inner)
}

/// The name and the first type argument of a `Name<T>`.
fn first_type_argument(ty: &Type) -> Option<(&Ident, &Type)> {
    let last = path_of(ty)?.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    let mut types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(inner) => Some(inner),
        _ => None,
    });
    types.next().map(|inner| (&last.ident, inner))
}

/// Why a type has no fields that a handle could reach.
pub(crate) enum Opaque<'a> {
    Option(&'a Type),
    /// A `Box` or another pointer: its name, and the type behind it.
    Pointer(&'a Ident, &'a Type),
    Collection,
    Tuple,
    Array,
    /// Certainly one value: a number, a string, a function.
    Primitive,
    /// It cannot be shared at all, and is refused for that reason.
    Refused,
}

/// Why a type is not a struct with fields, if its syntax says so.
pub(crate) fn opaque(ty: &Type) -> Option<Opaque<'_>> {
    if inside_synced(ty).is_some() {
        return Some(Opaque::Refused);
    }
    match (TypeSyntax::of(ty), first_type_argument(ty)) {
        (TypeSyntax::Option, Some((_, inner))) => return Some(Opaque::Option(inner)),
        (TypeSyntax::Plain, Some((name, inner)))
            if POINTERS.iter().any(|pointer| name == pointer) =>
        {
            return Some(Opaque::Pointer(name, inner));
        }
        (TypeSyntax::Float | TypeSyntax::Integer, _) => return Some(Opaque::Primitive),
        (TypeSyntax::Collection, _) => return Some(Opaque::Collection),
        _ => {}
    }
    match ty {
        Type::Group(group) => opaque(&group.elem),
        Type::Paren(paren) => opaque(&paren.elem),
        Type::Path(path) => {
            let name = path.path.get_ident()?;
            PRIMITIVES
                .iter()
                .any(|primitive| name == primitive)
                .then_some(Opaque::Primitive)
        }
        Type::Tuple(_) => Some(Opaque::Tuple),
        Type::Array(_) | Type::Slice(_) => Some(Opaque::Array),
        Type::Reference(_) => Some(Opaque::Refused),
        Type::Macro(_) => None,
        _ => Some(Opaque::Primitive),
    }
}

const POINTERS: &[&str] = &[
    "Box", "Rc", "Arc", "Cow", "RefCell", "Cell", "Mutex", "RwLock",
];

const PRIMITIVES: &[&str] = &["bool", "char", "str", "String"];

/// Whether the type is a `Value` without a path, which may be `serde_json`'s or the user's own.
pub(crate) fn is_bare_value(ty: &Type) -> bool {
    path_of(ty).is_some_and(|path| path.path.is_ident("Value"))
}

fn path_of(ty: &Type) -> Option<&TypePath> {
    match ty {
        // `macro_rules` wraps a type that was passed to it in an invisible group.
        Type::Group(group) => path_of(&group.elem),
        Type::Paren(paren) => path_of(&paren.elem),
        Type::Path(path) if path.qself.is_none() => Some(path),
        _ => None,
    }
}

/// Whether one of `names` occurs anywhere in the syntax.
pub(crate) fn mentions(syntax: &impl ToTokens, names: &[String]) -> bool {
    fn any(tokens: TokenStream, names: &[String]) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => names.iter().any(|name| ident == name),
            TokenTree::Group(group) => any(group.stream(), names),
            _ => false,
        })
    }
    !names.is_empty() && any(syntax.to_token_stream(), names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(ty: &str) -> TypeSyntax {
        TypeSyntax::of(&syn::parse_str(ty).unwrap())
    }

    #[test]
    fn the_kind_of_a_type_is_read_from_its_syntax() {
        for (expected, types) in [
            (
                TypeSyntax::Integer,
                &[
                    "i64",
                    "u8",
                    "usize",
                    "u128",
                    "i128",
                    "std::primitive::i32",
                    "(i64)",
                ][..],
            ),
            (TypeSyntax::Float, &["f64", "f32", "core::primitive::f64"]),
            (
                TypeSyntax::Option,
                &["Option<i64>", "std::option::Option<Vec<u8>>"],
            ),
            (
                TypeSyntax::Collection,
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
                    "::serde_json::value::Value",
                    "crate::json::serde_json::Value",
                ],
            ),
            (
                TypeSyntax::Plain,
                &[
                    "String",
                    "bool",
                    "im::Vec<u8>",
                    "toml::Value",
                    "value::Value",
                    "Value<T>",
                    "[u8; 4]",
                    "(u8, u8)",
                    "<T as Trait>::Vec",
                    "mine::i64",
                ],
            ),
        ] {
            for ty in types {
                assert_eq!(parsed(ty), expected, "{ty}");
            }
        }
    }

    #[test]
    fn a_type_without_fields_is_recognized_by_its_syntax() {
        for ty in [
            "Option<U>",
            "Box<U>",
            "Vec<U>",
            "u8",
            "bool",
            "String",
            "(U, U)",
            "[U; 2]",
            "Value",
            "(Arc<U>)",
        ] {
            assert!(opaque(&syn::parse_str(ty).unwrap()).is_some(), "{ty}");
        }
        for ty in [
            "User",
            "users::User<T>",
            "T",
            "<T as Trait>::User",
            "mine::String",
        ] {
            assert!(opaque(&syn::parse_str(ty).unwrap()).is_none(), "{ty}");
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

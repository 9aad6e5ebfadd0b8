use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Expr, ImplItem, Item, Lit, Meta, parse_quote};
use synced_memory::{ErrorKind, Key, Memory, Result};

use super::derive;
use crate::attr::{AttrTarget, EXCLUSIONS, WORDS};
use crate::model::{RESERVED_METHODS, RESERVED_PREFIX};

fn pretty(tokens: TokenStream) -> String {
    prettyplease::unparse(&syn::parse2(tokens).expect("the expansion parses"))
}

fn mistakes(input: &DeriveInput) -> Vec<String> {
    derive(input)
        .to_string()
        .split("compile_error ! {")
        .skip(1)
        .map(|error| error.split(" }").next().unwrap().trim().to_owned())
        .collect()
}

#[test]
fn the_expansion_of_a_representative_struct() {
    insta::assert_snapshot!(pretty(derive(&parse_quote! {
        /// The state of an agent.
        #[derive(SyncedMemory)]
        #[synced(prefix = "app:", scope = "agents")]
        #[serde(rename_all = "camelCase")]
        pub struct AgentState<T: Ord = u8> {
            /// How often it ran.
            counter: i64,
            #[synced(default = "dark".to_string(), into)]
            theme: String,
            #[synced(rename = "last-seen", alias = "seen", alias = "last", ttl = "1h 30m")]
            #[serde(alias = "seenAt", default = "never")]
            last_seen: u64,
            note: Option<String>,
            history: Vec<T>,
            #[synced(nested)]
            user: User,
            ratio: f64,
            #[synced(accessor = "kind", default)]
            r#type: Self::Kind,
            #[synced(skip)]
            cached: Vec<u8>,
        }
    })));
}

#[test]
fn the_stubs_of_a_mistaken_struct() {
    insta::assert_snapshot!(pretty(derive(&parse_quote! {
        pub(crate) struct Session<'a, T> where T: 'a {
            name: &'a str,
            #[synced(defualt)]
            value: T,
            #[synced(into)]
            set_value: u8,
        }
    })));
}

#[test]
fn the_type_parameter_of_a_closure_is_a_name_that_the_struct_does_not_use() {
    for (input, expected) in [
        (
            quote!(
                struct State {
                    r: u8,
                }
            ),
            "update_r < R >",
        ),
        (
            quote!(
                struct State<R> {
                    r: u8,
                }
            ),
            "update_r < RR >",
        ),
        (
            quote!(
                struct State<const R: usize> {
                    r: u8,
                }
            ),
            "update_r < RR >",
        ),
        (
            quote!(
                struct State {
                    r: Vec<(R, m::RR)>,
                }
            ),
            "update_r < RRR >",
        ),
    ] {
        let expansion = derive(&syn::parse2(input).unwrap()).to_string();
        assert!(expansion.contains(expected), "{expected}: {expansion}");
    }
}

/// The name and the spec of each key of the expansion: first the root keys, then those of members.
fn specs(input: &DeriveInput) -> Vec<String> {
    let expansion = derive(input).to_string().replace(' ', "");
    // How a value follows what is stored comes last.
    let expansion = expansion.replace("Key::following(", "Key::with_spec(");
    let specs = expansion.split("with_spec(").skip(1);
    specs
        .map(|spec| {
            spec.split(['}', ';'])
                .next()
                .unwrap()
                .strip_suffix(')')
                .unwrap()
                .split(",<::synced_memory::macro_support::Spec<")
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn inside_a_key_a_member_is_what_serde_makes_of_it() {
    let found = specs(&parse_quote! {
        #[serde(rename_all = "kebab-case", default)]
        #[synced(rename_all = "camelCase")]
        struct State {
            #[synced(alias = "rootOld", ttl = "1s", default = 1)]
            #[serde(alias = "old", alias = "older", alias = "old")]
            first_one: u8,
            #[serde(rename = "a:b", default)]
            second: String,
            #[synced(nested)]
            #[serde(default = "some::path")]
            third: Third,
        }
    });
    let new = "::synced_memory::macro_support::Spec::new()";
    let members = "<Thirdas::synced_memory::macro_support::SyncedMemory>::members";
    let state = "<Stateas::std::default::Default>::default()";
    let second = "::std::time::Duration::new(1u64,0u32)";
    assert_eq!(
        found,
        [
            format!(r#""firstOne",{new}.default(||1).aliases(&["rootOld"]).ttl({second})"#),
            format!(r#""second",{new}"#),
            format!(r#""third",{new}.nested({members})"#),
            format!(r#""first-one",{new}.default(||{state}.first_one).aliases(&["old","older"])"#),
            format!(r#""a:b",{new}.default(<Stringas::std::default::Default>::default)"#),
            format!(r#""third",{new}.default(||some::path()).nested({members})"#),
        ]
    );
}

#[test]
fn serde_attributes_of_a_skipped_field_are_ignored() {
    let input = parse_quote! {
        struct State {
            a: u8,
            #[synced(skip)]
            #[serde(skip, flatten, with = "m", rename = "a")]
            b: u8,
        }
    };
    assert_eq!(mistakes(&input), Vec::<String>::new());
}

#[test]
fn all_mistakes_of_a_struct_are_reported_in_one_go() {
    let found = mistakes(&parse_quote! {
        #[synced(rename_all = "snakecase", prefx = "a", scope)]
        struct State {
            #[synced(ttl = "soon", skip = true)]
            a: u8,
            #[synced(rename = "x:y", near)]
            b: u8,
            memory: u8,
        }
    });
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn every_path_follows_the_given_crate() {
    let input = parse_quote! {
        #[synced(crate = other::storage)]
        struct State { counter: i64, #[synced(default)] list: Vec<u8> }
    };
    let expansion = derive(&input).to_string();
    assert!(!expansion.contains("synced_memory"), "{expansion}");
    assert!(expansion.contains("other :: storage :: macro_support"));
}

#[test]
fn a_struct_without_mistakes_has_no_errors() {
    let input: DeriveInput = parse_quote! { struct State { counter: i64 } };
    assert_eq!(mistakes(&input), Vec::<String>::new());
    assert!(
        !derive(&input)
            .to_string()
            .contains(&quote!(loop {}).to_string())
    );
}

/// A struct with `attribute` on itself or on its only field, which is of type `ty`.
fn with_attribute(attribute: &str, target: AttrTarget, ty: &str) -> DeriveInput {
    let attribute = format!("#[synced({attribute})]");
    let (of_struct, of_field) = match target {
        AttrTarget::Struct => (attribute.as_str(), ""),
        AttrTarget::Field => ("", attribute.as_str()),
    };
    syn::parse_str(&format!(
        "{of_struct} struct State {{ {of_field} one_field: {ty} }}"
    ))
    .unwrap()
}

#[test]
fn every_attribute_is_read_where_it_belongs_and_changes_what_is_generated() {
    for word in WORDS {
        assert!(word.usage.starts_with(word.name), "{}", word.usage);
        for &target in word.targets {
            // Some attributes are for certain types only.
            let has_effect = ["u8", "Vec<u8>", "Names"].into_iter().any(|ty| {
                let with = with_attribute(word.usage, target, ty);
                let without = with_attribute("", target, ty);
                mistakes(&with).is_empty()
                    && derive(&with).to_string() != derive(&without).to_string()
            });
            assert!(has_effect, "`{}` has no effect on {target:?}", word.usage);
        }
    }
}

#[test]
fn an_attribute_of_the_other_target_is_refused() {
    for word in WORDS {
        for target in [AttrTarget::Struct, AttrTarget::Field] {
            if !word.targets.contains(&target) {
                let found = mistakes(&with_attribute(word.usage, target, "u8"));
                assert!(found[0].contains("is for a"), "{found:?}");
            }
        }
    }
}

#[test]
fn only_an_alias_may_be_repeated() {
    for word in WORDS {
        let twice = format!("{0}, {0}", word.usage);
        let found = mistakes(&with_attribute(&twice, word.targets[0], "Names"));
        let is_refused = found.iter().any(|mistake| mistake.contains("given twice"));
        assert_eq!(is_refused, word.name != "alias", "{found:?}");
    }
}

#[test]
fn an_unknown_attribute_is_answered_with_all_that_are_known() {
    for target in [AttrTarget::Struct, AttrTarget::Field] {
        let found = mistakes(&with_attribute("zzzzzzzz", target, "u8"));
        for word in WORDS.iter().filter(|word| word.targets.contains(&target)) {
            assert!(found[0].contains(&format!("`{}`", word.name)), "{found:?}");
        }
    }
}

#[test]
fn attributes_that_exclude_each_other_are_refused_in_pairs() {
    for words in EXCLUSIONS.iter().map(|exclusion| exclusion.words) {
        for name in words {
            assert!(WORDS.iter().any(|word| word.name == *name), "{name}");
        }
        for (at, first) in words.iter().enumerate() {
            for other in &words[at + 1..] {
                let both = format!("{other}, {first}");
                let found = mistakes(&with_attribute(&both, AttrTarget::Field, "Names"));
                let [mistake] = found.as_slice() else {
                    panic!("{both}: {found:?}")
                };
                for word in [first, other] {
                    assert!(mistake.contains(&format!("`{word}`")), "{both}: {mistake}");
                }
            }
        }
    }
}

/// The attributes that `attributes.md` documents under `heading`, as they are written there.
fn documented(heading: &str) -> BTreeSet<&'static str> {
    let page = include_str!("../../attributes.md");
    let section = page.split_once(&format!("\n{heading}\n")).unwrap().1;
    let section = section.split("\n# ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.map(|row| row.split_once(" |").unwrap().0);
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn every_attribute_is_documented_and_nothing_else() {
    for (target, heading) in [
        (AttrTarget::Struct, "# Attributes of the struct"),
        (AttrTarget::Field, "# Attributes of a field"),
    ] {
        let words = WORDS.iter().filter(|word| word.targets.contains(&target));
        let mut known: BTreeSet<_> = words.map(|word| word.usage).collect();
        if target == AttrTarget::Field {
            // It is the one attribute with an optional value.
            known.insert("default");
        }
        assert_eq!(documented(heading), known, "{heading}");
    }
}

/// The names of the attributes in the README's table that has this head.
fn names_in_the_readme(head: &str) -> BTreeSet<&'static str> {
    let page = include_str!("../../../README.md");
    let table = page.split_once(&format!("\n{head}\n")).unwrap().1;
    let rows = table
        .lines()
        .skip(1)
        .map_while(|row| row.strip_prefix("| "));
    let cells = rows.map(|row| row.split_once(" |").unwrap().0);
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(|usage| usage.split(" =").next().unwrap())
        .collect()
}

#[test]
fn the_readme_names_every_attribute_and_nothing_else() {
    for (target, head) in [
        (AttrTarget::Struct, "| on the struct | |"),
        (AttrTarget::Field, "| on a field | |"),
    ] {
        let words = WORDS.iter().filter(|word| word.targets.contains(&target));
        let known: BTreeSet<_> = words.map(|word| word.name).collect();
        assert_eq!(names_in_the_readme(head), known, "{head}");
    }
}

/// Whether the derive refuses `attribute`, and whether the library refuses the same.
fn assert_both_agree<T>(attribute: &str, target: AttrTarget, of_the_library: Result<T>) {
    let is_refused = match of_the_library {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config, "{attribute}");
            true
        }
    };
    let found = mistakes(&with_attribute(attribute, target, "u8"));
    assert_eq!(!found.is_empty(), is_refused, "{attribute}: {found:?}");
}

/// The rules are written down twice: the derive cannot use the library.
#[test]
fn the_derive_refuses_the_prefixes_scopes_and_names_that_the_library_refuses() {
    let below = format!("{RESERVED_PREFIX}x");
    let (shorter, _) = RESERVED_PREFIX.split_at(RESERVED_PREFIX.len() - 1);
    for prefix in [
        RESERVED_PREFIX,
        &below,
        shorter,
        "s",
        "synced-",
        "synced-memory:",
        "",
        "app:",
        "app{tag}:",
        "a{",
        "}a{",
        "a{}b",
        "{a}{b}",
        "{{a}",
    ] {
        let opened = Memory::builder().url("memory:").prefix(prefix).build();
        assert_both_agree(&format!("prefix = {prefix:?}"), AttrTarget::Struct, opened);
    }
    for scope in ["a", "a:b", "", ":a", "a:", "a::b", "a{b", "a}b"] {
        let opened = Memory::builder().url("memory:").scope(scope).build();
        assert_both_agree(&format!("scope = {scope:?}"), AttrTarget::Struct, opened);
    }
    let memory = Memory::open("memory:").unwrap();
    for name in ["counter", "a b", "", "a:b", "a{b", "a}b"] {
        let read = memory.get(&Key::<u8>::named(name.to_owned()));
        assert_both_agree(&format!("rename = {name:?}"), AttrTarget::Field, read);
    }
}

/// The error kinds in the docs of each generated method.
fn documented_kinds(input: &DeriveInput) -> BTreeMap<String, BTreeSet<String>> {
    let file: syn::File = syn::parse2(derive(input)).unwrap();
    let items = file.items.into_iter().filter_map(|item| match item {
        Item::Impl(item) if item.trait_.is_none() => Some(item.items),
        _ => None,
    });
    let methods = items.flatten().filter_map(|item| match item {
        ImplItem::Fn(method) => Some(method),
        _ => None,
    });
    methods
        .map(|method| {
            let docs: Vec<_> = method.attrs.iter().filter_map(doc_line).collect();
            let docs = docs.join("\n");
            let errors = docs.split_once("# Errors").map_or("", |(_, errors)| errors);
            let kinds = errors.split(" if ").filter_map(|reason| {
                let (_, kind) = reason.strip_suffix('`')?.rsplit_once('`')?;
                Some(kind.to_owned())
            });
            (method.sig.ident.to_string(), kinds.collect())
        })
        .collect()
}

fn doc_line(attr: &syn::Attribute) -> Option<String> {
    let Meta::NameValue(doc) = &attr.meta else {
        return None;
    };
    match &doc.value {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(line) => Some(line.value()),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn every_call_documents_the_errors_of_its_class() {
    let documented = documented_kinds(&parse_quote! {
        struct State {
            counter: i64,
            /// With a text of the user's.
            theme: String,
            history: Vec<u8>,
            #[synced(nested)]
            user: User,
        }
    });
    let read = ["Unset", "Unavailable", "Decode", "Rejected", "Closed"].as_slice();
    let write = &[
        "Serialize",
        "Rejected",
        "OutboxFull",
        "Journal",
        "Closed",
        "Unset",
        "Decode",
        "Conflict",
        "Unavailable",
        "InDoubt",
    ];
    // The other classes have these kinds as well, for reasons of their own.
    let (add, closure) = (write, write);
    let none = &[];
    let mut checked = BTreeSet::new();
    for (methods, kinds) in [
        (&["counter", "theme", "snapshot"][..], read),
        (
            &[
                "set_counter",
                "set_theme",
                "set_history",
                "set_user",
                "restore",
            ],
            write,
        ),
        (&["add_counter", "sub_counter"], add),
        (
            &[
                "update_counter",
                "update_theme",
                "update_history",
                "update_user",
            ],
            closure,
        ),
        (
            &[
                "history",
                "user",
                "synced_counter",
                "synced_theme",
                "synced_user",
            ],
            none,
        ),
        (&["watch", "memory"], none),
    ] {
        let kinds: BTreeSet<_> = kinds.iter().map(|&kind| kind.to_owned()).collect();
        for &method in methods {
            assert_eq!(documented[method], kinds, "{method}");
            checked.insert(method.to_owned());
        }
    }
    assert_eq!(checked, documented.into_keys().collect());
}

#[test]
fn no_field_can_have_the_name_of_a_method_of_the_handle() {
    let methods = documented_kinds(&parse_quote! { struct State {} });
    for method in methods.keys() {
        assert!(RESERVED_METHODS.contains(&method.as_str()), "{method}");
    }
}

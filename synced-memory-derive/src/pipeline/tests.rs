use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, parse_quote};

use super::derive;

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
fn the_parameter_of_a_closure_is_no_name_of_the_users() {
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

/// What `with_spec` is given in the expansion: the root key, then that inside a key.
fn specs(input: &DeriveInput) -> Vec<String> {
    let expansion = derive(input).to_string().replace(' ', "");
    let specs = expansion.split("with_spec(").skip(1);
    specs
        .map(|spec| {
            spec.split(['}', ';'])
                .next()
                .unwrap()
                .strip_suffix(')')
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
    assert_eq!(
        found,
        [
            format!(
                r#""firstOne",{new}.default(||1).aliases(&["rootOld"]).ttl(::std::time::Duration::new(1u64,0u32))"#
            ),
            format!(r#""second",{new}"#),
            format!(
                r#""third",{new}.nested(<Thirdas::synced_memory::macro_support::SyncedMemory>::members)"#
            ),
            format!(
                r#""first-one",{new}.default(||<Stateas::std::default::Default>::default().first_one).aliases(&["old","older"])"#
            ),
            format!(r#""a:b",{new}.default(<Stringas::std::default::Default>::default)"#),
            format!(
                r#""third",{new}.default(||some::path()).nested(<Thirdas::synced_memory::macro_support::SyncedMemory>::members)"#
            ),
        ]
    );
}

#[test]
fn what_serde_says_of_a_skipped_field_is_followed_by_nobody() {
    let input = parse_quote! {
        struct State { a: u8, #[synced(skip)] #[serde(skip, flatten, with = "m", rename = "a")] b: u8 }
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

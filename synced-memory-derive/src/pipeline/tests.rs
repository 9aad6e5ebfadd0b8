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
        pub struct AgentState<T: Ord = u8> {
            /// How often it ran.
            counter: i64,
            #[synced(default = "dark".to_string(), into)]
            theme: String,
            #[synced(rename = "last-seen", alias = "seen", alias = "last", ttl = "1h 30m")]
            last_seen: u64,
            note: Option<String>,
            history: Vec<T>,
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
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn every_path_follows_the_given_crate() {
    let input = parse_quote! {
        #[synced(crate = other::storage)]
        struct State { counter: i64, #[synced(default)] list: Vec<u8> }
    };
    let expansion = derive(&input).to_string();
    assert!(!expansion.contains("synced_memory"), "{expansion}");
    assert!(expansion.contains("other :: storage :: private"));
}

#[test]
fn a_struct_without_mistakes_has_no_errors() {
    let input: DeriveInput = parse_quote! { struct State { counter: i64 } };
    assert_eq!(mistakes(&input), Vec::<String>::new());
    assert!(!derive(&input).to_string().contains(&quote!(loop {}).to_string()));
}

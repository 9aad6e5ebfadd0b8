//! The derive macro of `synced-memory`. Use it through that crate, which re-exports it beside the
//! trait of the same name; the attributes are described at [`SyncedMemory`](derive@SyncedMemory).
//!
//! Each stage is a module: `attr` and `serde_attr` (syntax to spanned values), `model` (what the
//! user meant), `validate` (every mistake, at the user's own token), `expand` (tokens; cannot
//! fail). `pipeline` runs them in this order.

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

mod attr;
mod case;
mod diag;
mod expand;
mod model;
mod pipeline;
mod self_type;
mod serde_attr;
mod type_syntax;
mod validate;

#[doc = include_str!("../attributes.md")]
#[proc_macro_derive(SyncedMemory, attributes(synced, serde))]
pub fn synced_memory(input: TokenStream) -> TokenStream {
    pipeline::derive(&parse_macro_input!(input as DeriveInput)).into()
}

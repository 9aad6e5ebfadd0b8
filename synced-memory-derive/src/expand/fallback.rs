//! The expansion of a struct with mistakes, so that the code that uses it compiles: the same items
//! and signatures, with bodies that never run and no bounds that could fail.

use std::collections::HashSet;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{GenericParam, Generics};

use super::declaration;
use crate::model::{FieldKind, FieldMethod, FieldModel, RESERVED_METHODS, StructModel};

pub(crate) fn stubs(model: &StructModel) -> TokenStream {
    let krate = &model.krate;
    let support = quote! { #krate::macro_support };
    let (vis, schema) = (&model.vis, &model.schema);
    let handle = handle_name(model);
    let declared = declaration(&model.generics);
    let bounds = &model.generics.where_clause;
    let (_, declared_arguments, _) = model.generics.split_for_impl();

    // A handle is `'static`, so the impls are for the struct with `'static` for its lifetimes.
    let owned = without_lifetimes(&model.generics);
    let (impl_generics, _, where_clause) = owned.split_for_impl();
    let arguments = make_static(declared_arguments.to_token_stream(), &model.generics);
    let statics: Vec<_> = model.generics.type_params().map(|p| &p.ident).collect();
    let predicates = where_clause
        .iter()
        .flat_map(|clause| clause.predicates.iter());
    let nested = model
        .shared()
        .filter(|field| field.generic && field.kind == FieldKind::Nested)
        .map(|field| {
            let ty = make_static(field.ty.to_token_stream(), &model.generics);
            quote! { #ty: #support::SyncedMemory }
        });
    let where_clause = quote! { where #(#predicates,)* #(#nested,)* #(#statics: 'static,)* };
    let mut taken: HashSet<String> = HashSet::new();
    let methods = model
        .shared()
        .map(|field| methods(field, &mut taken, model, &support));
    let methods: TokenStream = methods.collect();

    quote_spanned! {Span::mixed_site()=>
        #[doc(hidden)]
        #vis struct #handle #declared #bounds {
            schema: ::std::marker::PhantomData<fn() -> #schema #declared_arguments>,
        }

        #[automatically_derived]
        impl #impl_generics ::std::clone::Clone for #handle #arguments #where_clause {
            fn clone(&self) -> Self {
                loop {}
            }
        }

        #[automatically_derived]
        impl #impl_generics ::std::fmt::Debug for #handle #arguments #where_clause {
            fn fmt(&self, _: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                loop {}
            }
        }

        #[automatically_derived]
        impl #impl_generics #handle #arguments #where_clause {
            #methods

            #[doc(hidden)]
            #vis fn snapshot(&self) -> #support::Result<#schema #arguments> {
                loop {}
            }

            #[doc(hidden)]
            #vis fn restore(&self, _: #schema #arguments) -> #support::Result<#support::Written> {
                loop {}
            }

            #[doc(hidden)]
            #vis fn watch(
                &self,
            ) -> #support::Watch<::std::vec::Vec<&'static #support::std::primitive::str>> {
                loop {}
            }

            #[doc(hidden)]
            #vis fn memory(&self) -> &#support::Memory {
                loop {}
            }
        }

        #[automatically_derived]
        impl #impl_generics #support::SyncedMemory for #schema #arguments #where_clause {
            type Handle = #handle #arguments;

            const NAMES: &'static [&'static #support::std::primitive::str] = &[];

            fn members() -> &'static [#support::Member] {
                loop {}
            }

            fn attach(_: &#support::Memory) -> Self::Handle {
                loop {}
            }

            fn inside(_: &#support::ValuePath) -> Self::Handle {
                loop {}
            }
        }

        #[automatically_derived]
        impl #impl_generics #support::Handle for #handle #arguments #where_clause {
            type Schema = #schema #arguments;
        }
    }
}

/// The name of the handle, or another one if that would clash.
fn handle_name(model: &StructModel) -> Ident {
    if model.handle == model.schema || model.handle == "SyncedMemory" {
        format_ident!("__{}Handle", model.schema.unraw())
    } else {
        model.handle.clone()
    }
}

/// The field's methods and its constant, except those whose name is taken.
fn methods(
    field: &FieldModel,
    taken: &mut HashSet<String>,
    model: &StructModel,
    support: &TokenStream,
) -> TokenStream {
    let vis = &model.vis;
    let ty = make_static(field.ty.to_token_stream(), &model.generics);
    let names = &field.names;
    let mut is_free = |name: &Ident| {
        let name = name.unraw().to_string();
        !RESERVED_METHODS.contains(&name.as_str()) && taken.insert(name)
    };
    let methods = names.methods().filter(|(_, name)| is_free(name));
    let methods: TokenStream = methods
        .map(|(method, name)| {
            let signature = signature(method, field, &ty, model, support);
            quote_spanned! {Span::mixed_site()=>
                #[doc(hidden)]
                #vis fn #name #signature {
                    loop {}
                }
            }
        })
        .collect();
    let constant = is_free(&names.constant).then(|| {
        let constant = &names.constant;
        quote_spanned! {Span::mixed_site()=>
            #[doc(hidden)]
            #vis const #constant: #support::Key<#ty> =
                #support::Key::with_spec("", #support::Spec::new());
        }
    });
    quote! { #constant #methods }
}

/// What follows the name of a method of a field, whose type without lifetimes is `ty`.
fn signature(
    method: FieldMethod,
    field: &FieldModel,
    ty: &TokenStream,
    model: &StructModel,
    support: &TokenStream,
) -> TokenStream {
    match method {
        FieldMethod::Getter if field.kind == FieldKind::Nested => {
            quote! { (&self) -> &<#ty as #support::SyncedMemory>::Handle }
        }
        FieldMethod::Getter => quote! { (&self) -> #support::Result<#ty> },
        FieldMethod::Setter if field.attrs.into.is_some() => quote! {
            (&self, _: impl ::std::convert::Into<#ty>) -> #support::Result<#support::Written>
        },
        FieldMethod::Setter | FieldMethod::Add | FieldMethod::Sub => {
            quote! { (&self, _: #ty) -> #support::Result<#support::Written> }
        }
        FieldMethod::Update => {
            let output = &model.closure_output;
            quote! {
                <#output>(
                    &self,
                    _: impl ::std::ops::FnMut(&mut #ty) -> #output,
                ) -> #support::Result<#output>
            }
        }
        FieldMethod::View => quote! { (&self) -> &#support::Synced<#ty> },
    }
}

fn without_lifetimes(generics: &Generics) -> Generics {
    let mut owned = generics.clone();
    owned.params = (generics.params.iter())
        .filter(|parameter| !matches!(parameter, GenericParam::Lifetime(_)))
        .cloned()
        .collect();
    owned.where_clause = None;
    // What parsed before parses again: only the names of lifetimes differ.
    let mut owned = syn::parse2(make_static(owned.to_token_stream(), generics)).unwrap_or(owned);
    owned.where_clause = (generics.where_clause.as_ref())
        .and_then(|clause| syn::parse2(make_static(clause.to_token_stream(), generics)).ok());
    owned
}

/// `tokens` with `'static` in place of each lifetime parameter.
fn make_static(tokens: TokenStream, generics: &Generics) -> TokenStream {
    let mut after_tick = false;
    tokens
        .into_iter()
        .map(|token| match token {
            TokenTree::Punct(tick) if tick.as_char() == '\'' => {
                after_tick = true;
                TokenTree::Punct(tick)
            }
            TokenTree::Ident(ident) if std::mem::take(&mut after_tick) => {
                let is_parameter = generics.lifetimes().any(|p| p.lifetime.ident == ident);
                TokenTree::Ident(if is_parameter {
                    Ident::new("static", ident.span())
                } else {
                    ident
                })
            }
            TokenTree::Group(group) => {
                let inner = make_static(group.stream(), generics);
                let mut replaced = proc_macro2::Group::new(group.delimiter(), inner);
                replaced.set_span(group.span());
                TokenTree::Group(replaced)
            }
            other => other,
        })
        .collect()
}

//! `Self` in a field's type or default means the user's struct. The expansion repeats it in the
//! `impl` of the handle, where `Self` would be the handle: so the struct is named instead.

use proc_macro2::{Group, Ident, Spacing, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};
use syn::parse::Parse;
use syn::{Generics, parse2};

/// `node` with `schema` and its parameters in place of each `Self`.
pub(crate) fn spell_out<N: ToTokens + Parse + Clone>(
    node: &N,
    schema: &Ident,
    generics: &Generics,
) -> N {
    let mut found = false;
    let tokens = replace(node.to_token_stream(), schema, generics, &mut found);
    if !found {
        return node.clone();
    }
    // A type or an expression remains one with a path in place of `Self`.
    parse2(tokens).unwrap_or_else(|_| node.clone())
}

fn replace(
    tokens: TokenStream,
    schema: &Ident,
    generics: &Generics,
    found: &mut bool,
) -> TokenStream {
    let mut tokens = tokens.into_iter().peekable();
    let mut out = TokenStream::new();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(ident) if ident == "Self" => {
                *found = true;
                let mut schema = schema.clone();
                schema.set_span(ident.span());
                let (_, arguments, _) = generics.split_for_impl();
                let arguments = arguments.as_turbofish();
                let continues = matches!(
                    tokens.peek(),
                    Some(TokenTree::Punct(p)) if p.as_char() == ':' && p.spacing() == Spacing::Joint
                );
                out.extend(if continues {
                    quote_spanned! {ident.span()=> <#schema #arguments> }
                } else {
                    quote_spanned! {ident.span()=> #schema #arguments }
                });
            }
            TokenTree::Group(group) => {
                let inner = replace(group.stream(), schema, generics, found);
                let mut replaced = Group::new(group.delimiter(), inner);
                replaced.set_span(group.span());
                out.extend([TokenTree::Group(replaced)]);
            }
            other => out.extend([other]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::{DeriveInput, Expr, Type, parse_quote};

    #[test]
    fn self_is_spelled_out_in_types_and_expressions() {
        let input: DeriveInput = parse_quote!(
            struct Tree<T> {
                value: T,
            }
        );
        let ty: Type = parse_quote!(Vec<Option<Self>>);
        let ty = spell_out(&ty, &input.ident, &input.generics);
        assert_eq!(ty, parse_quote!(Vec<Option<Tree::<T>>>));

        let expr: Expr = parse_quote!(vec(Self::first(), Self { value: 1 }));
        let expr = spell_out(&expr, &input.ident, &input.generics);
        assert_eq!(
            expr,
            parse_quote!(vec(<Tree::<T>>::first(), Tree::<T> { value: 1 }))
        );
    }
}

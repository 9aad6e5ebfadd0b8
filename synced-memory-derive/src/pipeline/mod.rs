//! The stages in their order, on `proc_macro2` tokens, so that tests can run them without rustc.

use proc_macro2::TokenStream;
use syn::DeriveInput;

use crate::diag::Diag;
use crate::model::StructModel;
use crate::{expand, validate};

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let diag = Diag::new();
    let model = StructModel::read(input, &diag);
    validate::model(&model, &diag);
    match diag.check() {
        Ok(()) => expand::expand(&model),
        Err(errors) => {
            let errors = errors.into_compile_error();
            let stubs = expand::stubs(&model);
            quote::quote! { #errors #stubs }
        }
    }
}

#[cfg(test)]
mod tests;

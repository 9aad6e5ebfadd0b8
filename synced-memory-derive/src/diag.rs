//! Collects every mistake of one struct, so that they are reported in one go.

use std::cell::RefCell;
use std::fmt::Display;

use quote::ToTokens;

/// Dropping a collector without [`Diag::check`] is a bug in the derive, and panics.
pub(crate) struct Diag {
    // `None` once checked.
    errors: RefCell<Option<Vec<syn::Error>>>,
}

impl Diag {
    pub(crate) fn new() -> Self {
        Self {
            errors: RefCell::new(Some(Vec::new())),
        }
    }

    /// Records a mistake that underlines `tokens`.
    pub(crate) fn error(&self, tokens: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(tokens, message));
    }

    pub(crate) fn push(&self, error: syn::Error) {
        self.errors
            .borrow_mut()
            .as_mut()
            .expect("a mistake was recorded after the check")
            .push(error);
    }

    /// All mistakes as one error.
    pub(crate) fn check(self) -> syn::Result<()> {
        let errors = self.errors.take().unwrap_or_default();
        let mut errors = errors.into_iter();
        let Some(mut all) = errors.next() else {
            return Ok(());
        };
        all.extend(errors);
        Err(all)
    }
}

impl Drop for Diag {
    fn drop(&mut self) {
        assert!(
            std::thread::panicking() || self.errors.borrow().is_none(),
            "the mistakes of a struct were never checked"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "never checked")]
    fn an_unchecked_collector_panics() {
        drop(Diag::new());
    }

    #[test]
    fn all_mistakes_come_in_one_error() {
        let diag = Diag::new();
        diag.error(quote::quote!(a), "first");
        diag.error(quote::quote!(b), "second");
        let messages: Vec<_> = diag
            .check()
            .unwrap_err()
            .into_iter()
            .map(|error| error.to_string())
            .collect();
        assert_eq!(messages, ["first", "second"]);
    }
}

//! Collects every mistake of one struct, so that they are reported in one go, and the phrases that
//! messages have in common.

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
            .expect("no mistake is recorded after the check")
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

/// The known name that `name` is most likely a misspelling of, if it looks like one.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .iter()
        .map(|&candidate| {
            let distance = strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|&(distance, candidate)| {
            // At most a third of the letters may be wrong.
            distance * 3 <= candidate.chars().count().max(3)
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b` and `c` ``.
pub(crate) fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(|name| format!("`{name}`")).collect();
            format!("{} and `{last}`", first.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::WORDS;

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

    #[test]
    fn a_misspelt_name_finds_the_nearest_one() {
        let known: Vec<_> = WORDS.iter().map(|word| word.name).collect();
        for (name, meant) in [
            ("defualt", Some("default")),
            ("renmae", Some("rename")),
            ("rename_al", Some("rename_all")),
            ("Skip", Some("skip")),
            ("tll", Some("ttl")),
            ("accesor", Some("accessor")),
            ("flatten", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, &known), meant, "{name}");
        }
    }

    #[test]
    fn names_are_listed_in_a_sentence() {
        assert_eq!(list(&["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(list(&["a"]), "`a`");
    }
}

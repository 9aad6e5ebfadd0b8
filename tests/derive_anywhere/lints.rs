//! Every group of lints, by `rustc -W help` and `cargo clippy`, on `state.rs`, of which nearly
//! nothing is used. Left out are groups that only a whole crate can set, and `clippy::restriction`,
//! which clippy refuses as a group. Clippy's groups are checked when clippy compiles this file.

use synced_memory::SyncedMemory;

macro_rules! under {
    ($($module:ident: $level:ident($lint:path),)*) => {
        $(
            #[$level($lint)]
            #[path = "state.rs"]
            mod $module;
        )*

        #[test]
        fn no_lint_that_a_crate_denies_or_forbids_keeps_the_derive_from_compiling() {
            $({
                use $module::{Nothing, Of, State};

                let state = State::open("memory:").unwrap();
                state.set_id(3).unwrap();
                assert_eq!(state._id().unwrap(), 3);
                assert_eq!(State::NAMES[0], "_id");
                assert!(state.snapshot().is_err(), "{:?}", state.snapshot().map(|state| state.local));
                assert!(Nothing::open("memory:").is_ok() && <Of<u8>>::open("memory:").is_ok());
            })*
        }
    };
}

under! {
    deny_keyword_idents: deny(keyword_idents),
    deny_let_underscore: deny(let_underscore),
    deny_nonstandard_style: deny(nonstandard_style),
    deny_refining_impl_trait: deny(refining_impl_trait),
    deny_rust_2018_idioms: deny(rust_2018_idioms),
    deny_unused: deny(unused),
    deny_warnings: deny(warnings),
    deny_missing_docs: deny(missing_docs),
    deny_dead_code: deny(dead_code),
    deny_unsafe_code: deny(unsafe_code),
    deny_clippy_all: deny(clippy::all),
    deny_clippy_cargo: deny(clippy::cargo),
    deny_clippy_nursery: deny(clippy::nursery),
    deny_clippy_pedantic: deny(clippy::pedantic),
    forbid_keyword_idents: forbid(keyword_idents),
    forbid_let_underscore: forbid(let_underscore),
    forbid_nonstandard_style: forbid(nonstandard_style),
    forbid_refining_impl_trait: forbid(refining_impl_trait),
    forbid_rust_2018_idioms: forbid(rust_2018_idioms),
    forbid_unused: forbid(unused),
    forbid_warnings: forbid(warnings),
    forbid_missing_docs: forbid(missing_docs),
    forbid_dead_code: forbid(dead_code),
    forbid_unsafe_code: forbid(unsafe_code),
    forbid_clippy_all: forbid(clippy::all),
    forbid_clippy_cargo: forbid(clippy::cargo),
    forbid_clippy_nursery: forbid(clippy::nursery),
    forbid_clippy_pedantic: forbid(clippy::pedantic),
}

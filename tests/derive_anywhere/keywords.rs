//! Every keyword of every edition, reserved words too, as the name of a field. Edition 2024, in
//! which this is compiled, has the keywords of all editions.

use synced_memory::SyncedMemory;

/// A struct with a raw field for each word, and one with the words as accessors.
macro_rules! keywords {
    ($($raw:ident $accessor:literal $set:ident,)*) => {
        mod fields {
            use synced_memory::SyncedMemory;

            #[derive(SyncedMemory)]
            pub(super) struct State {
                $(pub(super) $raw: u8,)*
            }

            #[derive(SyncedMemory)]
            pub(super) struct Lists {
                $(pub(super) $raw: Vec<u8>,)*
            }
        }

        #[test]
        fn every_keyword_of_every_edition_can_name_a_field() {
            let state = fields::State::open("memory:").unwrap();
            let lists = fields::Lists::open("memory:").unwrap();
            $(
                state.$set(3).unwrap();
                assert_eq!(state.$raw().unwrap(), 3);
                lists.$raw().push(4).unwrap();
                assert_eq!(lists.$raw().to_vec().unwrap(), [4]);
            )*
            assert_eq!(fields::State::NAMES, [$($accessor),*]);
        }

        #[test]
        fn every_keyword_of_every_edition_can_be_an_accessor() {
            $({
                #[derive(SyncedMemory)]
                struct One {
                    #[synced(accessor = $accessor)]
                    value: u8,
                }

                let one = One::open("memory:").unwrap();
                one.$set(3).unwrap();
                assert_eq!(one.$raw().unwrap(), 3);
            })*
        }
    };
}

keywords! {
    r#abstract "abstract" set_abstract,
    r#as "as" set_as,
    r#async "async" set_async,
    r#await "await" set_await,
    r#become "become" set_become,
    r#box "box" set_box,
    r#break "break" set_break,
    r#const "const" set_const,
    r#continue "continue" set_continue,
    r#do "do" set_do,
    r#dyn "dyn" set_dyn,
    r#else "else" set_else,
    r#enum "enum" set_enum,
    r#extern "extern" set_extern,
    r#false "false" set_false,
    r#final "final" set_final,
    r#fn "fn" set_fn,
    r#for "for" set_for,
    r#gen "gen" set_gen,
    r#if "if" set_if,
    r#impl "impl" set_impl,
    r#in "in" set_in,
    r#let "let" set_let,
    r#loop "loop" set_loop,
    r#macro "macro" set_macro,
    r#match "match" set_match,
    r#mod "mod" set_mod,
    r#move "move" set_move,
    r#mut "mut" set_mut,
    r#override "override" set_override,
    r#priv "priv" set_priv,
    r#pub "pub" set_pub,
    r#ref "ref" set_ref,
    r#return "return" set_return,
    r#static "static" set_static,
    r#struct "struct" set_struct,
    r#trait "trait" set_trait,
    r#true "true" set_true,
    r#try "try" set_try,
    r#type "type" set_type,
    r#typeof "typeof" set_typeof,
    r#unsafe "unsafe" set_unsafe,
    r#unsized "unsized" set_unsized,
    r#use "use" set_use,
    r#virtual "virtual" set_virtual,
    r#where "where" set_where,
    r#while "while" set_while,
    r#yield "yield" set_yield,
    r#auto "auto" set_auto,
    r#default "default" set_default,
    r#macro_rules "macro_rules" set_macro_rules,
    r#raw "raw" set_raw,
    r#safe "safe" set_safe,
    r#union "union" set_union,
}

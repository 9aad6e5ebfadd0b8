//! Types of the user's with the names of the primitives and of the prelude, in whose scope the
//! derive expands.

/// For each name a module in which it is a type of the user's, beside a struct that does not use
/// it; and one whose field has that type.
macro_rules! names {
    ($($name:ident)*) => {
        $(
            #[allow(non_snake_case, non_camel_case_types, reason = "each is named for a type")]
            mod $name {
                // serde's own derive does not compile beside all of them.
                use crate::Part as $name;

                #[derive(::synced_memory::SyncedMemory)]
                #[synced(prefix = "app:", scope = "a")]
                pub(super) struct State {
                    // By a path: the name alone is taken for the type of the standard library.
                    pub(super) own: self::$name,
                    #[synced(default = 0.5, ttl = "1s", alias = "older")]
                    pub(super) ratio: ::std::primitive::f64,
                    #[synced(default)]
                    pub(super) number: ::std::primitive::u64,
                    pub(super) note: ::std::option::Option<::std::primitive::bool>,
                    #[synced(into, default)]
                    pub(super) text: ::std::string::String,
                    pub(super) list: ::std::vec::Vec<::std::primitive::u8>,
                    #[synced(nested, default = self::$name { value: 1 })]
                    pub(super) part: self::$name,
                    #[synced(skip)]
                    pub(super) local: ::std::primitive::u8,
                }
            }
        )*

        #[test]
        fn a_type_of_the_user_s_may_have_the_name_of_a_primitive_or_of_the_prelude() {
            use ::synced_memory::SyncedMemory as _;

            $({
                let state = $name::State::open("memory:").unwrap();
                state.set_own(crate::Part { value: 3 }).unwrap();
                assert_eq!(state.own().unwrap().value, 3);
                state.add_number(1).unwrap();
                state.set_text("a").unwrap();
                state.list().push(1).unwrap();
                state.part().add_value(1).unwrap();
                let state = state.snapshot().unwrap();
                assert_eq!((state.number, state.part.value, state.local), (1, 2, 0));
            })*
        }
    };
}

names! {
    bool char str i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize f32 f64
    String Box Vec VecDeque HashMap BTreeMap HashSet BTreeSet Arc Duration PhantomData
    Result Error Handle Member Key Memory Synced Written SyncedMemory Value
    Clone Copy Debug Default Drop Fn FnMut FnOnce From Into TryFrom TryInto AsRef AsMut Iterator
    IntoIterator Extend DoubleEndedIterator ExactSizeIterator Send Sync Sized Unpin ToOwned ToString
    PartialEq PartialOrd Eq Ord std core alloc synced_memory serde macro_support
}

/// Values, and types whose names serde's derive needs itself: beside a derive of ours alone.
#[allow(
    dead_code,
    non_upper_case_globals,
    reason = "they only have to be there"
)]
mod values {
    struct Option;
    const Some: u8 = 1;
    const None: u8 = 2;
    const Ok: u8 = 3;
    const Err: u8 = 4;
    fn drop() {}
    fn loaded() {}

    #[derive(::synced_memory::SyncedMemory)]
    #[synced(prefix = "app:", scope = "a")]
    pub(super) struct State {
        #[synced(default = 1, alias = "older")]
        pub(super) value: u8,
        note: ::std::option::Option<u8>,
    }
}

#[test]
fn values_of_the_prelude_may_mean_something_else() {
    use ::synced_memory::SyncedMemory as _;

    assert_eq!(values::State::open("memory:").unwrap().value().unwrap(), 1);
}

//! Random values of a type, random changes of them, and which results two concurrent changes of one
//! value may have.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;

/// A type of which this test makes random values.
pub(super) trait Any: Clone + Debug + PartialEq + Serialize {
    /// Whether two concurrent changes of one value may both survive.
    const MERGES: bool = false;

    fn any(rng: &mut Rng) -> Self;

    /// Changes the value at random. With the same seed, equal values become equal values, whatever
    /// the order of their members.
    fn change(&mut self, rng: &mut Rng) {
        *self = Self::any(rng);
    }

    /// Whether both are equal, in the same order if the order is part of the type.
    fn same(&self, other: &Self) -> bool {
        self == other
    }

    /// Whether `end` has the change from `start` to `mine` and the one from `start` to `theirs`,
    /// and no other.
    fn merged(start: &Self, mine: &Self, theirs: &Self, end: &Self) -> bool {
        one_part(start, mine, theirs, end)
    }

    /// Whether no part was changed by both, so that both changes must survive.
    fn apart(start: &Self, mine: &Self, theirs: &Self) -> bool {
        mine.same(start) || theirs.same(start)
    }
}

/// A type that can be the key of a map or the member of a set.
pub(super) trait Name: Any + Ord + Hash {}

impl<T: Any + Ord + Hash> Name for T {}

/// Whether `end` is right for a value that is replaced as a whole: one changed it, or both in the
/// same way.
pub(super) fn one_part<T: Any>(start: &T, mine: &T, theirs: &T, end: &T) -> bool {
    (mine.same(start) && end.same(theirs))
        || (theirs.same(start) && end.same(mine))
        || (mine.same(theirs) && end.same(mine))
}

macro_rules! integers {
    ($($type:ident)*) => { $(
        impl Any for $type {
            fn any(rng: &mut Rng) -> Self {
                match rng.u8(..8) {
                    0 => $type::MAX,
                    1 => $type::MIN,
                    2 => rng.$type(..),
                    _ => rng.$type(0..30),
                }
            }

            fn change(&mut self, rng: &mut Rng) {
                *self = self.wrapping_add(rng.$type(1..9));
            }
        }
    )* };
}

integers!(u8 i16 u32 i64 u64);

impl Any for f64 {
    fn any(rng: &mut Rng) -> Self {
        match rng.u8(..8) {
            0 => rng.f64(),
            1 => 1e300,
            2 => 0.1 + 0.2,
            3 => f64::from(rng.i32(-50..50)) / 4.0,
            _ => f64::from(rng.i32(-9..10)),
        }
    }
}

impl Any for bool {
    fn any(rng: &mut Rng) -> Self {
        rng.bool()
    }

    fn change(&mut self, _: &mut Rng) {
        *self = !*self;
    }
}

impl Any for char {
    fn any(rng: &mut Rng) -> Self {
        const CHARS: [char; 16] = [
            'a',
            'b',
            'c',
            'x',
            'y',
            'z',
            '0',
            ' ',
            '"',
            '\\',
            '\n',
            '\0',
            'ü',
            'ж',
            '漢',
            '\u{1F980}',
        ];
        CHARS[rng.usize(..CHARS.len())]
    }
}

const WORDS: &[&str] = &[
    "",
    "a",
    "b",
    "ada",
    "grüße",
    "\u{1F980} crab",
    "a \"quote\" \\ / \n",
    "ключ",
    "0",
    "null",
    "{}",
    "x,y: z",
];

impl Any for String {
    fn any(rng: &mut Rng) -> Self {
        let word = rng.choice(WORDS).expect("there are some");
        if rng.bool() {
            (*word).to_owned()
        } else {
            format!("{word}{}", rng.u8(..))
        }
    }

    fn change(&mut self, rng: &mut Rng) {
        match rng.u8(..4) {
            0 => *self = Self::any(rng),
            1 => _ = self.pop(),
            _ => self.push(char::any(rng)),
        }
    }
}

impl Any for () {
    fn any(_: &mut Rng) -> Self {}
}

impl Any for Duration {
    fn any(rng: &mut Rng) -> Self {
        Duration::new(rng.u64(..100), rng.u32(..3))
    }
}

impl<T: Any> Any for Option<T> {
    const MERGES: bool = T::MERGES;

    fn any(rng: &mut Rng) -> Self {
        (rng.u8(..3) > 0).then(|| T::any(rng))
    }

    fn change(&mut self, rng: &mut Rng) {
        match self {
            Some(value) if rng.u8(..4) > 0 => value.change(rng),
            Some(_) => *self = None,
            None => *self = Some(T::any(rng)),
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Some(one), Some(other)) => one.same(other),
            (None, None) => true,
            _ => false,
        }
    }

    fn merged(start: &Self, mine: &Self, theirs: &Self, end: &Self) -> bool {
        let deeper = match (start, mine, theirs, end) {
            (Some(start), Some(mine), Some(theirs), Some(end)) => {
                T::merged(start, mine, theirs, end)
            }
            _ => false,
        };
        deeper || one_part(start, mine, theirs, end)
    }
}

impl<T: Any> Any for Box<T> {
    const MERGES: bool = T::MERGES;

    fn any(rng: &mut Rng) -> Self {
        Box::new(T::any(rng))
    }

    fn change(&mut self, rng: &mut Rng) {
        T::change(self, rng);
    }

    fn same(&self, other: &Self) -> bool {
        T::same(self, other)
    }

    fn merged(start: &Self, mine: &Self, theirs: &Self, end: &Self) -> bool {
        T::merged(start, mine, theirs, end)
    }
}

impl<T: Any, E: Any> Any for Result<T, E> {
    fn any(rng: &mut Rng) -> Self {
        if rng.bool() {
            Ok(T::any(rng))
        } else {
            Err(E::any(rng))
        }
    }
}

impl<T: Any, const N: usize> Any for [T; N]
where
    [T; N]: Serialize,
{
    fn any(rng: &mut Rng) -> Self {
        std::array::from_fn(|_| T::any(rng))
    }

    fn change(&mut self, rng: &mut Rng) {
        self[rng.usize(..N)].change(rng);
    }

    fn same(&self, other: &Self) -> bool {
        self.iter().zip(other).all(|(one, other)| one.same(other))
    }
}

/// Implements [`Any`] for a struct of such fields, which is replaced as a whole.
macro_rules! any_struct {
    ($name:ident $(<$generic:ident>)? { $($field:tt),+ }) => {
        impl $(<$generic: $crate::closure_types::any::Any>)? $crate::closure_types::any::Any for $name $(<$generic>)? {
            fn any(rng: &mut fastrand::Rng) -> Self {
                Self { $($field: $crate::closure_types::any::Any::any(rng)),+ }
            }

            fn change(&mut self, rng: &mut fastrand::Rng) {
                let changes: &[fn(&mut Self, &mut fastrand::Rng)] =
                    &[$(|it, rng| $crate::closure_types::any::Any::change(&mut it.$field, rng)),+];
                changes[rng.usize(..changes.len())](self, rng);
            }

            fn same(&self, other: &Self) -> bool {
                $($crate::closure_types::any::Any::same(&self.$field, &other.$field))&&+
            }
        }
    };
}

/// Implements [`Any`] for an enum: `Name { Unit {}, Newtype { 0: a }, Struct { field: b } }`.
macro_rules! any_enum {
    ($name:ty { $($variant:ident { $($field:tt: $bound:ident),* }),+ $(,)? }) => {
        impl $crate::closure_types::any::Any for $name {
            #[allow(unused_variables, reason = "there are units")]
            fn any(rng: &mut fastrand::Rng) -> Self {
                let variants: &[fn(&mut fastrand::Rng) -> Self] =
                    &[$(|rng| Self::$variant { $($field: $crate::closure_types::any::Any::any(rng)),* }),+];
                variants[rng.usize(..variants.len())](rng)
            }

            fn change(&mut self, rng: &mut fastrand::Rng) {
                if rng.bool() {
                    *self = <Self as $crate::closure_types::any::Any>::any(rng);
                    return;
                }
                match self {
                    $(Self::$variant { $($field: $bound),* } => {
                        $($crate::closure_types::any::Any::change($bound, rng);)*
                    })+
                }
            }
        }
    };
}

macro_rules! tuples {
    ($(($($name:ident $at:tt),*))*) => { $(
        impl<$($name: Any),*> Any for ($($name,)*) {
            fn any(rng: &mut Rng) -> Self {
                ($($name::any(rng),)*)
            }

            fn change(&mut self, rng: &mut Rng) {
                let changes: &[fn(&mut Self, &mut Rng)] = &[$(|it, rng| it.$at.change(rng)),*];
                changes[rng.usize(..changes.len())](self, rng);
            }

            fn same(&self, other: &Self) -> bool {
                $(self.$at.same(&other.$at))&&*
            }
        }
    )* };
}

tuples!((A 0, B 1) (A 0, B 1, C 2));

pub(super) use {any_enum, any_struct};

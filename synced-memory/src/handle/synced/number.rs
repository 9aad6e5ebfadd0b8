//! Numbers: adding to the number that is there, whatever it is.

use super::Synced;
use crate::base::error::{ErrorKind, Result};
use crate::handle::key::Key;
use crate::handle::memory::Memory;
use crate::handle::path::{Freshness, ValuePath};
use crate::handle::value::Value;
use crate::pending::outbox::Written;
use crate::value::mutation::{Action, Amount};

mod sealed {
    pub trait SealedNumber {}
}

/// A number that can be added to: every integer and float of Rust.
#[diagnostic::on_unimplemented(message = "`{Self}` is no number that can be added to")]
pub trait Number: Value + sealed::SealedNumber {
    #[doc(hidden)]
    fn add_at(path: &ValuePath, amount: Self) -> Result<Written>;
}

/// An integer.
#[diagnostic::on_unimplemented(message = "`{Self}` is no integer")]
pub trait Integer: Number {
    #[doc(hidden)]
    fn sub_at(path: &ValuePath, amount: Self) -> Result<Written>;
}

impl<T: Number> Synced<T> {
    /// Adds to the number that is there, whatever it is by now: the adds of all processes survive.
    /// An unset number starts from its default, or from zero.
    ///
    /// # Errors
    ///
    /// `Conflict` if the sum would leave the range of `T`, or something other than a number is
    /// stored; `Serialize` for a float that is not finite; `OutboxFull`, `Rejected`. After an error
    /// nothing is changed.
    pub fn add(&self, amount: T) -> Result<Written> {
        T::add_at(self.path(), amount)
    }
}

impl<T: Integer> Synced<T> {
    /// Subtracts from the number that is there; see [`add`](Synced::add).
    ///
    /// # Errors
    ///
    /// As [`add`](Synced::add).
    pub fn sub(&self, amount: T) -> Result<Written> {
        T::sub_at(self.path(), amount)
    }
}

impl Memory {
    /// Adds to the number under `key`; see [`Synced::add`].
    ///
    /// # Errors
    ///
    /// As [`Synced::add`].
    pub fn add<T: Number>(&self, key: &Key<T>, amount: T) -> Result<Written> {
        self.synced(key).add(amount)
    }
}

fn add(path: &ValuePath, amount: Amount) -> Result<Written> {
    let zero = if matches!(amount, Amount::Integer { .. }) {
        "0"
    } else {
        "0.0"
    };
    path.act(Freshness::Any, Some(zero), |_| Action::Add { amount })
}

/// Beyond every number that can be stored: no sum is in its range.
const BEYOND: i128 = 1 << 100;

macro_rules! integers {
    ($($type:ident)*) => { $(
        impl sealed::SealedNumber for $type {}

        impl Number for $type {
            fn add_at(path: &ValuePath, amount: Self) -> Result<Written> {
                let by = i128::try_from(amount).unwrap_or(BEYOND).clamp(-BEYOND, BEYOND);
                add(path, integer::<Self>(by))
            }
        }

        impl Integer for $type {
            fn sub_at(path: &ValuePath, amount: Self) -> Result<Written> {
                let by = i128::try_from(amount).unwrap_or(BEYOND).clamp(-BEYOND, BEYOND);
                add(path, integer::<Self>(-by))
            }
        }

        impl Range for $type {
            const MIN: Self = Self::MIN;
            const MAX: Self = Self::MAX;
        }
    )* };
}

integers!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize);

trait Range: Sized {
    const MIN: Self;
    const MAX: Self;
}

fn integer<T: Range>(by: i128) -> Amount
where
    i128: TryFrom<T>,
{
    // No wider than the integers that are stored as JSON.
    let min = i128::try_from(T::MIN)
        .unwrap_or(i128::MIN)
        .max(i64::MIN.into());
    let max = i128::try_from(T::MAX)
        .unwrap_or(i128::MAX)
        .min(u64::MAX.into());
    Amount::Integer { by, min, max }
}

macro_rules! floats {
    ($($type:ident $single:literal)*) => { $(
        impl sealed::SealedNumber for $type {}

        impl Number for $type {
            fn add_at(path: &ValuePath, amount: Self) -> Result<Written> {
                if !amount.is_finite() {
                    return Err(path.error(ErrorKind::Serialize, "the amount is not finite"));
                }
                add(path, Amount::Float { by: amount.into(), single: $single })
            }
        }
    )* };
}

floats!(f32 true f64 false);

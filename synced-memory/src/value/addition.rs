//! What can be added to a value without a look at it: a change that any number of writers make at
//! once, none of which has to be refused.

use crate::base::clock::Stamp;
use crate::value::document::Document;
use crate::value::envelope::{self, Unsealed};
use crate::value::mutation::{Action, Amount, Json, Mutation, Operation};

/// What is added to a value that nobody has to read for that.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Addition {
    /// Items at the end of the list that is the value.
    Items(Vec<Json>),
    /// To the integer that is the value. The sum must be within `min` and `max`.
    Integer { by: i64, min: i64, max: i64 },
}

impl Addition {
    /// What a mutation adds to the whole value; `None` if it does anything else.
    pub(crate) fn of(mutation: &Mutation) -> Option<Self> {
        if !Self::is_all_of(mutation) {
            return None;
        }
        let mut items = Vec::new();
        let mut integer = None;
        for operation in operations(mutation) {
            match &operation.action {
                Action::Append { items: appended } => items.extend_from_slice(appended),
                Action::Add {
                    amount: Amount::Integer { by, min, max },
                } => {
                    let (sum, _, _) = *integer.get_or_insert((0_i128, *min, *max));
                    integer = Some((sum.checked_add(*by)?, *min, *max));
                }
                _ => return None,
            }
        }
        let bounded = |bound: i128| bound.clamp(i64::MIN.into(), i64::MAX.into());
        let bounded = |bound| i64::try_from(bounded(bound)).unwrap_or_default();
        match integer {
            Some((by, min, max)) => Some(Self::Integer {
                by: i64::try_from(by).ok()?,
                min: bounded(min),
                max: bounded(max),
            }),
            None if items.is_empty() => None,
            None => Some(Self::Items(items)),
        }
    }

    /// Whether a mutation does nothing but add to the whole value, so that its calls can be made as
    /// one: all of them append, or all of them add with the same bounds and sign.
    pub(crate) fn is_all_of(mutation: &Mutation) -> bool {
        let mut operations = operations(mutation);
        let is_alone = |operation: &Operation| operation.path.is_empty();
        let Some(first) = operations.next() else {
            return false;
        };
        let is_like_first = |operation: &Operation| match (&first.action, &operation.action) {
            (Action::Append { .. }, Action::Append { .. }) => true,
            (
                Action::Add {
                    amount: Amount::Integer { by, min, max },
                },
                Action::Add { amount: other },
            ) => match *other {
                Amount::Integer {
                    by: other,
                    min: least,
                    max: most,
                } => (*min, *max) == (least, most) && by.signum() * other.signum() >= 0,
                Amount::Float { .. } => false,
            },
            _ => false,
        };
        let is_compared = mutation.calls().iter().any(|call| call.is_compared);
        !is_compared
            && is_alone(first)
            && is_like_first(first)
            && operations.all(|operation| is_alone(operation) && is_like_first(operation))
    }

    /// How many bytes it carries.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Items(items) => items.iter().map(|item| item.as_str().len() + 1).sum(),
            Self::Integer { .. } => size_of::<Self>(),
        }
    }

    /// What is stored once this is added to what was; `None` if it cannot be.
    pub(crate) fn to(&self, stored: &Document, stamp: Stamp) -> Option<Document> {
        match self {
            Self::Items(items) if stored.is_own_list() => {
                let items: Vec<_> = items.iter().map(Json::as_str).collect();
                stored.appended(&items, stamp)
            }
            Self::Items(_) => None,
            Self::Integer { by, min, max } => {
                let sum = integer_in(stored)?.checked_add(*by)?;
                let is_in_range = (*min..=*max).contains(&sum);
                let sealed = || Unsealed::of_text(&sum.to_string()).seal(stamp);
                is_in_range.then(|| Document::of_sealed(sealed()))
            }
        }
    }

    /// What an integer has become with this addition.
    pub(crate) fn sum_in(&self, stored: &Document) -> Option<i64> {
        match self {
            Self::Items(_) => None,
            Self::Integer { .. } => integer_in(stored),
        }
    }
}

/// The integer that is the value.
fn integer_in(stored: &Document) -> Option<i64> {
    let is_short = stored.len() <= envelope::LONGEST_INTEGER;
    is_short.then(|| envelope::integer_of(&stored.to_bytes()))?
}

/// The items with commas between them.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "other backends add them one by one")
)]
pub(crate) fn joined(items: &[Json]) -> String {
    let items: Vec<_> = items.iter().map(Json::as_str).collect();
    items.join(",")
}

fn operations(mutation: &Mutation) -> impl Iterator<Item = &Operation> {
    mutation.calls().iter().flat_map(|call| &call.operations)
}

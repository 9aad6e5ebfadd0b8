//! The result of checking a rule.

/// A value if the rules hold, or else a message that says which rule was broken.
pub(super) type RuleResult<T = ()> = Result<T, String>;

/// Returns the message as a broken rule if the condition does not hold.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
pub(super) use ensure;

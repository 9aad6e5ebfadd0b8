//! Names: a typed key, and what a prefix, a scope and a name may look like.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::WritePolicy;
use crate::handle::follow::Follow;
use crate::value::shape::Members;

/// A name with the type of its value, checked at compile time.
///
/// ```
/// use synced_memory::{Key, Memory};
///
/// const VISITS: Key<u64> = Key::new("visits");
///
/// let memory = Memory::open("memory:")?;
/// memory.set(&VISITS, 1)?;
/// assert_eq!(memory.get(&VISITS)?, Some(1));
/// # Ok::<(), synced_memory::Error>(())
/// ```
pub struct Key<T> {
    name: Cow<'static, str>,
    spec: Spec<T>,
}

impl<T> Key<T> {
    /// The key `name`, which contains no `:` and no braces.
    pub const fn new(name: &'static str) -> Self {
        Self::with_spec(name, Spec::new())
    }

    /// A key whose name is known only at run time.
    ///
    /// A name that is empty or contains a `:` or a brace is an error of kind
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) at each use.
    pub const fn named(name: String) -> Self {
        Self {
            name: Cow::Owned(name),
            spec: Spec::new(),
        }
    }

    #[doc(hidden)]
    pub const fn with_spec(name: &'static str, spec: Spec<T>) -> Self {
        Self {
            name: Cow::Borrowed(name),
            spec,
        }
    }

    /// The same, of which it is known how values follow what is stored. The spec itself does not
    /// say so: a mistake in it is reported once.
    #[doc(hidden)]
    pub const fn following(name: &'static str, spec: Spec<T>, follow: Option<Follow<T>>) -> Self {
        Self::with_spec(name, Spec { follow, ..spec })
    }

    /// The name, without prefix and scope.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn without_default(&self) -> Self {
        Self {
            name: self.name.clone(),
            spec: Spec {
                default: DefaultValue::None,
                is_optional: true,
                ..self.spec
            },
        }
    }

    pub(crate) fn spec(&self) -> Spec<T> {
        self.spec
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            spec: self.spec,
        }
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.name)
    }
}

/// What an unset value reads as.
pub(crate) enum DefaultValue<T> {
    /// Nothing: it is an error of kind `Unset`.
    None,
    /// What the user asked for. A value of which nothing is known reads as this, too.
    Explicit(fn() -> T),
    /// What an option or a collection is without a value. It says nothing of a value of which
    /// nothing is known.
    Implied(fn() -> T),
}

impl<T> DefaultValue<T> {
    pub(crate) fn explicit(self) -> Option<fn() -> T> {
        match self {
            Self::Explicit(default) => Some(default),
            Self::None | Self::Implied(_) => None,
        }
    }

    pub(crate) fn of_unset(self) -> Option<fn() -> T> {
        match self {
            Self::Explicit(default) | Self::Implied(default) => Some(default),
            Self::None => None,
        }
    }
}

impl<T> Clone for DefaultValue<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DefaultValue<T> {}

/// What a field's attributes say about its key.
#[doc(hidden)]
#[must_use]
pub struct Spec<T> {
    pub(crate) default: DefaultValue<T>,
    pub(crate) aliases: &'static [&'static str],
    pub(crate) ttl: Option<Duration>,
    /// Its own members, which may be set before the whole is.
    pub(crate) nested: Option<Members>,
    /// A change of an unset value starts from nothing.
    pub(crate) is_optional: bool,
    pub(crate) near: bool,
    /// What its writes wait for, if that differs from the memory's policy.
    pub(crate) write: Option<WritePolicy>,
    /// How values follow what is stored, if that is known.
    pub(crate) follow: Option<Follow<T>>,
}

impl<T> Spec<T> {
    pub const fn new() -> Self {
        Self {
            default: DefaultValue::None,
            aliases: &[],
            ttl: None,
            nested: None,
            is_optional: false,
            near: false,
            write: None,
            follow: None,
        }
    }

    /// It is read locally.
    pub const fn near(self) -> Self {
        Self { near: true, ..self }
    }

    /// Its writes return once they are queued.
    pub const fn behind(self) -> Self {
        Self {
            write: Some(WritePolicy::Behind),
            ..self
        }
    }

    /// Its writes are confirmed.
    pub const fn confirmed(self) -> Self {
        Self {
            write: Some(WritePolicy::Confirmed),
            ..self
        }
    }

    /// What an unset key reads as.
    pub const fn default(self, default: fn() -> T) -> Self {
        Self {
            default: DefaultValue::Explicit(default),
            ..self
        }
    }

    /// What an unset key of an option or a collection reads as, although no attribute says so.
    pub const fn empty(self, empty: fn() -> T) -> Self {
        Self {
            default: DefaultValue::Implied(empty),
            ..self
        }
    }

    /// Older names, read in this order when the key is unset.
    pub const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    /// It is a struct that is merged by field. Setters below an unset value start from an empty
    /// object.
    pub const fn nested(self, members: Members) -> Self {
        Self {
            nested: Some(members),
            ..self
        }
    }

    /// How long a value lives, from its write.
    pub const fn ttl(self, ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            ..self
        }
    }
}

impl<T> Default for Spec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Spec<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Spec<T> {}

impl<T> fmt::Debug for Spec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("aliases", &self.aliases)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// Refuses a name that could be taken for a scope, or would move the key to another cluster slot.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::new(ErrorKind::Config, "the name of a key is empty"));
    }
    if name.contains([':', '{', '}']) {
        return Err(Error::of_key(
            ErrorKind::Config,
            name,
            "the name of a key contains no `:` and no braces",
        ));
    }
    Ok(())
}

/// Refuses a scope that is empty or has braces; a `:` nests.
pub(crate) fn check_scope(scope: &str) -> Result<()> {
    if scope.is_empty() || scope.split(':').any(str::is_empty) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the scope `{scope}` has an empty part"),
        ));
    }
    if scope.contains(['{', '}']) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the scope `{scope}` has braces"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_contain_no_colon_and_no_braces() {
        assert!(check_name("counter").is_ok());
        for name in ["", "a:b", "a{b", "a}b"] {
            assert_eq!(
                check_name(name).unwrap_err().kind(),
                ErrorKind::Config,
                "{name}"
            );
        }
    }

    #[test]
    fn scopes_nest_with_colons() {
        assert!(check_scope("a:b").is_ok());
        for scope in ["", ":a", "a:", "a::b", "a{b"] {
            assert!(check_scope(scope).is_err(), "{scope}");
        }
    }
}

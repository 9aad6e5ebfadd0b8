//! Credentials that expire, and the callback of the user's that issues them.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::base::lock::assert_unlocked;
use crate::base::redaction::Secret;

/// Any error of the code that issues [`Credentials`].
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A user and a password for a server, as
/// [`Builder::credentials`](crate::Builder::credentials) issues them.
///
/// No message, event or `Debug` shows the password, as long as these or a clone are there.
///
/// ```
/// use std::time::Duration;
/// use synced_memory::Credentials;
///
/// let issued = Credentials::new("app", "t0ken").expires_in(Duration::from_secs(900));
/// assert!(!format!("{issued:?}").contains("t0ken"));
/// ```
#[doc = ""]
#[doc = include_str!("../../credentials.md")]
#[derive(Clone, Debug)]
pub struct Credentials {
    user: String,
    password: Secret,
    expires_in: Option<Duration>,
}

impl Credentials {
    /// An empty user is the server's default one.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: Secret::new(password),
            expires_in: None,
        }
    }

    /// How long they are good for, counted from now. New ones are asked for after 80 % of that, and
    /// the open connections log in with them.
    ///
    /// Without it they are asked for at each connect, and used as long as the connection lives.
    #[must_use]
    pub fn expires_in(mut self, life: Duration) -> Self {
        self.expires_in = Some(life);
        self
    }

    /// The user's name; `default` if it is empty.
    pub(crate) fn user(&self) -> &str {
        if self.user.is_empty() {
            "default"
        } else {
            &self.user
        }
    }

    pub(crate) fn password(&self) -> &str {
        self.password.text()
    }

    pub(crate) fn life(&self) -> Option<Duration> {
        self.expires_in
    }
}

/// The code of the user's that issues credentials. It may block, make any call, and panic.
#[derive(Clone)]
pub(crate) struct CredentialsCallback(Arc<Callback>);

type Callback = dyn Fn() -> Result<Credentials, BoxError> + Send + Sync;

impl fmt::Debug for CredentialsCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsCallback")
    }
}

impl CredentialsCallback {
    pub(crate) fn new(
        issue: impl Fn() -> Result<Credentials, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(issue))
    }

    /// Calls it, on this thread.
    ///
    /// # Errors
    ///
    /// What its error says, with all causes; a panic is one, too.
    pub(crate) fn call(&self) -> Result<Credentials, String> {
        assert_unlocked();
        // The text of the error is code of the user's, too.
        let issue = || (self.0)().map_err(|error| with_causes(&*error));
        let issued = catch_unwind(AssertUnwindSafe(issue));
        issued.unwrap_or_else(|_| Err("it panicked".to_owned()))
    }
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    /// As many causes are said at most: a chain may have no end.
    const MOST: usize = 10;
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let said: Vec<_> = causes.take(MOST).map(ToString::to_string).collect();
    said.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::redaction::scrubbed;

    #[test]
    fn a_password_is_in_no_text_as_long_as_it_is_there() {
        let issued = Credentials::new("app", "t0p-s3cret").expires_in(Duration::from_secs(1));
        let shown = format!("{issued:?} {issued:#?}");
        assert!(
            !shown.contains("t0p-s3cret") && shown.contains("app"),
            "{shown}"
        );
        let said = scrubbed("AUTH app t0p-s3cret".to_owned());
        assert!(!said.contains("t0p-s3cret"), "{said}");
    }

    #[test]
    fn an_empty_user_is_the_default_one() {
        assert_eq!(Credentials::new("", "x").user(), "default");
        assert_eq!(Credentials::new("app", "x").user(), "app");
    }

    #[test]
    fn a_failure_of_the_callback_says_its_causes_and_a_panic_is_one() {
        let failing = CredentialsCallback::new(|| {
            let cause = std::io::Error::other("no route");
            Err(Box::new(crate::base::error::Error::new(
                crate::base::error::ErrorKind::Config,
                crate::base::error::Reason::caused_by("no token", cause),
            )))
        });
        assert_eq!(failing.call().unwrap_err(), "no token: no route");
        let panicking = CredentialsCallback::new(|| panic!("on purpose"));
        assert_eq!(panicking.call().unwrap_err(), "it panicked");
    }
}

//! A session whose login expires: it logs in anew over the open lines, before that happens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::Cmd;

use super::credentials::Issued;
use super::line::ServerLogin;
use super::{RedisSession, ask_one};
use crate::backend::commit::{Attempt, Outcome, Writer};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::{Invalidation, KeyRead, Page, Reply, Session, WithExpiry};
use crate::base::lock::lock;

/// A session that was logged in by a callback's credentials.
///
/// If the server has forgotten its login, it is made anew with a new connection: what the server
/// refused for want of a login is not refused for good.
pub(super) struct ExpiringSession {
    session: RedisSession,
    login: Arc<ServerLogin>,
    credentials: Arc<Mutex<SessionCredentials>>,
}

#[derive(Debug)]
struct SessionCredentials {
    /// What the session is logged in with.
    current: Arc<Issued>,
    /// What it is to log in with.
    next: Option<Arc<Issued>>,
    /// What the server refused.
    refused: Option<Arc<Issued>>,
}

impl std::fmt::Debug for ExpiringSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.session.fmt(f)
    }
}

impl ExpiringSession {
    pub(super) fn new(session: RedisSession, login: Arc<ServerLogin>, issued: Arc<Issued>) -> Self {
        let credentials = SessionCredentials {
            current: issued,
            next: None,
            refused: None,
        };
        Self {
            session,
            login,
            credentials: Arc::new(Mutex::new(credentials)),
        }
    }
}

/// The command that logs a connection in.
pub(super) fn auth(issued: &Issued) -> Cmd {
    let mut command = redis::cmd("AUTH");
    command
        .arg(issued.credentials.user())
        .arg(issued.credentials.password());
    command
}

fn reconnected(error: BackendError) -> BackendError {
    if error.code() == Some("NOAUTH") {
        BackendError::new(BackendErrorKind::NotPrimary, error)
    } else {
        error
    }
}

fn of_all<T: Send + 'static>(reply: Reply<T>) -> Reply<T> {
    Box::pin(async move { reply.await.map_err(reconnected) })
}

fn of_each<T: Send + 'static>(
    reply: Reply<Vec<Result<T, BackendError>>>,
) -> Reply<Vec<Result<T, BackendError>>> {
    Box::pin(async move {
        let answers = reply.await.map_err(reconnected)?.into_iter();
        Ok(answers.map(|answer| answer.map_err(reconnected)).collect())
    })
}

impl Session for ExpiringSession {
    fn read(&self, reads: &[KeyRead]) -> Reply<Vec<Result<WithExpiry, BackendError>>> {
        of_each(self.session.read(reads))
    }

    fn read_apart(&self, key: &Arc<str>, asking: bool) -> Reply<WithExpiry> {
        of_all(self.session.read_apart(key, asking))
    }

    fn commit(&self, batch: &[Attempt], now: u64) -> Reply<Vec<Result<Outcome, BackendError>>> {
        of_each(self.session.commit(batch, now))
    }

    fn names(&self, prefix: &str, cursor: Option<String>) -> Reply<Page> {
        of_all(self.session.names(prefix, cursor))
    }

    fn forget(&self, writer: Writer, keys: &[Arc<str>]) -> Reply<()> {
        of_all(self.session.forget(writer, keys))
    }

    fn now(&self) -> Reply<u64> {
        of_all(self.session.now())
    }

    fn eviction_policy(&self) -> Reply<Option<String>> {
        of_all(self.session.eviction_policy())
    }

    fn track(&self) -> Reply<()> {
        of_all(self.session.track())
    }

    fn invalidations(&self) -> Reply<Invalidation> {
        self.session.invalidations()
    }

    fn idle(&self) -> Duration {
        self.session.idle()
    }

    fn ended(&self) -> Reply<()> {
        self.session.ended()
    }

    fn login_due(&self) -> Option<Duration> {
        let remaining = lock(&self.credentials).current.remaining()?;
        Some(remaining.max(self.login.issuer()?.pause()))
    }

    fn prepare_login(&self) -> Reply<()> {
        let (login, credentials) = (Arc::clone(&self.login), Arc::clone(&self.credentials));
        Box::pin(async move {
            let Some(issuer) = login.issuer() else {
                return Ok(());
            };
            let refused = lock(&credentials).refused.take();
            let fresh = issuer.issue(refused.as_ref()).await;
            let mut credentials = lock(&credentials);
            credentials.refused = refused;
            credentials.next = Some(fresh?);
            Ok(())
        })
    }

    fn log_in(&self) -> Reply<()> {
        let Some(next) = lock(&self.credentials).next.take() else {
            return Box::pin(async { Ok(()) });
        };
        let (login, credentials) = (Arc::clone(&self.login), Arc::clone(&self.credentials));
        let apart = Arc::clone(&self.session.apart);
        let answer = ask_one(self.session.line.requests.clone(), auth(&next));
        Box::pin(async move {
            let answer = answer.await;
            if answer.as_ref().is_err_and(BackendError::is_connection_lost) {
                return answer.map(drop);
            }
            next.note_used();
            match (answer, login.issuer()) {
                (Err(error), Some(issuer)) => {
                    lock(&credentials).refused = Some(next);
                    // The connection goes on with the login that it has.
                    Err(issuer.refused(&error))
                }
                (Err(error), None) => Err(error),
                (Ok(_), issuer) => {
                    if let Some(issuer) = issuer {
                        issuer.succeeded();
                    }
                    lock(&credentials).current = Arc::clone(&next);
                    apart.log_in(&next).await;
                    Ok(())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::redis::reply::error_of_reply;

    #[test]
    fn a_login_that_the_server_has_forgotten_is_made_anew_and_nothing_is_refused_for_good() {
        let forgotten = reconnected(error_of_reply("NOAUTH Authentication required."));
        assert_eq!(forgotten.kind, BackendErrorKind::NotPrimary);
        assert!(forgotten.to_string().starts_with("NOAUTH"), "{forgotten}");
        for (message, kind) in [
            (
                "NOPERM this user has no permissions",
                BackendErrorKind::Rejected,
            ),
            ("LOADING Redis is loading", BackendErrorKind::Unavailable),
        ] {
            assert_eq!(reconnected(error_of_reply(message)).kind, kind);
        }
    }
}

//! What SQLite's errors mean for a request.

use rusqlite::{Error, ErrorCode};

use crate::backend::error::BackendError;

/// Another connection holds the lock.
pub(super) fn is_busy(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Nothing was done, and it may be possible later: the file is locked, or there is no space.
fn is_passing(error: &Error) -> bool {
    is_busy(error)
        || matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory)
        )
}

/// The request is wrong; the file is fine.
pub(super) fn is_refusal(error: &Error) -> bool {
    use ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
    matches!(
        error.sqlite_error_code(),
        Some(TooBig | ConstraintViolation | TypeMismatch)
    )
}

/// A write failed before the end of its transaction, which was rolled back. Unless the cause was a
/// lock or a full disk, the file is reopened before the next try.
pub(super) fn of_write(error: &Error) -> BackendError {
    if is_passing(error) {
        BackendError::unavailable(error)
    } else if is_refusal(error) {
        BackendError::rejected(error)
    } else {
        BackendError::not_primary(error)
    }
}

/// The end of a transaction failed. If the disk failed, a commit that was written and not synced
/// may reappear after a crash.
pub(super) fn of_end(error: &Error) -> BackendError {
    if is_passing(error) {
        BackendError::unavailable(error)
    } else {
        BackendError::connection_lost(error)
    }
}

/// A read failed, or a request for which it does not matter whether it was done.
pub(super) fn of_read(error: &Error) -> BackendError {
    if is_passing(error) {
        BackendError::unavailable(error)
    } else {
        BackendError::connection_lost(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::error::BackendErrorKind;
    use rusqlite::ffi;

    #[test]
    fn an_error_says_whether_anything_took_effect_and_whether_to_try_again() {
        for (code, write, end) in [
            (
                ffi::SQLITE_BUSY,
                BackendErrorKind::Unavailable,
                BackendErrorKind::Unavailable,
            ),
            (
                ffi::SQLITE_BUSY_SNAPSHOT,
                BackendErrorKind::Unavailable,
                BackendErrorKind::Unavailable,
            ),
            (
                ffi::SQLITE_FULL,
                BackendErrorKind::Unavailable,
                BackendErrorKind::Unavailable,
            ),
            (
                ffi::SQLITE_TOOBIG,
                BackendErrorKind::Rejected,
                BackendErrorKind::ConnectionLost,
            ),
            (
                ffi::SQLITE_IOERR_WRITE,
                BackendErrorKind::NotPrimary,
                BackendErrorKind::ConnectionLost,
            ),
            (
                ffi::SQLITE_IOERR_FSYNC,
                BackendErrorKind::NotPrimary,
                BackendErrorKind::ConnectionLost,
            ),
            (
                ffi::SQLITE_CORRUPT,
                BackendErrorKind::NotPrimary,
                BackendErrorKind::ConnectionLost,
            ),
            (
                ffi::SQLITE_READONLY,
                BackendErrorKind::NotPrimary,
                BackendErrorKind::ConnectionLost,
            ),
        ] {
            let error = Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(
                (of_write(&error).kind, of_end(&error).kind),
                (write, end),
                "{error}"
            );
        }
    }
}

//! Which files this process has open, and which of them its parent had open when it forked.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::backend::error::BackendError;
use crate::base::files::FileId;
use crate::base::fork::OwnerProcess;

/// SQLite keeps a list of the files that its process has open, with the locks on them. The child of
/// a fork has a copy of the list, but not the locks: a connection of its own to one of these files
/// would go without a lock that it takes for held, and corrupt the file
/// (<https://sqlite.org/howtocorrupt.html>, 2.6). No call takes an entry off the list in the child.
static OPEN_FILES: ArcSwapOption<Vec<(FileId, OwnerProcess)>> = ArcSwapOption::const_empty();

/// A file is open in this process until this is dropped.
#[derive(Debug)]
pub(super) struct OpenMark(FileId, OwnerProcess);

impl OpenMark {
    /// # Errors
    ///
    /// `Rejected` if a parent of this process had the file open at a fork.
    pub(super) fn new(file: FileId) -> Result<Self, BackendError> {
        let current = OwnerProcess::current();
        let is_inherited =
            |(open, owner): &(FileId, OwnerProcess)| *open == file && *owner != current;
        if OPEN_FILES
            .load()
            .iter()
            .any(|open| open.iter().any(is_inherited))
        {
            return Err(BackendError::rejected(
                "this process was forked while the file was open; SQLite's locks do not survive \
                 that: open the file after the fork",
            ));
        }

        let mark = Self(file, current);
        OPEN_FILES.rcu(|open| {
            let mut open = open.as_deref().cloned().unwrap_or_default();
            open.push((mark.0, mark.1));
            Some(Arc::new(open))
        });
        Ok(mark)
    }
}

impl Drop for OpenMark {
    fn drop(&mut self) {
        let mark = (self.0, self.1);
        OPEN_FILES.rcu(|open| {
            let mut left = open.as_deref().cloned().unwrap_or_default();
            if let Some(position) = left.iter().position(|other| *other == mark) {
                left.swap_remove(position);
            }
            Some(Arc::new(left))
        });
    }
}

//! Names: what every server has.

use std::collections::BTreeSet;

use super::Core;
use crate::backend::shards::Shard;
use crate::base::callback::is_io_thread;
use crate::base::clock::Deadline;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::waiting::until;
use crate::client::shared::LayoutCheck;

/// The names of the keys that begin with a prefix.
#[derive(Debug, Default)]
pub(crate) struct FoundNames {
    pub(crate) keys: BTreeSet<String>,
    /// Those that are not UTF-8.
    pub(crate) unreadable: BTreeSet<Vec<u8>>,
}

/// How often a cluster is scanned whose slots move meanwhile.
const MOST_PASSES: usize = 3;

impl Core {
    /// The full names of all keys that begin with `prefix`.
    ///
    /// # Errors
    ///
    /// `Unavailable` if a server does not answer: a part of the names would look like all of them.
    /// `Rejected`.
    pub(crate) async fn names(&self, prefix: &str) -> Result<FoundNames> {
        let mut found = FoundNames::default();
        if !self.shared.map.is_cluster() {
            self.scan(Shard::FIRST, prefix, &mut found).await?;
            return Ok(found);
        }
        // A key that goes from a server which is still to be scanned to one that was, is not seen.
        let mut before = self.layout_now().await?;
        for _ in 0..MOST_PASSES {
            let routes = self.shared.routes();
            if !routes.is_connected() {
                return Err(self.shared.unavailable());
            }
            for shard in &routes.in_order {
                self.scan(*shard, prefix, &mut found).await?;
            }
            // Of some it was said only now that they have keys.
            for shard in &routes.importing {
                let deadline = self.deadline();
                self.connection_within(*shard, None, || deadline).await;
                self.scan(*shard, prefix, &mut found).await?;
            }
            let after = self.layout_now().await?;
            let is_settled = !before.is_moving && before == after;
            if is_settled {
                break;
            }
            before = after;
        }
        Ok(found)
    }

    async fn layout_now(&self) -> Result<LayoutCheck> {
        if is_io_thread() {
            return Err(self.shared.unavailable());
        }
        let limit = self.shared.settings.timeout;
        // The one that is asked for now may have begun before: this one comes after it.
        let checked = until(self.shared.check_layout(), Deadline::after(2 * limit)).await;
        match checked {
            Some(Ok(Ok(check))) => Ok(check),
            _ => Err(self.shared.unavailable()),
        }
    }

    async fn scan(&self, shard: Shard, prefix: &str, found: &mut FoundNames) -> Result<()> {
        let mut cursor = None;
        loop {
            let next = cursor.take();
            let page = self
                .ask(shard, |connection| connection.session.names(prefix, next))
                .await;
            let page = match page {
                Some(Ok(page)) => page,
                Some(Err(error)) if error.is_rejected() => {
                    return Err(Error::new(
                        ErrorKind::Rejected,
                        format!("the names below `{prefix}`: {error}"),
                    ));
                }
                _ => return Err(self.shared.unavailable()),
            };
            found.keys.extend(page.names);
            found.unreadable.extend(page.unreadable);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}

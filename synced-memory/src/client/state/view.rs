//! What reads show: the pending writes on top of what the backend last answered.

use super::{Link, State};
use crate::base::clock::Monotonic;
use crate::pending::outbox::Write;
use crate::pending::rebase;
use crate::value::document::Document;
use crate::value::envelope::Text;

/// What a read shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyView {
    pub(crate) stored: Option<Document>,
    /// When it ends by its time to live.
    pub(crate) expires: Option<Monotonic>,
}

impl KeyView {
    /// Of what is stored, with nothing on top.
    pub(crate) fn of(stored: Option<Document>) -> Self {
        Self {
            stored,
            expires: None,
        }
    }

    /// What is stored, in one piece.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Option<bytes::Bytes> {
        self.stored.as_ref().map(Document::to_bytes)
    }

    /// The value as JSON text.
    pub(crate) fn value(&self) -> Option<Text> {
        self.stored.as_ref().map(Document::value)
    }

    /// With a pending write on top. A value is long from `long_from` bytes on.
    fn with(self, write: &Write, long_from: usize, mono: Monotonic) -> Self {
        let below = self.expires.filter(|_| !covers_below(write, mono));
        let expires = write.expires.or(below);
        if write.has_expired(mono) {
            return Self {
                expires,
                ..Self::default()
            };
        }
        Self {
            stored: rebase::visible(write, self.stored, long_from),
            expires,
        }
    }
}

impl State {
    /// What a read of `key` shows: the pending writes of this process on top of what the backend
    /// last answered.
    pub(crate) fn view(&self, key: &str, mono: Monotonic) -> KeyView {
        let mut on_top: Vec<&Write> = Vec::new();
        for entry in self.outbox.of(key).rev() {
            if is_in_view(&entry.write, mono) {
                on_top.push(&entry.write);
                if covers_below(&entry.write, mono) {
                    break;
                }
            }
        }

        let base = self.cache.base(key);
        let stored = KeyView {
            stored: base.at(mono).cloned(),
            expires: base.expires,
        };
        // Additions that the backend has made are a part of what is below.
        let is_covered = on_top.last().is_some_and(|write| covers_below(write, mono));
        let added: Vec<_> = if is_covered || stored.stored.is_none() {
            Vec::new()
        } else {
            self.added_on_top(key).collect()
        };
        let on_top = on_top.into_iter().rev();
        let on_top = added.into_iter().chain(on_top);
        on_top.fold(stored, |view, write| view.with(write, self.long_from, mono))
    }

    /// Whether a read of these keys need not ask the backend. What this process assigned and has no
    /// answer for is what it reads, whatever the backend says.
    pub(crate) fn is_local<'a>(&self, mut keys: impl Iterator<Item = &'a str>) -> bool {
        keys.all(|key| {
            self.cache.is_local(key, self.link_of(key) != Link::Down)
                || self.cache.is_near(key) && self.is_assigned(key)
        })
    }

    /// Whether a pending write says what `key` is.
    fn is_assigned(&self, key: &str) -> bool {
        self.outbox
            .of(key)
            .any(|entry| entry.write.assignment.is_some() && !entry.write.is_confirmed)
    }

    /// Whether the view of `key`, whose slot is kept current, may be passed to a watch that has
    /// just begun.
    pub(crate) fn is_visible(&self, key: &str) -> bool {
        self.is_assigned(key)
            || self
                .cache
                .is_cell_visible(key, self.link_of(key) != Link::Down)
    }

    /// Whether anything is known of `key`: the backend answered for it, or this process assigned
    /// it.
    pub(crate) fn is_known(&self, key: &str) -> bool {
        self.is_assigned(key) || self.cache.base(key).is_known()
    }
}

/// Whether a read shows a pending write, or that it has expired.
fn is_in_view(write: &Write, mono: Monotonic) -> bool {
    !write.is_confirmed && (!write.has_expired(mono) || write.replaces_nothing)
}

/// Whether a read that shows this write shows nothing of what is below it.
fn covers_below(write: &Write, mono: Monotonic) -> bool {
    write.assignment.is_some() || write.has_expired(mono)
}

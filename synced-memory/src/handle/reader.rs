//! Reading a value of any type: the slots of a key, and a path in what they show.

use std::any::TypeId;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind, JsonCause, Reason, Result};
use crate::base::type_name::type_name;
use crate::client::shared::{Locked, Shared};
use crate::client::slot::Slot;
use crate::client::state::{KeyView, State};
use crate::value::document::Document;
use crate::value::envelope::{self, Text};
use crate::value::mutation::{ApplyError, PathSegment, look};

/// A path in what the slots of a key show.
#[derive(Clone)]
pub(crate) struct SlotReader {
    pub(crate) shared: Arc<Shared>,
    /// The slot of the key, then those of its older names; an error if a name is invalid.
    slots: Result<Arc<[Arc<Slot>]>>,
    segments: Arc<[PathSegment]>,
}

/// What the slots show.
#[derive(Default)]
pub(crate) struct SlotsView {
    /// The version of the slots that this is.
    pub(crate) version: u64,
    /// The slots are current: the backend need not be asked by a near read.
    pub(crate) is_local: bool,
    /// The backend has answered for it, or this process has assigned it.
    pub(crate) is_known: bool,
    /// What is stored under the key itself.
    pub(crate) own: KeyView,
    /// What a read shows: that, or what is stored under an older name.
    pub(crate) view: KeyView,
}

/// What a watch is to report.
pub(crate) struct WatchView {
    pub(crate) version: u64,
    /// When the value expires.
    pub(crate) expires: Option<Monotonic>,
    /// What is at the path; `None` while that is not known.
    pub(crate) found: Option<Result<Option<Text>>>,
}

impl SlotReader {
    pub(crate) fn root(shared: &Arc<Shared>, slots: Result<Vec<Arc<Slot>>>) -> Self {
        Self {
            shared: Arc::clone(shared),
            slots: slots.map(Into::into),
            segments: Arc::default(),
        }
    }

    /// The path one segment further.
    pub(crate) fn at(&self, segment: PathSegment) -> Self {
        let segments = self.segments.iter().cloned().chain([segment]).collect();
        Self {
            segments,
            ..self.clone()
        }
    }

    /// The same path in other slots of the same keys.
    pub(crate) fn in_slots(&self, hold: impl FnMut(&Arc<str>) -> Arc<Slot>) -> Self {
        let slots = self.keys().map(|keys| keys.iter().map(hold).collect());
        Self {
            slots,
            ..self.clone()
        }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.segments.is_empty()
    }

    pub(crate) fn segments(&self) -> &Arc<[PathSegment]> {
        &self.segments
    }

    pub(crate) fn slots(&self) -> Result<&[Arc<Slot>]> {
        self.slots.as_deref().map_err(Clone::clone)
    }

    /// The full key.
    pub(crate) fn key(&self) -> Result<&Arc<str>> {
        Ok(&self.slots()?[0].key)
    }

    pub(crate) fn keys(&self) -> Result<Vec<Arc<str>>> {
        Ok(self
            .slots()?
            .iter()
            .map(|slot| Arc::clone(&slot.key))
            .collect())
    }

    /// The state, at the beginning of a call.
    fn state(&self) -> Locked<'_> {
        self.shared.is_inherited();
        self.shared.state()
    }

    /// The sum of the versions: each only rises, so that the sum changes when one of them does.
    pub(crate) fn version(&self) -> Result<u64> {
        Ok(version(self.slots()?))
    }

    /// Whether the slots are current, so that the backend need not be asked.
    pub(crate) fn is_local(&self) -> bool {
        self.slots().is_ok_and(|slots| {
            let is_open = self.shared.check_open().is_ok();
            is_open && is_local(&self.shared.state(), slots)
        })
    }

    /// Whether anything is known of the key and its older names, for a call that has checked that
    /// the memory is open.
    pub(crate) fn is_known(&self) -> bool {
        self.slots().is_ok_and(|slots| {
            let state = self.shared.state();
            slots.iter().all(|slot| state.is_known(&slot.key))
        })
    }

    /// How old the oldest of the slots may be.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        let mono = self.shared.clock.mono();
        let state = self.state();
        let slots = self.slots().ok()?.iter();
        slots
            .map(|slot| state.cache.staleness(&slot.key, mono))
            .try_fold(Duration::ZERO, |most, one| Some(most.max(one?)))
    }

    /// What a read of the slots shows, for a call that has checked that the memory is open.
    pub(crate) fn visible(&self) -> Result<SlotsView> {
        let slots = self.slots()?;
        let mono = self.shared.clock.mono();
        let is_open = self.shared.check_not_closed().is_ok();
        // Versions change under this lock only: the view belongs to this version.
        let mut state = self.shared.state();
        for slot in slots {
            state.cache.used(&slot.key);
        }
        let mut views = slots.iter().map(|slot| state.view(&slot.key, mono));
        let first = views.next().unwrap_or_default();
        let own = first.clone();
        let is_set = |view: &KeyView| view.stored.is_some();
        let view = if is_set(&own) {
            first
        } else {
            views.find(is_set).unwrap_or_default()
        };
        let is_local = is_open && is_local(&state, slots);
        let is_known = slots.iter().all(|slot| state.is_known(&slot.key));
        Ok(SlotsView {
            version: version(slots),
            is_local,
            is_known,
            own,
            view,
        })
    }

    /// What is stored under the key and each of its older names.
    pub(crate) fn stored_by_key(&self) -> Result<Vec<(Arc<str>, Option<Document>)>> {
        let mono = self.shared.clock.mono();
        let state = self.state();
        let stored = |slot: &Arc<Slot>| (Arc::clone(&slot.key), state.view(&slot.key, mono).stored);
        Ok(self.slots()?.iter().map(stored).collect())
    }

    /// What is at the path, if that is known yet.
    pub(crate) fn watch_view(&self) -> Result<WatchView> {
        let slots = self.slots()?;
        let mono = self.shared.clock.mono();
        let (version, view) = {
            let state = self.state();
            (version(slots), known(&state, slots, mono))
        };
        let expires = view
            .as_ref()
            .and_then(|view| view.as_ref().ok()?.expires)
            .filter(|expires| *expires > mono);
        let found = view.map(|view| self.text_at_path(view?.value().as_ref()));
        Ok(WatchView {
            version,
            expires,
            found,
        })
    }

    /// What is at the path in this text.
    fn text_at_path(&self, text: Option<&Text>) -> Result<Option<Text>> {
        let found = look(text.map(Text::as_str), None, &self.segments);
        let (found, exists) = found.map_err(|error| self.apply_error(error))?;
        Ok(text
            .zip(found)
            .filter(|_| exists)
            .map(|(text, found)| text.part(found)))
    }

    /// Whether a value of this type was read back that was written by way of this key.
    pub(crate) fn was_read_back<T: 'static>(&self) -> bool {
        let slots = self.slots();
        slots.is_ok_and(|slots| slots[0].was_read_back(TypeId::of::<T>()))
    }

    pub(crate) fn note_read_back<T: 'static>(&self) {
        if let Ok(slots) = self.slots() {
            slots[0].note_read_back(TypeId::of::<T>());
        }
    }

    /// Decodes what is at the path. `nested`: it may have only some of its members.
    pub(crate) fn decode<T: DeserializeOwned>(&self, text: &str, nested: bool) -> Result<T> {
        serde_json::from_str(text).map_err(|error| self.undecoded::<T>(&error, text, nested))
    }

    pub(crate) fn undecoded<T: DeserializeOwned>(
        &self,
        error: &serde_json::Error,
        text: &str,
        nested: bool,
    ) -> Error {
        let said = error.to_string();
        let missing = said
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split('`').next());
        if let Some(missing) = missing.filter(|_| nested) {
            let path = envelope::path_of_error::<T>(text);
            let what = format!(
                "only a part of it is set: `{path}{missing}` is missing, and has no default"
            );
            return self.error(ErrorKind::Unset, what);
        }
        // The position is in the cause.
        let position = format!(", at line {} column {}", error.line(), error.column());
        let found = envelope::describe(error, text);
        let found = found.strip_suffix(&position).unwrap_or(&found);
        let expected = type_name::<T>();
        let message = format!("what is stored is no `{expected}`: {found}");
        let cause = JsonCause::from(error);
        let reason = Reason::caused_by(
            message,
            if envelope::is_json(text) {
                cause.of_valid_json()
            } else {
                cause
            },
        );
        self.error(ErrorKind::Decode, reason)
    }

    pub(crate) fn apply_error(&self, error: ApplyError) -> Error {
        let kind = match error {
            ApplyError::Unset | ApplyError::Gone => ErrorKind::Unset,
            ApplyError::Type { .. } | ApplyError::Invalid => ErrorKind::Decode,
            ApplyError::Changed | ApplyError::Overflow => ErrorKind::Conflict,
        };
        self.error(kind, error.to_string())
    }

    /// An error that names the key and the path.
    pub(crate) fn error(&self, kind: ErrorKind, reason: impl Into<Reason>) -> Error {
        match self.key() {
            Ok(key) => Error::of_key(
                kind,
                &format!("{key}{}", DisplayPath(&self.segments)),
                reason,
            ),
            Err(error) => error,
        }
    }
}

fn version(slots: &[Arc<Slot>]) -> u64 {
    let version = |slot: &Arc<Slot>| slot.version.load(Ordering::Acquire);
    match slots {
        // The usual case, kept fast: a near read does little else.
        [slot] => version(slot),
        slots => slots.iter().map(version).sum(),
    }
}

fn is_local(state: &State, slots: &[Arc<Slot>]) -> bool {
    state.is_local(slots.iter().map(|slot| &*slot.key))
}

/// What a read of tracked slots shows, or why the backend refuses the key; `None` while that is not
/// known.
fn known(state: &State, slots: &[Arc<Slot>], mono: Monotonic) -> Option<Result<KeyView>> {
    for slot in slots {
        if let Some(refusal) = state.cache.refusal(&slot.key) {
            return Some(Err(refusal.clone()));
        }
        if !state.is_visible(&slot.key) {
            return None;
        }
        let view = state.view(&slot.key, mono);
        if view.stored.is_some() {
            return Some(Ok(view));
        }
    }
    Some(Ok(KeyView::default()))
}

/// A path in messages: `.name` for a member, `[1]` for an element.
struct DisplayPath<'a>(&'a [PathSegment]);

impl fmt::Display for DisplayPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|segment| match segment {
            PathSegment::Member(member) | PathSegment::Entry(member, _) => {
                write!(f, ".{}", member.name)
            }
            PathSegment::Index(index) => write!(f, "[{index}]"),
        })
    }
}

impl fmt::Debug for SlotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key() {
            Ok(key) => write!(f, "\"{key}{}\"", DisplayPath(&self.segments)),
            Err(error) => write!(f, "{error}"),
        }
    }
}

//! A path to a part of what is stored under a key, whatever its type: reading it, and recording
//! changes to it.
//!
//! - `record.rs`: changes

mod record;

pub(crate) use record::{Condition, Freshness, PathChange, ReturnPath};

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::error::{Error, ErrorKind, Reason, Result};
use crate::base::policy::WritePolicy;
use crate::base::type_name::type_name;
use crate::base::waiting::block_on;
use crate::client::core::Core;
use crate::client::slot::Slot;
use crate::client::state::{KeyView, Request};
use crate::handle::memory::Memory;
use crate::handle::reader::{SlotReader, SlotsView};
use crate::handle::value::Value;
use crate::value::document::Document;
use crate::value::envelope::{self, Text};
use crate::value::mutation::{
    self, ApplyError, Content, Json, Location, Mutation, ObservedValue, Operation, PathSegment,
    locate, look,
};

/// A path to a part of what is stored under a key, or to all of it.
#[derive(Clone)]
pub struct ValuePath {
    root: Arc<KeyRoot>,
    reader: SlotReader,
    /// Its calls return facts, whatever the policy of the key.
    is_confirmed: bool,
    /// Of an object, changes look at these members alone.
    members: Option<Arc<[Box<str>]>>,
}

struct KeyRoot {
    memory: Memory,
    /// What a change of the whole starts from while it is unset.
    origin: Box<dyn Fn() -> Option<Json> + Send + Sync + UnwindSafe + RefUnwindSafe>,
    /// Whether that is an explicit default: a value of which nothing is known reads as this, too.
    has_default: bool,
    policies: Policies,
}

/// How what is under a key is read and written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Policies {
    /// How long a value lives, from its write.
    pub(crate) ttl: Option<Duration>,
    /// It is read from its slots, which the backend keeps current.
    pub(crate) near: bool,
    pub(crate) write: WritePolicy,
}

impl ValuePath {
    pub(crate) fn root(
        memory: &Memory,
        slots: Result<Vec<Arc<Slot>>>,
        (origin, has_default): (
            impl Fn() -> Option<Json> + Send + Sync + UnwindSafe + RefUnwindSafe + 'static,
            bool,
        ),
        policies: Policies,
    ) -> Self {
        if let (true, Ok(slots)) = (policies.near, &slots) {
            for slot in slots {
                slot.keep_near();
            }
        }
        let root = KeyRoot {
            memory: memory.clone(),
            origin: Box::new(origin),
            has_default,
            policies,
        };
        Self {
            root: Arc::new(root),
            reader: SlotReader::root(memory.shared(), slots),
            is_confirmed: false,
            members: None,
        }
    }

    /// The path one segment further.
    pub(crate) fn at(&self, segment: PathSegment) -> Self {
        Self {
            root: Arc::clone(&self.root),
            reader: self.reader.at(segment),
            is_confirmed: self.is_confirmed,
            members: None,
        }
    }

    /// The same path, with calls that return facts.
    pub(crate) fn confirmed(&self) -> Self {
        Self {
            is_confirmed: true,
            ..self.clone()
        }
    }

    /// The same path, of which changes look at these members alone: it need not be known what else
    /// an object has.
    pub(crate) fn with_members<'a>(&self, names: impl Iterator<Item = &'a str>) -> Self {
        Self {
            members: Some(names.map(Box::from).collect()),
            ..self.clone()
        }
    }

    /// What a change is recorded on: the value of what is stored, or an excerpt that has what it
    /// looks at.
    fn looked_at(&self, stored: &Document) -> Text {
        let excerpt = match (self.reader.segments().first(), &self.members) {
            (Some(PathSegment::Member(member)), _) if member.also.is_empty() => {
                stored.excerpt([&*member.name].into_iter())
            }
            (None, Some(names)) => stored.excerpt(names.iter().map(|name| &**name)),
            _ => None,
        };
        excerpt.unwrap_or_else(|| stored.value())
    }

    /// Whether a read returns what the backend answers to it.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// What the backend has now, without queued writes on top.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Rejected`.
    pub(crate) async fn view_now(&self) -> Result<KeyView> {
        let stored = self.core().read_now(&self.keys()?).await?;
        Ok(KeyView::of(stored.into_iter().flatten().next()))
    }

    /// A path where nothing can be read or written, since the name of a segment is invalid.
    pub(crate) fn broken(&self, error: Error) -> Self {
        Self::root(
            self.memory(),
            Err(error),
            (|| None, false),
            Policies::default(),
        )
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.root.memory
    }

    pub(crate) fn core(&self) -> &Core {
        self.root.memory.core()
    }

    pub(crate) fn is_root(&self) -> bool {
        self.reader.is_root()
    }

    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.root.policies.ttl
    }

    /// What it is read by.
    pub(crate) fn reader(&self) -> &SlotReader {
        &self.reader
    }

    /// The full key.
    pub(crate) fn key(&self) -> Result<&Arc<str>> {
        self.reader.key()
    }

    pub(crate) fn keys(&self) -> Result<Vec<Arc<str>>> {
        self.reader.keys()
    }

    /// Asks the backend, unless the slots are current or it is away.
    pub(crate) fn load(&self) -> Result<()> {
        block_on(self.load_async())
    }

    pub(crate) async fn load_async(&self) -> Result<()> {
        if self.is_local() {
            Ok(())
        } else {
            self.refresh().await
        }
    }

    /// Asks the backend, unless it is away.
    async fn refresh(&self) -> Result<()> {
        self.core().load(&self.keys()?).await.map(drop)
    }

    /// The same for a call that has checked that the memory is open.
    async fn refresh_checked(&self) -> Result<()> {
        self.core().load_checked(&self.keys()?).await.map(drop)
    }

    /// Asks the backend; no answer is an error.
    async fn refresh_now(&self) -> Result<()> {
        if self.core().load_now(&self.keys()?).await? {
            Ok(())
        } else {
            Err(self.unknown())
        }
    }

    pub(crate) fn is_near(&self) -> bool {
        self.root.policies.near
    }

    /// Whether the slots are current, so that the backend need not be asked.
    pub(crate) fn is_local(&self) -> bool {
        self.root.policies.near && self.reader.is_local()
    }

    pub(crate) fn version(&self) -> Result<u64> {
        self.reader.version()
    }

    pub(crate) fn write_policy(&self) -> WritePolicy {
        if self.is_confirmed {
            WritePolicy::Confirmed
        } else {
            self.root.policies.write
        }
    }

    /// Whether the whole reads as an explicit default while nothing is known of it.
    pub(crate) fn has_default(&self) -> bool {
        self.root.has_default
    }

    pub(crate) fn is_known(&self) -> bool {
        self.reader.is_known()
    }

    /// What a read of the slots shows.
    pub(crate) fn visible(&self) -> Result<SlotsView> {
        let view = self.reader.visible()?;
        Ok(SlotsView {
            is_local: view.is_local && self.root.policies.near,
            ..view
        })
    }

    /// Calls `read` with the text at the path in `view`, or the default there, and with whether it
    /// is stored.
    pub(crate) fn read_in<R>(
        &self,
        view: &KeyView,
        read: impl FnOnce(Option<&str>, bool) -> Result<R>,
    ) -> Result<R> {
        let segments = self.reader.segments();
        let part = view.stored.as_ref();
        let part = part.and_then(|stored| stored.first_part(segments));
        let (text, segments) = match part {
            Some((part, rest)) => (Some(part), rest),
            None => (view.value(), &**segments),
        };
        let origin = if text.is_none() {
            (self.root.origin)()
        } else {
            None
        };
        let found = look(text.as_ref().map(Text::as_str), origin.as_ref(), segments);
        let (found, exists) = found.map_err(|error| self.apply_error(error))?;
        read(found, exists)
    }

    /// The error of a read of what is not known.
    pub(crate) fn unknown(&self) -> Error {
        let cause = self.memory().shared().unavailable();
        self.error(
            cause.kind(),
            format_args!("nothing is known of it: {cause}"),
        )
    }

    /// The request that stores `value` here, as a mutation of its own.
    pub(crate) fn assignment(&self, value: Json) -> Result<(Arc<str>, Request)> {
        self.memory().shared().check_open()?;
        let text = self.visible()?.view.value();
        let origin = (self.root.origin)();
        let location = locate(
            text.as_ref().map(Text::as_str),
            origin.as_ref(),
            self.reader.segments(),
        );
        let location = location.map_err(|error| self.apply_error(error))?;
        let set = mutation::Action::Set {
            value,
            seen: seen(&location),
        };
        let operations = vec![Operation {
            path: location.path,
            action: set,
        }];
        let mutation = Mutation::new(origin, operations);
        Ok((
            Arc::clone(self.key()?),
            Request::Mutate {
                mutation,
                ttl: self.root.policies.ttl,
                exact: None,
                take: None,
            },
        ))
    }

    /// A value as JSON.
    ///
    /// # Errors
    ///
    /// `Serialize` if JSON cannot hold it, or its type cannot read it back.
    pub(crate) fn encode<T: Value>(&self, value: &T) -> Result<Json> {
        let json = self.encode_unread(value)?;
        self.check_is_read_back::<T>(json.as_str().as_bytes())?;
        Ok(json)
    }

    /// What is part of a value, or the name of one, as JSON.
    pub(crate) fn encode_unread<T: Serialize + ?Sized>(&self, value: &T) -> Result<Json> {
        Json::encode(value)
            .map_err(|error| self.error(ErrorKind::Serialize, envelope::describe_refusal(&error)))
    }

    /// Refuses what a `T` has written and cannot read: stored, it would be lost to everybody.
    ///
    /// That mostly depends on the type and not on the value, and a look at each value would cost as
    /// much as a read of it: in release builds only the first value of each type and key is read
    /// back.
    pub(crate) fn check_is_read_back<T: Value>(&self, json: &[u8]) -> Result<()> {
        if self.reader.was_read_back::<T>() && !cfg!(debug_assertions) {
            return Ok(());
        }
        let Err(error) = serde_json::from_slice::<T>(json) else {
            self.reader.note_read_back::<T>();
            return Ok(());
        };
        let found = envelope::describe(&error, std::str::from_utf8(json).unwrap_or_default());
        let written = type_name::<T>();
        Err(self.error(
            ErrorKind::Serialize,
            format!("what `{written}` writes for this value it cannot read back: {found}"),
        ))
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, text: &str) -> Result<T> {
        self.reader.decode(text, false)
    }

    pub(crate) fn apply_error(&self, error: ApplyError) -> Error {
        self.reader.apply_error(error)
    }

    /// An error that names the key and the path.
    pub(crate) fn error(&self, kind: ErrorKind, reason: impl Into<Reason>) -> Error {
        self.reader.error(kind, reason)
    }
}

/// What an assignment or a removal at this location remembers: what is there, or the default.
pub(crate) fn seen(location: &Location<'_>) -> ObservedValue {
    location.found.map(Content::of).into()
}

impl fmt::Debug for ValuePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ValuePath").field(&self.reader).finish()
    }
}

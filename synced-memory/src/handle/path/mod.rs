//! A place in what is stored under a key, whatever its type: reading it, and recording changes to
//! it.
//!
//! - `record.rs`: changes

mod record;

pub(crate) use record::{How, PartChange, ReturnPath};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::WritePolicy;
use crate::base::waiting::block_on;
use crate::client::core::Core;
use crate::client::slot::Slot;
use crate::client::state::{KeyView, Request};
use crate::handle::memory::Memory;
use crate::handle::reader::{SlotReader, SlotsView};
use crate::value::envelope::{self, Text};
use crate::value::mutation::{
    self, ApplyError, Content, Json, Location, Mutation, ObservedValue, Operation, PathSegment,
    locate, look,
};

/// A place in what is stored under a key.
#[derive(Clone)]
pub struct ValuePath {
    root: Arc<KeyRoot>,
    source: SlotReader,
    /// Its calls return facts, whatever the policy of the key.
    is_confirmed: bool,
}

struct KeyRoot {
    memory: Memory,
    /// What the whole is taken for while it is unset.
    origin: Box<dyn Fn() -> Option<Json> + Send + Sync>,
    /// Somebody has said so, and it is taken for that also while nothing is known of it.
    has_default: bool,
    how: Policies,
}

/// How what is under a key is read and written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Policies {
    /// How long a value lives, from its write.
    pub(crate) ttl: Option<Duration>,
    /// It is read from its slots, which are kept current.
    pub(crate) near: bool,
    pub(crate) write: WritePolicy,
}

impl ValuePath {
    pub(crate) fn root(
        memory: &Memory,
        slots: Result<Vec<Arc<Slot>>>,
        (origin, has_default): (impl Fn() -> Option<Json> + Send + Sync + 'static, bool),
        how: Policies,
    ) -> Self {
        if let (true, Ok(slots)) = (how.near, &slots) {
            for slot in slots {
                slot.keep_near(memory.prefix());
            }
        }
        let root = KeyRoot {
            memory: memory.clone(),
            origin: Box::new(origin),
            has_default,
            how,
        };
        Self {
            root: Arc::new(root),
            source: SlotReader::root(memory.shared(), slots),
            is_confirmed: false,
        }
    }

    /// A place in this one.
    pub(crate) fn at(&self, place: PathSegment) -> Self {
        Self {
            root: Arc::clone(&self.root),
            source: self.source.at(place),
            is_confirmed: self.is_confirmed,
        }
    }

    /// The same place, whose calls return facts.
    pub(crate) fn confirmed(&self) -> Self {
        Self {
            is_confirmed: true,
            ..self.clone()
        }
    }

    /// Whether what is read here is what the backend answers to that.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// What the backend has now, with nothing on top.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Rejected`.
    pub(crate) async fn view_now(&self) -> Result<KeyView> {
        let stored = self.core().read_now(&self.keys()?).await?;
        Ok(KeyView::of(stored.into_iter().flatten().next()))
    }

    /// A place of which nothing can be read or written, since its name made no sense.
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
        self.source.is_root()
    }

    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.root.how.ttl
    }

    /// Where it is read from.
    pub(crate) fn source(&self) -> &SlotReader {
        &self.source
    }

    /// The full key.
    pub(crate) fn key(&self) -> Result<&Arc<str>> {
        self.source.key()
    }

    pub(crate) fn keys(&self) -> Result<Vec<Arc<str>>> {
        self.source.keys()
    }

    /// Asks the backend, where it is there and has to be asked.
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

    /// Asks the backend, where it is there.
    async fn refresh(&self) -> Result<()> {
        self.core().load(&self.keys()?).await.map(drop)
    }

    /// Asks the backend, which has to answer.
    async fn refresh_now(&self) -> Result<()> {
        if self.core().load_now(&self.keys()?).await? {
            Ok(())
        } else {
            Err(self.unknown())
        }
    }

    pub(crate) fn is_near(&self) -> bool {
        self.root.how.near
    }

    /// Whether the slots show what is there without anybody being asked.
    pub(crate) fn is_local(&self) -> bool {
        self.root.how.near && self.source.is_local()
    }

    pub(crate) fn version(&self) -> Result<u64> {
        self.source.version()
    }

    pub(crate) fn write_policy(&self) -> WritePolicy {
        if self.is_confirmed {
            WritePolicy::Confirmed
        } else {
            self.root.how.write
        }
    }

    /// Whether the whole is taken for an explicit default while nothing is known of it.
    pub(crate) fn has_default(&self) -> bool {
        self.root.has_default
    }

    pub(crate) fn is_known(&self) -> bool {
        self.source.is_known()
    }

    /// What the slots show together.
    pub(crate) fn visible(&self) -> Result<SlotsView> {
        let shown = self.source.visible()?;
        Ok(SlotsView {
            is_local: shown.is_local && self.root.how.near,
            ..shown
        })
    }

    /// Hands the text at the place to `look`: what is there, or taken to be there, and whether it
    /// is.
    pub(crate) fn look_at<R>(
        &self,
        view: &KeyView,
        look_at: impl FnOnce(Option<&str>, bool) -> Result<R>,
    ) -> Result<R> {
        let text = view.value();
        let origin = if text.is_none() {
            (self.root.origin)()
        } else {
            None
        };
        let found = look(
            text.as_ref().map(Text::as_str),
            origin.as_ref(),
            self.source.places(),
        );
        let (found, exists) = found.map_err(|error| self.apply_error(error))?;
        look_at(found, exists)
    }

    /// Why nothing can be said of what is there.
    pub(crate) fn unknown(&self) -> Error {
        let cause = self.memory().shared().unavailable();
        self.error(
            ErrorKind::Unavailable,
            format_args!("nothing is known of it: {cause}"),
        )
    }

    /// The request that stores `value` here, as a mutation of its own.
    pub(crate) fn assignment(&self, value: Json) -> Result<(Arc<str>, Request)> {
        let text = self.visible()?.view.value();
        let origin = (self.root.origin)();
        let spot = locate(
            text.as_ref().map(Text::as_str),
            origin.as_ref(),
            self.source.places(),
        );
        let spot = spot.map_err(|error| self.apply_error(error))?;
        let set = mutation::Action::Set {
            value,
            seen: seen(&spot),
        };
        let operations = vec![Operation {
            path: spot.path,
            action: set,
        }];
        let mutation = Mutation::new(origin, operations);
        Ok((
            Arc::clone(self.key()?),
            Request::Mutate {
                mutation,
                ttl: self.root.how.ttl,
                exact: None,
                take: None,
            },
        ))
    }

    pub(crate) fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Json> {
        Json::encode(value)
            .map_err(|error| self.error(ErrorKind::Serialize, envelope::describe_refusal(&error)))
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, text: &str) -> Result<T> {
        self.source.decode(text, false)
    }

    pub(crate) fn apply_error(&self, error: ApplyError) -> Error {
        self.source.apply_error(error)
    }

    /// An error that names the place.
    pub(crate) fn error(&self, kind: ErrorKind, what: impl fmt::Display) -> Error {
        self.source.error(kind, what)
    }
}

/// What is at a place, or is taken to be there, as an assignment or a removal remembers it.
pub(crate) fn seen(spot: &Location<'_>) -> ObservedValue {
    spot.found.map(Content::of).into()
}

impl fmt::Debug for ValuePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Part").field(&self.source).finish()
    }
}

//! `Watch<T>`: being notified when a value changes, instead of polling it.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;

use crate::base::callback::is_io_thread;
use crate::base::clock::has_expired;
use crate::base::clock::{Deadline, Monotonic};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::waiting::{Alarm, Signal, block_on, until};
use crate::client::shared::Shared;
use crate::client::slot::Slot;
use crate::handle::key::Key;
use crate::handle::memory::Memory;
use crate::handle::path::ValuePath;
use crate::handle::reader::{SlotReader, WatchView};
use crate::handle::synced::Synced;
use crate::handle::value::Value;
use crate::value::envelope::Text;
use crate::value::mutation::Content;

/// Yields a value whenever it has changed, whoever changed it.
///
#[doc = include_str!("../../watching.md")]
#[must_use = "a watch does nothing unless it is received from"]
pub struct Watch<T> {
    watched: Watched,
    item: Item<T>,
}

/// Turns what has changed into an item.
type Item<T> = Box<
    dyn Fn(&[WatchedPath], Vec<WatchEvent>) -> Result<Option<T>>
        + Send
        + Sync
        + UnwindSafe
        + RefUnwindSafe,
>;

/// The paths that are watched, each with its last value. It holds the slots, but nothing that keeps
/// the memory open.
struct Watched {
    shared: Arc<Shared>,
    signal: Arc<Signal>,
    paths: Vec<WatchedPath>,
    /// A slot of no key, if there are no paths: through it the end of the memory is signalled.
    _end: Option<Slot>,
    has_begun: bool,
    /// There may be changes of which there was no signal.
    look_again: bool,
    /// When the next of the values expires.
    alarm: Option<Alarm>,
    /// Why there are no more items.
    over: Option<Error>,
    /// An iterator or a stream has returned that reason, and ends.
    is_end_reported: bool,
}

/// One path.
struct WatchedPath {
    reader: SlotReader,
    version: Option<u64>,
    expires: Option<Monotonic>,
    last: Option<LastValue>,
}

/// What was last at a path.
#[derive(Debug, PartialEq)]
enum LastValue {
    Nothing,
    Value(Content),
    Error(ErrorKind),
}

/// The new value at a path.
struct WatchEvent {
    /// The position of the path among those watched.
    index: usize,
    value: Result<Option<Text>>,
}

impl Memory {
    /// Watches the value under `key`: the current one first, then each new one.
    ///
    /// ```
    /// use synced_memory::{Key, Memory};
    ///
    /// let memory = Memory::open("memory:")?;
    /// let visits = Key::<u64>::new("visits");
    /// let mut watch = memory.watch(&visits);
    /// assert_eq!(watch.recv()?, None);
    /// memory.set(&visits, 1)?;
    /// assert_eq!(watch.recv()?, Some(1));
    /// # Ok::<(), synced_memory::Error>(())
    /// ```
    pub fn watch<T: Value>(&self, key: &Key<T>) -> Watch<T> {
        let spec = key.spec();
        let names = std::iter::once(key.name()).chain(spec.aliases.iter().copied());
        let slots = names.map(|name| self.lone_slot(name)).collect();
        Watch::of_value(
            self,
            &SlotReader::root(self.shared(), slots),
            spec.nested.is_some(),
        )
    }
}

impl<T: Value> Synced<T> {
    /// Watches the value, or the part of a value that this is: the current one first, then each new
    /// one.
    ///
    /// ```
    /// use synced_memory::{Key, Memory};
    ///
    /// let memory = Memory::open("memory:")?;
    /// let scores = memory.synced(&Key::<Vec<u32>>::new("scores"));
    /// scores.extend([3, 5])?;
    /// let mut first = scores.at(0).watch();
    /// assert_eq!(first.recv()?, Some(3));
    /// scores.push(7)?;                             // does not change the first one
    /// scores.at(0).add(1)?;
    /// assert_eq!(first.recv()?, Some(4));
    /// # Ok::<(), synced_memory::Error>(())
    /// ```
    pub fn watch(&self) -> Watch<T> {
        Watch::of_value(self.path().memory(), self.path().reader(), self.is_nested())
    }
}

impl<T: Value> Watch<T> {
    fn of_value(memory: &Memory, reader: &SlotReader, nested: bool) -> Self {
        let decode = move |paths: &[WatchedPath], mut changes: Vec<WatchEvent>| {
            let Some(WatchEvent { index, value }) = changes.pop() else {
                return Ok(None);
            };
            let decode = |text: Text| paths[index].reader.decode(text.as_str(), nested);
            value?.map(decode).transpose()
        };
        Self {
            watched: Watched::begin(memory, [reader]),
            item: Box::new(decode),
        }
    }
}

impl Watch<Vec<&'static str>> {
    /// The names of the paths that have changed; at first all of them.
    pub(crate) fn of_paths(
        memory: &Memory,
        paths: &[&ValuePath],
        names: &'static [&'static str],
    ) -> Self {
        let item = move |_: &[WatchedPath], changes: Vec<WatchEvent>| {
            let name = |change: &WatchEvent| names.get(change.index).copied();
            Ok(Some(changes.iter().filter_map(name).collect()))
        };
        let watched = Watched::begin(memory, paths.iter().map(|path| path.reader()));
        Self {
            watched,
            item: Box::new(item),
        }
    }
}

impl<T> Watch<T> {
    /// Waits for the next value, and returns it; the first time the current one, as soon as that is
    /// known. `None`: it is not set, or was deleted.
    ///
    /// # Errors
    ///
    /// `Closed` once the memory is closed, or its last handle was dropped: from then on always.
    /// `Config` if a name is invalid: always. `Decode` if something other than a `T` is stored, and
    /// `Rejected` if the server refuses the key: once, and the watch goes on. `Timeout` if there is
    /// nothing new in a waker that runs on the thread of a memory, which cannot wait.
    pub fn recv(&mut self) -> Result<Option<T>> {
        self.recv_within(None)
    }

    /// As [`recv`](Watch::recv), but waits for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout` if there is nothing new by then; otherwise as [`recv`](Watch::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<T>> {
        self.recv_within(Some(timeout))
    }

    fn recv_within(&mut self, timeout: Option<Duration>) -> Result<Option<T>> {
        let changed = poll_fn(|context| self.poll_changed(context));
        wait_within(changed, timeout).unwrap_or_else(Err)
    }

    /// As [`recv`](Watch::recv), in async code: it runs on any executor. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    ///
    /// As [`recv`](Watch::recv).
    pub async fn changed(&mut self) -> Result<Option<T>> {
        poll_fn(|context| self.poll_changed(context)).await
    }

    fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<T>>> {
        let changes = ready!(self.watched.poll(context))?;
        Poll::Ready((self.item)(&self.watched.paths, changes))
    }

    /// As [`poll_changed`](Watch::poll_changed), but ends after the last error.
    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Option<T>>>> {
        if self.watched.is_end_reported {
            return Poll::Ready(None);
        }
        let item = ready!(self.poll_changed(context));
        self.watched.is_end_reported = self.watched.over.is_some();
        Poll::Ready(Some(item))
    }
}

/// Waits on this thread; on an I/O thread it only looks.
///
/// # Errors
///
/// `Timeout`.
fn wait_within<F: Future>(future: F, timeout: Option<Duration>) -> Result<F::Output> {
    let timeout = match timeout {
        _ if is_io_thread() => Duration::ZERO,
        None => return Ok(block_on(future)),
        Some(timeout) => timeout,
    };
    block_on(until(future, Deadline::after(timeout))).ok_or_else(|| {
        let what = format!("nothing has changed within {timeout:?}");
        Error::new(ErrorKind::Timeout, what)
    })
}

impl Watched {
    fn begin<'a>(memory: &Memory, readers: impl IntoIterator<Item = &'a SlotReader>) -> Self {
        let (shared, signal) = (memory.shared(), Arc::default());
        let mut slots: HashMap<Arc<str>, Arc<Slot>> = HashMap::new();
        let mut hold = |key: &Arc<str>| {
            let slot = slots.entry(Arc::clone(key)).or_insert_with(|| {
                let slot = Slot::hold(shared, Arc::clone(key));
                slot.keep_near();
                Arc::new(slot.watched(&signal))
            });
            Arc::clone(slot)
        };
        let paths: Vec<_> = readers
            .into_iter()
            .map(|reader| WatchedPath::of(reader.in_slots(&mut hold)))
            .collect();
        let over = paths.iter().find_map(|path| path.reader.slots().err());
        let end = paths
            .is_empty()
            .then(|| Slot::hold(shared, memory.prefix()).watched(&signal));
        let shared = Arc::clone(shared);
        Self {
            shared,
            signal,
            paths,
            _end: end,
            has_begun: false,
            look_again: true,
            alarm: None,
            over,
            is_end_reported: false,
        }
    }

    /// Ready with what has changed: at first everything, once all of it is known; or with the
    /// reason why there are no more items.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<WatchEvent>>> {
        loop {
            if self.over.is_none() && self.shared.is_inherited() {
                // Nobody raises it in the child of a fork.
                self.over = self.shared.check_open().err();
            }
            if let Some(over) = &self.over {
                return Poll::Ready(Err(over.clone()));
            }
            let is_raised = self.signal.poll(context).is_ready();
            let is_due = self
                .alarm
                .as_mut()
                .is_some_and(|alarm| alarm.poll(context).is_ready());
            if !(is_raised || is_due || self.look_again) {
                return Poll::Pending;
            }

            // Before the look: what was written before the end is reported before the end.
            let open = self.shared.check_open();
            let changes = self.changes();
            self.look_again = changes.is_some() && open.is_err();
            match changes {
                Some(changes) => return Poll::Ready(Ok(changes)),
                None => self.over = open.err(),
            }
        }
    }

    fn changes(&mut self) -> Option<Vec<WatchEvent>> {
        let mono = self.shared.clock.mono();
        let event = |(index, path): (usize, &mut WatchedPath)| {
            let value = path.new_value(mono)?;
            Some(WatchEvent { index, value })
        };
        let paths = self.paths.iter_mut().enumerate();
        let changes: Vec<_> = paths.filter_map(event).collect();

        let expires = self.paths.iter().filter_map(|path| path.expires).min();
        self.alarm =
            expires.map(|expires| Alarm::at(Deadline::after(expires.saturating_sub(mono))));

        if self.has_begun {
            return Some(changes).filter(|changes| !changes.is_empty());
        }
        self.has_begun = self.paths.iter().all(|path| path.last.is_some());
        if self.has_begun {
            return Some(changes);
        }
        // The first item has all of them, and not all are known yet.
        self.paths.iter_mut().for_each(WatchedPath::reset);
        None
    }
}

impl WatchedPath {
    fn of(reader: SlotReader) -> Self {
        Self {
            reader,
            version: None,
            expires: None,
            last: None,
        }
    }

    /// What is there, if that has changed.
    fn new_value(&mut self, mono: Monotonic) -> Option<Result<Option<Text>>> {
        if self.version == self.reader.version().ok() && !has_expired(self.expires, mono) {
            return None;
        }
        let WatchView {
            version,
            expires,
            found,
        } = self.reader.watch_view().ok()?;
        (self.version, self.expires) = (Some(version), expires);
        let found = found?;
        let last = Some(match &found {
            Ok(None) => LastValue::Nothing,
            Ok(Some(text)) => LastValue::Value(Content::keyed(text.as_str())),
            Err(error) => LastValue::Error(error.kind()),
        });
        (std::mem::replace(&mut self.last, last) != self.last).then_some(found)
    }

    fn reset(&mut self) {
        (self.version, self.last) = (None, None);
    }
}

/// The items of a [`Watch`], each as soon as there is one.
#[derive(Debug)]
#[must_use = "iterators are lazy"]
pub struct WatchIter<T>(Watch<T>);

impl<T> Iterator for WatchIter<T> {
    type Item = Result<Option<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = poll_fn(|context| self.0.poll_item(context));
        wait_within(item, None).unwrap_or_else(|timeout| Some(Err(timeout)))
    }
}

impl<T> IntoIterator for Watch<T> {
    type Item = Result<Option<T>>;
    type IntoIter = WatchIter<T>;

    fn into_iter(self) -> WatchIter<T> {
        WatchIter(self)
    }
}

impl<T> Stream for Watch<T> {
    type Item = Result<Option<T>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_item(context)
    }
}

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readers = self.watched.paths.iter().map(|path| &path.reader);
        f.debug_list().entries(readers).finish()
    }
}

//! Events of `tracing`, which run code of a subscriber: it may make any call, and may be slow.
//!
//! The only file that names `tracing`. An event is made wherever something happens, under a lock
//! too, and emitted when no lock is held. Those of an I/O thread are emitted on a thread of their
//! own, so that a slow subscriber delays neither the connection nor other callers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use crate::base::callback::{call_out, is_io_thread};
use crate::base::lock::lock;

/// How many events wait for a slow subscriber at most.
const LONGEST_QUEUE: usize = 1_000;

/// An event that is to be emitted; nothing if no subscriber wants its level.
pub(crate) struct LogEvent(Option<Box<dyn FnOnce() + Send>>);

/// Makes a [`LogEvent`]: `event!(WARN, key = &*key, "what has happened")`. It owns what its fields
/// name.
macro_rules! event {
    ($level:ident, $($fields:tt)+) => {
        $crate::base::events::LogEvent::new(
            $crate::base::events::Level::$level,
            move || $crate::base::events::tracing_event!(
                $crate::base::events::Level::$level,
                $($fields)+
            ),
        )
    };
}
pub(crate) use event;
pub(crate) use tracing::{Level, event as tracing_event};

/// Whether there is anybody to whom an event says something.
pub(crate) fn has_subscriber() -> bool {
    tracing::level_filters::LevelFilter::current() != tracing::level_filters::LevelFilter::OFF
}

impl LogEvent {
    pub(crate) fn new(level: Level, emit: impl FnOnce() + Send + 'static) -> Self {
        let is_wanted = level <= tracing::level_filters::LevelFilter::current();
        Self(is_wanted.then(|| -> Box<dyn FnOnce() + Send> { Box::new(emit) }))
    }

    /// Emits it on this thread.
    pub(crate) fn emit(self) {
        if let Some(emit) = self.0 {
            call_out(emit);
        }
    }
}

impl fmt::Debug for LogEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogEvent")
    }
}

/// Emits the events of one memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventEmitter(Arc<Mutex<EventQueue>>);

/// The events that wait, and the thread that emits them. It lives while there are any.
#[derive(Debug, Default)]
struct EventQueue {
    waiting: VecDeque<LogEvent>,
    /// How many were dropped, since there were too many.
    dropped: usize,
    is_running: bool,
    thread: Option<JoinHandle<()>>,
}

impl EventEmitter {
    /// Emits an event: on this thread, unless that is an I/O thread.
    pub(crate) fn emit(&self, event: LogEvent) {
        if event.0.is_none() {
            return;
        }
        if is_io_thread() {
            self.emit_elsewhere(event);
        } else {
            event.emit();
        }
    }

    /// Emits an event on a thread of its own: for code that may run under a lock.
    pub(crate) fn emit_elsewhere(&self, event: LogEvent) {
        if event.0.is_none() {
            return;
        }

        let mut queue = lock(&self.0);
        if queue.waiting.len() >= LONGEST_QUEUE {
            queue.dropped += 1;
            return;
        }
        queue.waiting.push_back(event);
        if queue.is_running {
            return;
        }
        let emitter = self.clone();
        let name = "synced-memory-log".to_owned();
        // If no thread can be started now, the next event starts one.
        if let Ok(thread) = Builder::new().name(name).spawn(move || emitter.run()) {
            (queue.is_running, queue.thread) = (true, Some(thread));
        }
    }

    /// Emits what waits, until nothing does.
    fn run(&self) {
        while let Some(event) = self.next() {
            event.emit();
        }
    }

    fn next(&self) -> Option<LogEvent> {
        let mut queue = lock(&self.0);
        let dropped = std::mem::take(&mut queue.dropped);
        if dropped > 0 {
            let what = "events were dropped, since the subscriber is too slow";
            return Some(event!(WARN, dropped, "{what}"));
        }
        let next = queue.waiting.pop_front();
        queue.is_running = next.is_some();
        next
    }

    /// Waits until everything that was emitted has reached the subscriber.
    pub(crate) fn finish(&self) {
        let thread = lock(&self.0).thread.take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        // Those for which no thread could be started.
        self.run();
    }
}

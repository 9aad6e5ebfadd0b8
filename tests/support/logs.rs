use std::fmt::{self, Debug};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// What the process logged, in order. Tests of one process share it: the library logs on its own
/// threads, which no test can claim.
static LOG: Mutex<Vec<Event>> = Mutex::new(Vec::new());
static INSTALLED: OnceLock<()> = OnceLock::new();

/// An event of the library.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its severity.
    pub level: Level,
    /// The module that it comes from.
    pub target: String,
    /// The message.
    pub message: String,
    /// The other fields, as they would be printed.
    pub fields: Vec<(String, String)>,
}

impl Event {
    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.level, self.target, self.message)?;
        self.fields
            .iter()
            .try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// The library's `tracing` events since [`Logs::capture`], from all threads of this process.
///
/// Other tests of the same process may log meanwhile: look for what only this test can have
/// caused (its port, its prefix).
#[derive(Debug)]
pub struct Logs {
    from: usize,
}

impl Logs {
    /// From now on.
    pub fn capture() -> Self {
        INSTALLED.get_or_init(|| {
            let subscriber = tracing_subscriber::registry().with(Keeper);
            tracing::subscriber::set_global_default(subscriber)
                .expect("no other code installs a subscriber");
        });
        Self {
            from: LOG.lock().unwrap_or_else(PoisonError::into_inner).len(),
        }
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner)[self.from..].to_vec()
    }

    /// Those whose message or fields contain `text`.
    pub fn containing(&self, text: &str) -> Vec<Event> {
        let mut events = self.events();
        events.retain(|event| event.to_string().contains(text));
        events
    }
}

struct Keeper;

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if !metadata.target().starts_with("synced_memory") {
            return;
        }
        let mut kept = Event {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut kept);
        LOG.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(kept);
    }
}

impl Visit for Event {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields
                .push((field.name().to_owned(), format!("{value:?}")));
        }
    }
}

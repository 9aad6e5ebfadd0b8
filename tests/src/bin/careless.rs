//! A program that sets a value and ends, and looks at nothing: `careless URL [subscriber]`.

use synced_memory::{Key, Memory};
use tracing_subscriber::layer::SubscriberExt;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().expect("a URL");
    if arguments.next().is_some() {
        let subscriber = tracing_subscriber::registry().with(Deaf);
        tracing::subscriber::set_global_default(subscriber).expect("it is the first");
    }
    let memory = Memory::open(&url).expect("a memory");
    memory.set(&Key::new("n"), 1).expect("queued");
}

/// It listens, and says nothing.
struct Deaf;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Deaf {}

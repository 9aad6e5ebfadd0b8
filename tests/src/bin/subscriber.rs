//! Another process, whose subscriber uses the memory from every event. `subscriber <url>`: it
//! answers each line of its stdin with one line that begins with the same word.
//!
//! - `set`, `read`: what a call of the main thread returned
//! - `call`: has another thread write, and does not wait for it
//! - `events`: on which threads there were events, with what their calls returned; each once
//! - `block`, `is_blocked`, `unblock`: the next event does not return until it is unblocked

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::stdin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, OnceLock};
use std::thread;

use synced_memory::{Error, Key, Memory, ReadPolicy, Synced};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static NUMBER: Key<i64> = Key::new("number");
static MEMORY: OnceLock<(Memory, Synced<i64>)> = OnceLock::new();
static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static BLOCKS: (Mutex<Block>, Condvar) = (Mutex::new(Block::No), Condvar::new());

#[derive(PartialEq)]
enum Block {
    No,
    Next,
    Blocking,
}

thread_local! {
    /// The calls of an event cause events themselves.
    static IS_IN_EVENT: Cell<bool> = const { Cell::new(false) };
}

struct Asking;

impl Subscriber for Asking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= &Level::DEBUG && metadata.target().starts_with("synced_memory")
    }

    fn event(&self, event: &Event<'_>) {
        let Some((memory, near)) = MEMORY.get() else {
            return;
        };
        if IS_IN_EVENT.replace(true) {
            return;
        }
        block_if_asked();
        let mut message = Message(String::new());
        event.record(&mut message);
        let answers = every_call(memory, near);
        let thread = thread::current();
        let name = thread.name().unwrap_or("another").to_owned();
        let line = format!("{name}: {}: {answers}", message.0);
        SEEN.lock().unwrap().insert(line);
        IS_IN_EVENT.set(false);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

fn block_if_asked() {
    let (blocks, unblocked) = &BLOCKS;
    let mut block = blocks.lock().unwrap();
    if *block == Block::Next {
        *block = Block::Blocking;
        while *block == Block::Blocking {
            block = unblocked.wait(block).unwrap();
        }
    }
}

/// What each kind of call returns: the name of what it returned, or the kind of its error.
fn every_call(memory: &Memory, near: &Synced<i64>) -> String {
    fn said<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
        result.map_or_else(
            |error| error.kind().as_str().to_owned(),
            |value| format!("{value:?}"),
        )
    }
    let status = memory.status();
    format!(
        "status={} get={} near={} set={} update={} confirmed={} names={}",
        status.oldest_pending.is_none() || status.pending > 0,
        said(memory.get(&NUMBER)),
        said(near.find().map(|_| "read")),
        said(memory.set(&Key::new("other"), 2_i64)),
        said(
            memory.update(&Key::new("third"), |value: &mut Option<i64>| *value =
                Some(3))
        ),
        said(memory.synced(&Key::new("fourth")).confirmed().set(4_i64)),
        said(memory.names().map(|_| "read")),
    )
}

fn main() {
    let url = std::env::args().nth(1).expect("subscriber <url>");
    tracing::subscriber::set_global_default(Asking).expect("the only one");
    let memory = Memory::open(&url).expect("it opens");
    let nearby = Memory::builder()
        .url(&url)
        .read_policy(ReadPolicy::Near)
        .build()
        .expect("it opens");
    let near = nearby.synced(&Key::new("near"));
    memory.set(&NUMBER, 1).expect("it can be written");
    let _ = near.find();
    let _ = MEMORY.set((memory.clone(), near));

    // The calls that may block are made on a thread of their own, which says so when it is done.
    let (orders, inbox) = channel::<String>();
    let of_thread = memory.clone();
    thread::Builder::new()
        .name("caller".to_owned())
        .spawn(move || call_back(&of_thread, &inbox))
        .expect("a thread can be started");
    serve(&memory, &orders);
    std::process::exit(0);
}

/// Makes one call for each order, whose event may block.
fn call_back(memory: &Memory, orders: &Receiver<String>) {
    for key in orders {
        let _ = memory.set(&Key::named(key), 5_i64);
    }
}

fn serve(memory: &Memory, caller: &Sender<String>) {
    for line in stdin().lines().map_while(Result::ok) {
        match line.as_str() {
            "set" => println!("set {:?}", memory.set(&Key::new("of_main"), 6_i64)),
            "read" => println!("read {:?}", memory.get(&NUMBER)),
            "events" => {
                let seen = std::mem::take(&mut *SEEN.lock().unwrap());
                let lines: Vec<_> = seen.into_iter().collect();
                println!("events {}", lines.join("; "));
            }
            "block" => {
                *BLOCKS.0.lock().unwrap() = Block::Next;
                println!("block");
            }
            "call" => {
                caller
                    .send("of_caller".to_owned())
                    .expect("it takes orders");
                println!("call");
            }
            "is_blocked" => {
                let is_blocked = *BLOCKS.0.lock().unwrap() == Block::Blocking;
                println!("is_blocked {is_blocked}");
            }
            "unblock" => {
                *BLOCKS.0.lock().unwrap() = Block::No;
                BLOCKS.1.notify_all();
                println!("unblock");
            }
            other => panic!("{other}?"),
        }
    }
}

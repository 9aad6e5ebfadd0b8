//! A fleet: what many processes cost a server, and each other.
//!
//! `cargo bench -p synced-memory-benches --bench fleet` measures everything; a part is measured by
//! its name: `cargo bench -p synced-memory-benches --bench fleet -- writes delivery`. The parts are
//! those of [`PARTS`]. The other processes are this program, started again (`member.rs`).
//!
//! - `writes.rs`: what near keys of others cost a write of another key, and a write of theirs
//! - `capacity.rs`: what grows with the number of processes and keys

mod capacity;
mod member;
mod writes;

use synced_memory_benches::processes::WORD;

/// What can be measured, by its name.
const PARTS: &[(&str, fn())] = &[
    ("writes", writes::of_another_key),
    ("delivery", writes::delivery),
    ("restart", capacity::restart),
    ("contention", capacity::contention),
    ("records", capacity::records),
    ("connections", capacity::connections),
    ("near_keys", capacity::near_keys),
    ("idle", capacity::idle),
    ("scans", capacity::scans),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == WORD) {
        return member::run(&arguments[1..]);
    }
    // Cargo gives its own options to each measurement.
    let wanted: Vec<_> = arguments
        .iter()
        .filter(|name| !name.starts_with('-'))
        .collect();
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            println!("--- {name}");
            measure();
        }
    }
    for name in wanted {
        let is_known = PARTS.iter().any(|(part, _)| part == name);
        assert!(is_known, "there is no part `{name}`");
    }
}

//! The contract of a session, on every backend: what holds on one holds on all.
//!
//! The same requests go to a backend and to a fresh `memory:`; this is also what holds
//! `commit.lua`, the file and `commit.rs` together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::process::ProcessBackend;
use super::{Backend, Session};
use crate::backend::commit::{
    Attempt, Expects, KeyChange, KeyState, Outcome, RECORDS, Sequence, TimeToLive, Writer,
};
use crate::base::clock::{self, Stamp};

const DAY: Duration = Duration::from_secs(24 * 3600);
const DEADLINE: Duration = Duration::from_secs(10);

/// A backend, and what its sessions need to be asked.
struct Subject {
    backend: Box<dyn Backend>,
    runtime: tokio::runtime::Runtime,
    _keeps: Box<dyn std::any::Any>,
}

impl Subject {
    fn of(backend: impl Backend, keeps: impl std::any::Any) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            backend: Box::new(backend),
            runtime,
            _keeps: Box::new(keeps),
        }
    }

    fn process() -> Self {
        Self::of(ProcessBackend::open("", DAY), ())
    }

    fn connect(&self) -> TestSession<'_> {
        TestSession {
            place: self,
            session: self.runtime.block_on(self.backend.connect()).unwrap(),
        }
    }
}

/// A session whose answers are waited for.
struct TestSession<'a> {
    place: &'a Subject,
    session: Box<dyn Session>,
}

impl TestSession<'_> {
    fn wait<T>(&self, reply: super::Reply<T>) -> T {
        self.place.runtime.block_on(reply).unwrap()
    }

    fn read(&self, key: &str) -> Option<Bytes> {
        self.wait(self.session.read(&[key.into()]))
            .remove(0)
            .unwrap()
    }

    fn commit_all(&self, batch: &[Attempt]) -> Vec<Outcome> {
        let answers = self.wait(self.session.commit(batch, clock::wall()));
        answers
            .into_iter()
            .map(|answer| uncontended(answer.unwrap()))
            .collect()
    }

    fn commit(&self, attempt: &Attempt) -> Outcome {
        self.commit_all(std::slice::from_ref(attempt)).remove(0)
    }

    /// All names below a prefix, page by page.
    fn names(&self, prefix: &str) -> Vec<String> {
        let (mut names, mut cursor) = (BTreeSet::new(), None);
        loop {
            let (page, next) = self.wait(self.session.names(prefix, cursor));
            names.extend(page);
            cursor = next;
            if cursor.is_none() {
                return names.into_iter().collect();
            }
        }
    }
}

/// Who else was refused before is not part of the rule: it is told where it is known.
fn uncontended(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Applied { existed, .. } => Outcome::Applied {
            existed,
            contended: None,
        },
        other => other,
    }
}

const NEW: Outcome = Outcome::Applied {
    existed: false,
    contended: None,
};
const REPLACED: Outcome = Outcome::Applied {
    existed: true,
    contended: None,
};

fn envelope(value: &str, stamp: u64) -> Bytes {
    Bytes::from(format!(r#"{{"value": {value},"last_modified": {stamp}}}"#))
}

fn put(key: &str, writer: Writer, sequence: Sequence, stamp: u64) -> Attempt {
    let envelope = envelope(&format!("\"{writer}/{sequence}\""), stamp);
    Attempt {
        key: key.into(),
        writer,
        sequence,
        stamp: Stamp::new(stamp),
        change: KeyChange::Put {
            envelope,
            ttl: TimeToLive::Keep,
        },
        expects: Expects::Anything,
        retry: None,
        recorded: None,
    }
}

fn delete(key: &str, writer: Writer, sequence: Sequence, stamp: u64) -> Attempt {
    Attempt {
        change: KeyChange::Delete,
        ..put(key, writer, sequence, stamp)
    }
}

fn with_ttl(attempt: Attempt, ttl: TimeToLive) -> Attempt {
    let KeyChange::Put { envelope, .. } = attempt.change else {
        panic!("a delete has no time to live")
    };
    Attempt {
        change: KeyChange::Put { envelope, ttl },
        ..attempt
    }
}

/// A thousand requests drawn at random, of which many meet a tombstone, a newer stamp, something
/// unexpected or a record.
fn any_history_is_answered_as_in_this_process(place: &Subject) {
    for seed in 0..4 {
        let (reference, mut random) = (Subject::process(), fastrand::Rng::with_seed(seed));
        let (expected, asked, other) = (reference.connect(), place.connect(), place.connect());
        let mut sequences = [0; 4];
        for round in 0..250 {
            let key = format!("history{seed}:{}", random.usize(0..3));
            let writer = random.usize(0..sequences.len());
            let is_new = random.u8(0..4) > 0;
            sequences[writer] += u64::from(is_new);
            let (id, stamp) = (
                u64::MAX - writer as u64 - 10 * seed,
                round / 3 + random.u64(0..5),
            );
            let mut attempt = match random.u8(0..4) {
                0 => delete(&key, id, sequences[writer], stamp),
                _ => put(&key, id, sequences[writer], stamp),
            };
            if let (KeyChange::Put { envelope, .. }, 0) = (&mut attempt.change, random.u8(0..6)) {
                // What somebody else may have stored.
                *envelope = Bytes::from_static(b"[1, 2]");
            }
            let stored = expected.read(&key);
            attempt.expects = match random.u8(0..8) {
                0 => Expects::Nothing,
                1 => Expects::Absent,
                2 | 3 => Expects::of(stored.as_ref()),
                4 => Expects::of(Some(&envelope("\"0/1\"", stamp))),
                _ => Expects::Anything,
            };
            attempt.retry = (!is_new || random.u8(0..8) == 0).then_some(Duration::ZERO);
            // Right or wrong, it changes nothing.
            attempt.recorded = random
                .bool()
                .then(|| sequences[writer].saturating_sub(random.u64(0..3)));
            // On one session or the other: they are of one place.
            let session = if random.bool() { &asked } else { &other };
            assert_eq!(
                session.commit(&attempt),
                expected.commit(&attempt),
                "{seed}/{round}: {attempt:?}"
            );
            assert_eq!(
                asked.read(&key),
                expected.read(&key),
                "{seed}/{round}: {attempt:?}"
            );
            if random.u8(0..20) == 0 {
                for session in [&asked, &expected] {
                    session.wait(session.session.forget(id, &[key.as_str().into()]));
                }
            }
        }
    }
}

fn a_batch_is_answered_in_its_order_each_key_for_itself(place: &Subject) {
    let asked = place.connect();
    assert_eq!(asked.commit(&put("batch:b", 1, 1, 9)), NEW);
    let batch = [
        put("batch:a", 1, 2, 5),
        put("batch:b", 1, 3, 5),
        delete("batch:c", 1, 4, 5),
        put("batch:d", 1, 5, 5),
    ];
    let answers = asked.commit_all(&batch);
    let refused = KeyState {
        stored: Some(envelope("\"1/1\"", 9)),
        tombstone: Stamp::ZERO,
    };
    assert_eq!(answers, [NEW, Outcome::Refused(refused), NEW, NEW]);
    let keys: Vec<Arc<str>> = ["batch:d", "batch:x", "batch:a"].map(Arc::from).to_vec();
    let read: Vec<_> = asked
        .wait(asked.session.read(&keys))
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        read,
        [
            Some(envelope("\"1/5\"", 5)),
            None,
            Some(envelope("\"1/2\"", 5))
        ]
    );
    assert_eq!(asked.commit_all(&[]), []);
    assert_eq!(asked.wait(asked.session.read(&[])).len(), 0);
}

fn a_delete_stays_and_an_older_write_does_not_bring_the_key_back(place: &Subject) {
    let asked = place.connect();
    assert_eq!(asked.commit(&put("deleted", 1, 1, 5)), NEW);
    assert_eq!(asked.commit(&delete("deleted", 1, 2, 7)), REPLACED);
    for older in [6, 7] {
        let found = KeyState {
            stored: None,
            tombstone: Stamp::new(7),
        };
        assert_eq!(
            asked.commit(&put("deleted", 2, older, older)),
            Outcome::Refused(found)
        );
    }
    assert_eq!(place.connect().read("deleted"), None);
    assert_eq!(asked.commit(&put("deleted", 2, 8, 8)), NEW);
}

fn a_time_to_live_is_kept_set_and_taken_away(place: &Subject) {
    let asked = place.connect();
    let short = TimeToLive::For(Duration::from_millis(300));
    for (key, sequence, then) in [("kept", 1, TimeToLive::Keep), ("shortened", 2, short)] {
        let first = TimeToLive::For(if key == "kept" {
            Duration::from_millis(300)
        } else {
            DAY
        });
        assert_eq!(
            asked.commit(&with_ttl(put(key, 1, 10 * sequence, 5), first)),
            NEW
        );
        assert_eq!(
            asked.commit(&with_ttl(put(key, 1, 10 * sequence + 1, 6), then)),
            REPLACED
        );
        let end = clock::Deadline::after(DEADLINE);
        while asked.read(key).is_some() {
            assert!(!end.remaining().is_zero(), "{key} does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(!asked.names(key).contains(&key.to_owned()));
        // It is as if it had never been, its time to live included.
        assert_eq!(asked.commit(&put(key, 1, 10 * sequence + 2, 7)), NEW);
        assert!(asked.read(key).is_some());
    }
    let ends = clock::Deadline::after(Duration::from_millis(310));
    assert_eq!(asked.commit(&with_ttl(put("freed", 1, 1, 5), short)), NEW);
    assert_eq!(
        asked.commit(&with_ttl(put("freed", 1, 2, 6), TimeToLive::Never)),
        REPLACED
    );
    while !ends.remaining().is_zero() {
        std::thread::sleep(ends.remaining());
    }
    assert!(asked.read("freed").is_some() && asked.read("kept").is_some());
}

fn names_come_page_by_page_and_their_prefix_is_meant_literally(place: &Subject) {
    let asked = place.connect();
    let odd = ["a*b?[c]\\%_^'\"", "é", "é%", "\u{10ffff}", "x y", "a\0b"];
    for (number, prefix) in odd.iter().enumerate() {
        let number = 10 * number as u64;
        for (step, name) in ["", ":", "n", "ü"].iter().enumerate() {
            asked.commit(&put(
                &format!("odd:{prefix}{name}"),
                1,
                number + step as u64 + 1,
                5,
            ));
        }
        asked.commit(&delete(&format!("odd:{prefix}n"), 1, number + 9, 6));
    }
    for prefix in odd {
        let expected: BTreeSet<String> = odd
            .iter()
            .flat_map(|other| ["", ":", "ü"].map(|name| format!("odd:{other}{name}")))
            .collect();
        let expected: Vec<String> = expected
            .into_iter()
            .filter(|name| name.starts_with(&format!("odd:{prefix}")))
            .collect();
        assert_eq!(asked.names(&format!("odd:{prefix}")), expected);
        assert_eq!(asked.read(&format!("odd:{prefix}n")), None);
        assert!(asked.read(&format!("odd:{prefix}ü")).is_some());
    }
    let many: Vec<_> = (0..2_500)
        .map(|number| put(&format!("many:{number:04}"), 1, number + 1, 5))
        .collect();
    for batch in many.chunks(500) {
        asked.commit_all(batch);
    }
    asked.commit(&put("many;", 1, 1, 5));
    assert_eq!(
        asked.names("many:"),
        many.iter()
            .map(|put| put.key.to_string())
            .collect::<Vec<_>>()
    );
    assert_eq!(asked.names("many:2499"), ["many:2499"]);
    assert_eq!(asked.names("nothing"), [""; 0]);
}

fn what_is_recorded_is_not_made_again_and_what_was_dropped_is_not_guessed(place: &Subject) {
    let asked = place.connect();
    let retry = |attempt: Attempt| Attempt {
        retry: Some(Duration::from_secs(1)),
        ..attempt
    };
    let most = RECORDS as u64;
    for writer in 1..=most + 1 {
        let existed = writer > 1;
        assert_eq!(
            asked.commit(&put("busy", writer, 1, writer)),
            Outcome::Applied {
                existed,
                contended: None
            }
        );
    }
    let last = put("busy", most + 1, 1, most + 1);
    let found = || KeyState {
        stored: asked.read("busy"),
        tombstone: Stamp::ZERO,
    };
    assert_eq!(asked.commit(&retry(last)), Outcome::AlreadyApplied(found()));
    assert_eq!(
        asked.commit(&retry(put("busy", 1, 1, 9_999))),
        Outcome::RecordExpired(found())
    );
    // What is tried for the first time needs no record.
    assert_eq!(asked.commit(&put("busy", 2, 2, 9_999)), REPLACED);
}

fn a_large_value_comes_back_byte_for_byte(place: &Subject) {
    let asked = place.connect();
    let value = format!("\"{}\"", "é\\u0000".repeat(500_000));
    let large = envelope(&value, 5);
    let change = KeyChange::Put {
        envelope: large.clone(),
        ttl: TimeToLive::Keep,
    };
    assert_eq!(
        asked.commit(&Attempt {
            change,
            ..put("large", 1, 1, 5)
        }),
        NEW
    );
    assert_eq!(asked.read("large"), Some(large.clone()));
    let edited = Attempt {
        expects: Expects::of(Some(&large)),
        ..put("large", 1, 2, 6)
    };
    assert_eq!(asked.commit(&edited), REPLACED);
}

fn the_clock_runs(place: &Subject) {
    let asked = place.connect();
    let (before, after) = (clock::wall(), asked.wait(asked.session.now()));
    assert!(after.abs_diff(before) < 60_000_000_000, "{before} {after}");
    assert_eq!(
        asked.wait(asked.session.eviction_policy()).is_some(),
        place.backend.target().contains("redis")
    );
}

macro_rules! on {
    ($backend:ident, $place:expr) => {
        mod $backend {
            use super::*;

            on!(@ $place, any_history_is_answered_as_in_this_process,
                a_batch_is_answered_in_its_order_each_key_for_itself,
                a_delete_stays_and_an_older_write_does_not_bring_the_key_back,
                a_time_to_live_is_kept_set_and_taken_away,
                names_come_page_by_page_and_their_prefix_is_meant_literally,
                what_is_recorded_is_not_made_again_and_what_was_dropped_is_not_guessed,
                a_large_value_comes_back_byte_for_byte,
                the_clock_runs);
        }
    };
    (@ $place:expr, $($rule:ident),+) => {
        $(#[test] fn $rule() { super::$rule(&$place) })+
    };
}

on!(process, Subject::process());
#[cfg(feature = "sqlite")]
on!(sqlite, places::sqlite());
#[cfg(all(feature = "redis", unix))]
on!(redis, places::redis());

mod places {
    use super::*;
    use std::path::PathBuf;
    use std::process::{Child, Command, Stdio};

    /// A directory that is removed in the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path =
                std::env::temp_dir().join(format!("synced-memory-{:016x}", fastrand::u64(..)));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn sqlite() -> Subject {
        let directory = Directory::new();
        let path = directory.0.join("state.db");
        Subject::of(
            crate::backend::sqlite::SqliteBackend::new(path, false, DEADLINE, DAY),
            directory,
        )
    }

    struct TestServer(Child, #[allow(dead_code)] Directory);

    impl Drop for TestServer {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[cfg(all(feature = "redis", unix))]
    pub(super) fn redis() -> Subject {
        use ::redis::{ConnectionAddr, IntoConnectionInfo};

        let directory = Directory::new();
        let socket = directory.0.join("redis.sock");
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("no redis-server in PATH: run .ci/test");
        let server = TestServer(server, directory);
        let address = ConnectionAddr::Unix(socket).into_connection_info().unwrap();
        let backend =
            crate::backend::redis::RedisBackend::new(address, "redis".to_owned(), DEADLINE, DAY);
        let place = Subject::of(backend.unwrap(), server);
        let end = clock::Deadline::after(DEADLINE);
        while let Err(error) = place.runtime.block_on(place.backend.connect()) {
            assert!(
                !end.remaining().is_zero(),
                "redis-server does not answer: {error}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        place
    }
}

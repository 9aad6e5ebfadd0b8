//! The contract suite: each check is run on every backend.
//!
//! - `commits.rs`, `parts.rs`, `large.rs`, `sessions.rs`: the checks
//! - `subjects.rs`: the backends, with a real server and a real file
//! - `faulty.rs`: faulty backends, which show that the checks notice each fault
//!
//! Many checks send the same requests to a backend and to a fresh `memory:`. They are what ensures
//! that `commit.lua`, the file and `commit.rs` follow the same rule.

mod commits;
mod faulty;
mod known;
mod large;
mod parts;
mod sessions;
mod subjects;

use std::collections::BTreeSet;
use std::future::pending;
use std::time::Duration;

use bytes::Bytes;

use crate::backend::commit::{Attempt, Expects, KeyChange, Outcome, Sequence, TimeToLive, Writer};
use crate::backend::error::BackendErrorKind;
use crate::backend::layout::Node;
#[cfg(unix)]
use crate::backend::open::Target;
use crate::backend::{Backend, Invalidation, KeyRead, ReadKind, Reply, Session, WithExpiry};
use crate::base::clock::{self, Stamp};

const DAY: Duration = Duration::from_secs(24 * 3600);
const DEADLINE: Duration = Duration::from_secs(10);

/// How long a forgetful process remembers deletes and records.
const SHORT: Duration = Duration::from_millis(50);

/// How long a session reports nothing before nothing more is expected of it.
const QUIET: Duration = Duration::from_millis(30);

/// A backend, and what its sessions need to be asked.
struct Subject {
    backend: Box<dyn Backend>,
    /// The same store, as a process has opened it whose sidecars are to be kept for `SHORT` only.
    forgetful: Box<dyn Backend>,
    /// Which of its servers is connected to.
    node: Node,
    runtime: tokio::runtime::Runtime,
    /// How long a check waits for what has to come.
    deadline: Duration,
    loss: Loss,
    _keeps: Box<dyn std::any::Any>,
}

/// How the connections of a backend are lost.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
enum Loss {
    /// They cannot be: the backend is in this process.
    Never,
    /// This closes them.
    Closed(Box<dyn Fn()>),
    /// This removes what they are connected to, and closes nothing.
    Removed(Box<dyn Fn()>),
}

impl Subject {
    /// `backends`: as all checks use it, and the forgetful one.
    fn new<B: Backend>(
        [backend, forgetful]: [B; 2],
        loss: Loss,
        keeps: impl std::any::Any,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            backend: Box::new(backend),
            forgetful: Box::new(forgetful),
            node: Node::only(),
            runtime,
            deadline: DEADLINE,
            loss,
            _keeps: Box::new(keeps),
        }
    }

    fn connect(&self) -> TestSession<'_> {
        self.connect_to(&*self.backend)
    }

    fn connect_forgetful(&self) -> TestSession<'_> {
        self.connect_to(&*self.forgetful)
    }

    fn connect_to(&self, backend: &dyn Backend) -> TestSession<'_> {
        TestSession {
            subject: self,
            inner: self.runtime.block_on(backend.connect(&self.node)).unwrap(),
        }
    }

    /// Whether `future` is ready within `limit`.
    fn is_ready_within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> bool {
        // The timer needs the runtime.
        let timeout = async { tokio::time::timeout(limit, future).await };
        self.runtime.block_on(timeout).is_ok()
    }
}

/// A session whose answers are waited for.
struct TestSession<'a> {
    subject: &'a Subject,
    inner: Box<dyn Session>,
}

impl TestSession<'_> {
    fn wait<T>(&self, reply: Reply<T>) -> T {
        self.subject.runtime.block_on(reply).unwrap()
    }

    /// What is stored, as a through read finds it.
    fn read(&self, key: &str) -> Option<Bytes> {
        let read = KeyRead::new(&key.into(), ReadKind::Through);
        let (stored, _) = match self.wait(self.inner.read(&[read])).remove(0) {
            Err(error) if error.kind == BackendErrorKind::TooLarge => {
                self.wait(self.inner.read_apart(&key.into(), false))
            }
            answer => answer.unwrap(),
        };
        stored.map(|stored| stored.to_bytes())
    }

    /// Makes one request of some reads.
    fn read_as<const N: usize>(&self, reads: [(&str, ReadKind); N]) -> [WithExpiry; N] {
        let reads = reads.map(|(key, kind)| KeyRead::new(&key.into(), kind));
        let answers = self.wait(self.inner.read(&reads)).into_iter();
        let answers: Vec<_> = answers.map(Result::unwrap).collect();
        answers.try_into().expect("an answer for each")
    }

    fn read_tracked(&self, key: &str) -> WithExpiry {
        let [answer] = self.read_as([(key, ReadKind::Tracked)]);
        answer
    }

    fn commit_all(&self, batch: &[Attempt]) -> Vec<Outcome> {
        let answers = self.wait(self.inner.commit(batch, clock::wall()));
        answers
            .into_iter()
            .map(|answer| uncontended(answer.unwrap()))
            .collect()
    }

    fn commit(&self, attempt: &Attempt) -> Outcome {
        self.commit_all(std::slice::from_ref(attempt)).remove(0)
    }

    fn track(&self) {
        self.wait(self.inner.track());
    }

    /// Whether changes of all these keys are reported before the deadline.
    fn is_notified_of(&self, keys: &[&str]) -> bool {
        self.is_notified_without(keys, "")
    }

    /// The same, and whether no change of `unwanted` is reported by then.
    fn is_notified_without(&self, keys: &[&str], unwanted: &str) -> bool {
        let mut missing: BTreeSet<_> = keys.iter().copied().collect();
        let all_reported = async {
            while !missing.is_empty() {
                match self.inner.invalidations().await.unwrap() {
                    Invalidation::All => missing.clear(),
                    Invalidation::Keys(keys) => {
                        let is_reported = |key: &str| keys.iter().any(|other| **other == *key);
                        if is_reported(unwanted) {
                            return pending().await;
                        }
                        missing.retain(|key| !is_reported(key));
                    }
                }
            }
        };
        let subject = self.subject;
        subject.is_ready_within(subject.deadline, all_reported)
    }

    /// Drops what is reported of earlier changes.
    fn drain(&self) {
        while self
            .subject
            .is_ready_within(QUIET, self.inner.invalidations())
        {}
    }

    /// All names that begin with a prefix, page by page.
    fn names(&self, prefix: &str) -> Vec<String> {
        let (mut names, mut cursor) = (BTreeSet::new(), None);
        loop {
            let page = self.wait(self.inner.names(prefix, cursor));
            names.extend(page.names);
            cursor = page.next;
            if cursor.is_none() {
                return names.into_iter().collect();
            }
        }
    }
}

/// Which other writer is starved is not part of the contract: a backend says so if it knows.
fn uncontended(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Applied { existed, .. } => Outcome::Applied {
            existed,
            contended: None,
        },
        Outcome::Added {
            before, stamp, sum, ..
        } => Outcome::Added {
            before,
            stamp,
            sum,
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
        asking: false,
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

/// Runs each check on each backend, and lists the checks for `faulty.rs`. A backend is the name of
/// its subject, and its target: a target without a row does not compile.
macro_rules! suite {
    (
        backends { $($(#[$cfg:meta])* $backend:ident: $target:pat,)+ }
        checks $checks:tt
    ) => {
        suite!(@list $checks);
        $(
            $(#[$cfg])*
            mod $backend {
                suite!(@run $backend $checks);
            }
        )+

        // Elsewhere no server is started.
        #[cfg(unix)]
        const _: fn(&Target) = |target| match target {
            $($(#[$cfg])* $target => {})+
        };
    };
    (@list { $($file:ident: $($check:ident),+;)+ }) => {
        /// Each check, with its name and the file that it is in.
        const CHECKS: &[(&str, &str, fn(&Subject))] =
            &[$($((stringify!($file), stringify!($check), $file::$check)),+),+];
    };
    (@run $backend:ident { $($file:ident: $($check:ident),+;)+ }) => {
        $($(
            #[test]
            fn $check() {
                super::$file::$check(&super::subjects::$backend());
            }
        )+)+
    };
}

suite! {
    backends {
        process: Target::Process(_),
        #[cfg(feature = "sqlite")]
        sqlite: Target::Sqlite(_),
        #[cfg(all(feature = "redis", unix))]
        redis: Target::Redis { .. },
        #[cfg(all(feature = "redis", unix))]
        sentinel: Target::Sentinel(_),
        #[cfg(all(feature = "redis", unix))]
        cluster: Target::Cluster(_),
    }
    checks {
        commits:
            any_history_is_answered_as_in_this_process,
            a_batch_is_answered_in_its_order_each_key_for_itself,
            a_delete_stays_and_an_older_write_does_not_bring_the_key_back,
            a_time_to_live_is_kept_set_and_taken_away,
            names_come_page_by_page_and_their_prefix_is_meant_literally,
            what_is_recorded_is_not_made_again_and_what_was_dropped_is_not_guessed,
            a_record_is_kept_for_as_long_as_its_own_writer_needs_it,
            a_record_that_lags_is_not_dropped_as_if_it_were_old,
            a_large_value_comes_back_byte_for_byte,
            the_clock_runs;
        parts:
            items_are_appended_to_whatever_list_is_there,
            items_are_appended_to_nothing_but_a_list_whose_end_is_known,
            an_integer_is_added_exactly_or_not_at_all,
            an_addition_is_made_once_however_often_it_arrives,
            an_addition_keeps_or_sets_the_time_to_live,
            any_history_of_additions_is_answered_as_in_this_process,
            an_addition_is_notified_like_any_change,
            an_edit_makes_what_its_writer_has_made,
            an_edit_does_not_damage_what_was_edited_by_hand;
        large:
            any_history_of_large_values_is_answered_as_in_this_process,
            a_large_value_expires_and_is_removed_as_a_whole;
        known:
            a_read_of_what_is_known_returns_what_is_stored,
            what_was_edited_by_hand_is_found_if_the_stamp_is_not_trusted,
            a_refused_edit_finds_what_is_stored,
            a_member_goes_behind_others_or_is_refused;
        sessions:
            requests_take_effect_in_the_order_of_their_first_polls,
            a_change_of_another_session_to_a_tracked_key_is_notified,
            every_tracked_read_leaves_its_keys_tracked,
            what_is_read_through_is_not_notified_and_ends_no_tracking,
            a_change_while_a_read_is_on_its_way_is_in_the_answer_or_notified,
            a_read_says_when_a_key_expires_or_its_expiry_is_notified,
            a_large_value_is_read_whole_beside_others_and_leaves_its_key_tracked,
            a_lost_connection_ends_its_session_and_nothing_else_does;
    }
}

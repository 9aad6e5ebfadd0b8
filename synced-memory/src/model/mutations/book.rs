//! What the rules say of one process: its calls, the entries that they are queued in, and what
//! becomes of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::super::server::KEY;
use super::super::{Check, hold};
use super::calls::On;
use super::checks::Counted;
use super::compared::Saw;
use super::confirmed::Confirmed;
use super::fates::Skipped;
use super::kinds::Kind;
use super::reference::Edits;
use super::ways::{Rule, WAYS, Way, ways};
use crate::backend::commit::Sequence;
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{Error, Result as Told};
use crate::cache::Ticket;
use crate::client::state::{Accepted, Link, State};
use crate::pending::outbox::{Answer, Written};
use crate::value::envelope::{self, Text};
use crate::value::mutation::Json;

/// Where a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Made,
    /// There was nothing to do.
    Done,
    Superseded,
    SetAside,
    /// Its caller got an error.
    Withdrawn,
    /// By a later assignment or delete of the same process, before it was sent.
    Replaced,
    /// It was recorded anew, as another call here.
    Again,
    /// Its caller was told that it is in doubt, and it was not made.
    Never,
    /// Nobody knows whether it was made.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) kind: Kind,
    /// So many times it was recorded before.
    pub(super) tries: u8,
    /// What is done to a part of the value; nothing where the whole is assigned.
    pub(super) edits: Edits,
    pub(super) waiting: Option<Receiver<Told<Answer>>>,
    pub(super) told: Option<Written>,
    pub(super) confirmed: Option<Confirmed>,
    pub(super) fate: Option<Fate>,
    /// Those that are one call with it, and share its fate.
    pub(super) joined: Vec<usize>,
    /// The entry that it was queued in.
    pub(super) line: Sequence,
}

/// What a call writes.
#[derive(Debug)]
pub(super) enum Asked {
    /// `None` is a delete.
    Assign(Option<Value>),
    Change(Edits),
}

/// An entry of the outbox.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Line {
    /// Who waits for it knows it by this; what goes back has that of its take.
    pub(super) id: Sequence,
    /// The server knows it by this.
    pub(super) number: Sequence,
    /// What is assigned, if anything, and by which call.
    pub(super) assignment: Option<(Option<Value>, usize)>,
    /// The calls that change a part, in their order.
    pub(super) calls: Vec<usize>,
    /// The calls that are gone into a later assignment.
    pub(super) replaced: Vec<usize>,
    /// Which of them were superseded in the last attempt.
    pub(super) skipped: Skipped,
    /// Which of them were set aside cannot be told.
    pub(super) is_vague: bool,
    /// On what it is recorded, whose caller records it anew elsewhere.
    pub(super) on: On,
    pub(super) seen: Option<Text>,
    /// No outage since it was written.
    pub(super) fresh: bool,
    pub(super) tried: bool,
    /// An attempt was sent that does more than to ask what is there.
    pub(super) may_be_made: bool,
    pub(super) in_doubt: bool,
    pub(super) is_confirmed: bool,
    /// What was taken, and is put back by it.
    pub(super) returns: Option<Json>,
    /// The stamp of the newest write in it.
    pub(super) latest: u64,
    pub(super) written: Monotonic,
}

/// What the server answered last.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) ticket: Ticket,
    pub(super) stored: Option<Bytes>,
    pub(super) value: Option<Rc<Value>>,
    pub(super) stamp: u64,
}

/// A whole value; `None` where the key is deleted.
#[derive(Debug, Clone)]
pub(super) struct Assigned(pub(super) Option<Value>);

/// An attempt as it must be.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) id: Sequence,
    /// It only asks what is there.
    pub(super) asks: bool,
    /// It replaces the whole by this, and what the calls make of that.
    pub(super) assigns: Option<Assigned>,
    /// What it is made on.
    pub(super) before: Option<Rc<Value>>,
    pub(super) after: Option<Rc<Value>>,
    /// Whether calls in it are superseded; `None` where that cannot be told.
    pub(super) superseded: Option<bool>,
    /// What its closures saw where they change something.
    pub(super) saw: Vec<Saw>,
    /// What it does to what is counted; `None` where that cannot be told.
    pub(super) counted: Option<Vec<Counted>>,
}

#[derive(Debug)]
pub(super) struct Book {
    pub(super) calls: Vec<Call>,
    pub(super) lines: VecDeque<Line>,
    pub(super) link: Link,
    pub(super) slot: Slot,
    pub(super) drawn: Option<Rc<Drawn>>,
    pub(super) under_way: Option<(Sequence, Ticket, Rc<Drawn>)>,
    /// So many writes were set aside, and counted as superseded.
    pub(super) aside: usize,
    pub(super) superseded: u64,
    /// The calls that are to be recorded anew.
    pub(super) again: Vec<usize>,
    /// The confirmed entries that were withdrawn since the last step.
    pub(super) withdrawn: Vec<Sequence>,
    pub(super) origin: Option<Rc<Value>>,
    /// Something has changed since the last audit.
    pub(super) is_changed: bool,
}

/// So many of the values that were read last are kept: each is met at the server and in three
/// processes.
const KEPT: usize = 12;

/// The value in what is stored.
pub(super) fn value_of(stored: Option<&Bytes>) -> Option<Rc<Value>> {
    thread_local!(static READ: RefCell<VecDeque<(Bytes, Rc<Value>)>> = const { RefCell::new(VecDeque::new()) });
    let stored = stored?;
    READ.with_borrow_mut(|read| {
        let is_same = |(bytes, _): &&(Bytes, Rc<Value>)| {
            bytes.as_ptr() == stored.as_ptr() && bytes.len() == stored.len()
        };
        if let Some((_, value)) = read.iter().find(is_same) {
            return Some(Rc::clone(value));
        }
        let value: Value =
            serde_json::from_str(envelope::value_of(stored).as_str()).expect("JSON is stored");
        read.truncate(KEPT);
        read.push_front((stored.clone(), Rc::new(value)));
        read.front().map(|(_, value)| Rc::clone(value))
    })
}

impl Line {
    pub(super) fn all_calls(&self) -> impl Iterator<Item = usize> {
        self.assignment
            .iter()
            .map(|(_, call)| *call)
            .chain(self.calls.iter().copied())
    }

    fn all_who_wait(&self) -> impl Iterator<Item = usize> {
        self.all_calls().chain(self.replaced.iter().copied())
    }
}

impl Book {
    pub(super) fn is_awaited(&self, line: &Line) -> bool {
        line.all_who_wait()
            .any(|call| self.calls[call].waiting.is_some())
    }

    /// A call was accepted.
    pub(super) fn accepted(
        &mut self,
        state: &State,
        (kind, tries, confirmed): (Kind, u8, Option<Confirmed>),
        asked: Asked,
        (on, shown): (On, Option<Text>),
        (accepted, mono): (Accepted, Monotonic),
    ) -> Check {
        let Accepted {
            sequence: id,
            mut answer,
        } = accepted;
        let last = state.outbox.last(KEY).ok_or("rule 2: it is not queued")?;
        hold!(
            last.identity.id == id,
            "rule 3: {id} was accepted, but {} is the last",
            last.identity.id
        );
        let latest = last.write.latest.get();
        let fresh = self.link == Link::Up;
        let (waiting, told) = if fresh {
            (Some(answer), None)
        } else {
            let told = answer.try_recv();
            let written = told
                .as_ref()
                .ok()
                .and_then(|told| told.as_ref().ok())
                .map(|told| told.written);
            hold!(
                written == Some(Written::Queued),
                "rule 4: {kind:?} was told {told:?} while the link is not up"
            );
            (None, written)
        };
        let is_confirmed = confirmed.is_some();
        hold!(
            last.write.is_confirmed == is_confirmed,
            "whether {kind:?} is confirmed"
        );
        let index = self.calls.len();
        let is_compared = matches!(&asked, Asked::Change(edits) if edits.is_compared);
        let (assignment, edits) = match asked {
            Asked::Assign(value) => (
                Some((value, index)),
                Edits {
                    stamp: latest,
                    ..Edits::default()
                },
            ),
            Asked::Change(edits) => (
                None,
                Edits {
                    stamp: latest,
                    ..edits
                },
            ),
        };
        self.calls.push(Call {
            kind,
            tries,
            edits,
            waiting,
            told,
            confirmed,
            fate: None,
            joined: Vec::new(),
            line: id,
        });
        self.is_changed = true;
        let on = if fresh { on } else { On::Anything };
        let mut replaced = Vec::new();
        match self.lines.back_mut().filter(|line| line.id == id) {
            Some(line) => {
                hold!(!line.tried, "rule 3: {id} was sent, and takes more in");
                let is_apart = is_confirmed || line.is_confirmed || line.returns.is_some();
                hold!(!is_apart, "{id} has to stay apart, and takes more in");
                let merges = on == On::Anything && line.on == On::Anything;
                hold!(
                    merges,
                    "rule 5: {id} is for what was seen, and takes more in"
                );
                if assignment.is_some() {
                    for earlier in line
                        .assignment
                        .iter()
                        .map(|(_, call)| *call)
                        .chain(line.calls.drain(..))
                    {
                        let call = &self.calls[earlier];
                        hold!(
                            call.waiting.is_none() || fresh,
                            "{:?} shares another fate",
                            call.kind
                        );
                        replaced.push(earlier);
                        line.replaced.push(earlier);
                    }
                    line.assignment = assignment;
                } else {
                    line.calls.push(index);
                }
                (line.fresh, line.latest, line.written) = (fresh, latest, mono);
            }
            None => self.lines.push_back(Line {
                id,
                number: id,
                calls: if assignment.is_some() {
                    Vec::new()
                } else {
                    vec![index]
                },
                replaced: Vec::new(),
                skipped: Skipped::default(),
                is_vague: false,
                assignment,
                on,
                seen: shown.filter(|_| on == On::Whole),
                fresh,
                tried: false,
                may_be_made: false,
                in_doubt: false,
                is_confirmed,
                returns: None,
                latest,
                written: mono,
            }),
        }
        for call in replaced {
            self.set_fate(call, Fate::Replaced);
        }
        if is_compared {
            self.take_compared(state, index)
        } else {
            Ok(())
        }
    }

    /// All that may come of an entry where it is made on this.
    pub(super) fn ways(
        &self,
        line: &Line,
        (value, stamp): (Option<&Value>, u64),
    ) -> Option<Vec<Way>> {
        let rule = match line.on {
            _ if line.assignment.is_some() => Rule::Latest,
            On::Places => Rule::Exact,
            _ if line.fresh => Rule::Latest,
            _ => Rule::NewerWins(stamp),
        };
        self.ways_by(line, value, rule)
    }

    fn ways_by(&self, line: &Line, value: Option<&Value>, rule: Rule) -> Option<Vec<Way>> {
        let start = line
            .assignment
            .as_ref()
            .map_or_else(|| value.cloned(), |(assigned, _)| assigned.clone());
        let calls: Vec<&Edits> = line
            .calls
            .iter()
            .map(|call| &self.calls[*call].edits)
            .collect();
        ways(start, self.origin.as_deref(), &calls, rule).filter(|_| !line.is_vague)
    }

    /// All that a read may show; `None` where that is too much to tell.
    pub(super) fn shown(&self) -> Option<Vec<Option<Value>>> {
        let mut shown = vec![(self.slot.value.as_deref().cloned(), self.slot.stamp)];
        for line in self.lines.iter().filter(|line| !line.is_confirmed) {
            let mut next = Vec::new();
            for (value, stamp) in shown {
                let is_latest = line.assignment.is_some() || line.fresh;
                let rule = if is_latest {
                    Rule::Latest
                } else {
                    Rule::NewerWins(stamp)
                };
                for way in self.ways_by(line, value.as_ref(), rule)? {
                    let stamp = match &way.value {
                        None => 0,
                        same if *same == value && line.assignment.is_none() => stamp,
                        Some(_) => line.latest.max(stamp + 1),
                    };
                    if !next.contains(&(way.value.clone(), stamp)) {
                        next.push((way.value, stamp));
                    }
                }
                if next.len() > WAYS {
                    return None;
                }
            }
            shown = next;
        }
        Some(shown.into_iter().map(|(value, _)| value).collect())
    }

    /// The slot follows the server, in the order of the requests.
    pub(super) fn slot_follows(&mut self, ticket: Ticket, stored: Option<Bytes>) {
        if ticket >= self.slot.ticket {
            self.is_changed |= stored != self.slot.stored;
            let value = value_of(stored.as_ref());
            let stamp = stored
                .as_deref()
                .map_or(Stamp::ZERO, envelope::stamp_of)
                .get();
            self.slot = Slot {
                ticket,
                stored,
                value,
                stamp,
            };
        }
    }

    /// What those who wait for an entry were told; `None` where nobody waits.
    pub(super) fn told(&mut self, line: &Line) -> Check<Option<Told<Answer>>> {
        let mut told: Option<Told<Answer>> = None;
        for call in line.all_who_wait() {
            let Some(mut waiting) = self.calls[call].waiting.take() else {
                continue;
            };
            let answer = waiting.try_recv();
            hold!(
                answer.is_ok(),
                "(5) {:?} came to an end, and was told {answer:?}",
                self.calls[call].kind
            );
            let answer = answer.map_err(|_| "nothing was told")?;
            if let Some(told) = &told {
                let same =
                    told.as_ref().map_err(Error::kind) == answer.as_ref().map_err(Error::kind);
                hold!(
                    same,
                    "those who wait for {} share one fate, and were told {told:?} and {answer:?}",
                    line.id
                );
            }
            self.calls[call].told = answer
                .as_ref()
                .ok()
                .filter(|answer| answer.again.is_none())
                .map(|told| told.written);
            if let (Some(confirmed), Err(error)) = (&mut self.calls[call].confirmed, &answer) {
                confirmed.error = Some(error.kind());
            }
            told = Some(answer);
        }
        Ok(told)
    }

    /// Those who wait are told that it stays queued.
    pub(super) fn promise(&mut self, line: usize) -> Check {
        self.lines[line].on = On::Anything;
        for call in self.lines[line].all_who_wait().collect::<Vec<_>>() {
            let Some(mut waiting) = self.calls[call].waiting.take() else {
                continue;
            };
            let told = waiting.try_recv();
            let written = told
                .as_ref()
                .ok()
                .and_then(|told| told.as_ref().ok())
                .map(|answer| answer.written);
            hold!(
                written == Some(Written::Queued),
                "{:?} was told {told:?} instead of queued",
                self.calls[call].kind
            );
            self.calls[call].told = written;
        }
        self.is_changed = true;
        Ok(())
    }

    /// Nobody is told anything of what is under way.
    pub(super) fn nothing_is_told(&mut self) -> Check {
        for line in &self.lines {
            for call in line.all_who_wait() {
                let call = &mut self.calls[call];
                if let Some(waiting) = &mut call.waiting {
                    let told = waiting.try_recv();
                    let silent = matches!(told, Err(TryRecvError::Empty));
                    hold!(
                        silent,
                        "(5) {:?} is not answered, and was told {told:?}",
                        call.kind
                    );
                }
            }
        }
        Ok(())
    }

    pub(super) fn end(&mut self, line: &Line, fate: Fate) {
        for call in line.all_calls().collect::<Vec<_>>() {
            self.set_fate(call, fate);
        }
        self.is_changed = true;
    }
}

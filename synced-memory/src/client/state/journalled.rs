//! What of the outbox is in the journal: every queued write, before it is reported as queued.

use std::sync::Arc;

use super::State;
use crate::backend::commit::Sequence;
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::events::event;
use crate::pending::journal::{
    ClockOrigin, Ends, Journal, JournalConfig, JournalRecord, LeftBehind,
};
use crate::pending::outbox::{Entry, Selector, Write};

impl State {
    /// Keeps a journal from now on, and adopts what processes that are gone have left in its
    /// directory.
    ///
    /// # Errors
    ///
    /// `Journal`: it cannot be kept.
    pub(crate) fn keep_a_journal(
        &mut self,
        config: JournalConfig,
        origin: ClockOrigin,
        mono: Monotonic,
    ) -> Result<()> {
        let (mut journal, mut adopted) = Journal::open(config, self.writer(), origin)?;
        for LeftBehind { key, mut entry } in std::mem::take(&mut adopted.pending) {
            entry.journalled = true;
            entry.was_left_until(mono);
            if !self.outbox.has(&key) {
                self.cache.hold(&key);
            }
            self.cache.seen(&key, entry.write.latest);
            self.outbox.adopt(&key, entry);
        }
        self.letters.append(&mut adopted.letters);
        journal.rewrite(self.journal_records(origin))?;
        self.journal_damage = std::mem::take(&mut adopted.damage);
        self.last_error = self.journal_damage.last().cloned();
        adopted.release();
        self.journal = Some(journal);
        Ok(())
    }

    /// Everything was delivered, and nothing comes any more: the journal is removed, unless dead
    /// letters are in it.
    pub(crate) fn end_journal(&mut self) {
        match self.journal.take_if(|_| self.letters.is_empty()) {
            Some(journal) => journal.remove(),
            None => self.check_journal(),
        }
    }

    /// Whether what is not delivered now survives the end of this process.
    pub(crate) fn is_journalled(&mut self) -> bool {
        self.journal_rest();
        let is_there = self.journal.as_ref().is_some_and(Journal::is_in_place);
        is_there && self.outbox.is_all_journalled()
    }

    /// Begins a new journal with what is queued if somebody has removed or replaced the file of the
    /// one that is kept.
    ///
    /// # Errors
    ///
    /// `Journal`: what is queued is not on disk.
    fn keep_in_place(&mut self) -> Result<()> {
        if self.journal.as_ref().is_none_or(Journal::is_in_place) {
            return Ok(());
        }
        let Some(mut journal) = self.journal.take() else {
            return Ok(());
        };
        let begun = journal.begin_anew(self.journal_records(journal.origin));
        self.journal = Some(journal);
        begun?;
        let what = "the journal was removed or replaced while it was in use; a new one was begun";
        self.report_failure(Some(Error::new(ErrorKind::Journal, what)));
        Ok(())
    }

    /// The same, if nobody waits for the outcome.
    fn check_journal(&mut self) {
        let failed = self.keep_in_place().err();
        self.report_failure(failed);
    }

    /// Journals a write before it is queued.
    pub(super) fn journal_write(
        &mut self,
        key: &Arc<str>,
        write: &Write,
        ends: Option<Ends>,
    ) -> Result<()> {
        self.keep_in_place()?;
        // What it may be merged into has to be there before it.
        self.journal_rest_of(key);
        // Before it is added: the rewritten journal is what the outbox holds, and the outbox does
        // not have it yet.
        if self
            .journal
            .as_ref()
            .is_some_and(|journal| journal.is_worth_rewriting(self.outbox.bytes()))
        {
            self.rewrite_journal();
        }
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        journal.append(&JournalRecord::wrote(
            &self.outbox,
            key,
            write,
            ends,
            journal.origin,
        ))
    }

    /// Journals one entry, before it is sent.
    pub(super) fn journal_entry(&mut self, key: &Arc<str>, id: Sequence) -> Result<()> {
        self.keep_in_place()?;
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        let journalled = self.outbox.edit(key, Selector::Id(id), |entry| {
            journal.append(&JournalRecord::of_state(key, entry, journal.origin))?;
            entry.journalled = true;
            Ok(())
        });
        journalled.unwrap_or(Ok(()))
    }

    /// Journals all pending writes that are not in the journal yet: they are about to be reported
    /// as queued.
    pub(super) fn journal_rest(&mut self) {
        self.check_journal();
        let Some(journal) = &mut self.journal else {
            return;
        };
        let mut failed = None;
        self.outbox
            .journal_rest(|key, entry| journal_state(journal, key, entry, &mut failed));
        self.report_failure(failed);
    }

    /// The same of one key: however many are pending, the others cost nothing.
    pub(super) fn journal_rest_of(&mut self, key: &str) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let mut failed = None;
        self.outbox.journal_rest_of(key, |key, entry| {
            journal_state(journal, key, entry, &mut failed)
        });
        self.report_failure(failed);
    }

    /// Journals the writes to `key` as they are now.
    pub(super) fn journal_again(&mut self, key: &Arc<str>) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let entries = self.outbox.of(key).filter(|entry| entry.journalled);
        let failed = entries
            .map(|entry| journal.append(&JournalRecord::of_state(key, entry, journal.origin)))
            .find_map(Result::err);
        self.report_failure(failed);
    }

    /// Journals the dead letter at this position.
    pub(super) fn journal_letter(&mut self, position: usize) {
        self.check_journal();
        let Some((journal, letter)) = self.journal.as_mut().zip(self.letters.get(position)) else {
            return;
        };
        let failed = journal.append(&JournalRecord::letter(letter)).err();
        self.report_failure(failed);
    }

    /// Journals a record that need not be there: without it more is tried again, and found to be
    /// done.
    pub(super) fn note(&mut self, record: &JournalRecord<'_>) {
        let failed = self
            .journal
            .as_mut()
            .and_then(|journal| journal.append(record).err());
        self.report_failure(failed);
    }

    pub(super) fn rewrite_journal(&mut self) {
        let Some(mut journal) = self.journal.take() else {
            return;
        };
        let failed = journal.rewrite(self.journal_records(journal.origin)).err();
        self.journal = Some(journal);
        self.report_failure(failed);
    }

    /// What the journal has to hold.
    fn journal_records(&self, origin: ClockOrigin) -> impl Iterator<Item = JournalRecord<'_>> {
        let entries = self
            .outbox
            .entries()
            .filter(|(_, entry)| entry.journalled)
            .chain(self.being_handed());
        let entries = entries.map(move |(key, entry)| JournalRecord::of_state(key, entry, origin));
        entries.chain(self.letters.iter().map(JournalRecord::letter))
    }

    fn report_failure(&mut self, failed: Option<Error>) {
        if let Some(error) = failed {
            self.last_error = Some(error.clone());
            self.events
                .push(event!(ERROR, %error, "the journal has failed"));
        }
    }
}

/// Whether the entry is in the journal now. If not, it stays queued all the same: it was sent, or
/// may have been, and cannot be withdrawn any more.
fn journal_state(
    journal: &mut Journal,
    key: &str,
    entry: &Entry,
    failed: &mut Option<Error>,
) -> bool {
    match journal.append(&JournalRecord::of_state(key, entry, journal.origin)) {
        Ok(()) => true,
        Err(error) => {
            *failed = Some(error);
            false
        }
    }
}

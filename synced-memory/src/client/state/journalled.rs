//! What of the outbox is in the journal: everything that is promised, before it is promised.

use std::sync::Arc;

use super::State;
use crate::backend::commit::Sequence;
use crate::base::clock::Monotonic;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::pending::journal::{self, ClockOrigin, Ends, Journal, JournalRecord, LeftBehind};
use crate::pending::outbox::{Entry, Write};

impl State {
    /// Keeps a journal from now on, and takes over what processes that are gone have left in its
    /// directory.
    ///
    /// # Errors
    ///
    /// `Journal`: it cannot be kept.
    pub(crate) fn keep_a_journal(
        &mut self,
        place: journal::JournalConfig,
        origin: ClockOrigin,
        mono: Monotonic,
    ) -> Result<()> {
        let (mut journal, mut adopted) = Journal::open(place, self.writer(), origin)?;
        for LeftBehind { key, mut entry } in std::mem::take(&mut adopted.kept) {
            entry.journalled = true;
            // It counts as attempted from here on at the latest, also for whoever adopts it next.
            entry.first_tried.get_or_insert(mono);
            if !self.outbox.has(&key) {
                self.cache.hold(&key);
            }
            self.cache.seen(&key, entry.latest);
            self.outbox.adopt(&key, entry);
        }
        self.letters.append(&mut adopted.letters);
        journal.rewrite(self.standing(origin))?;
        self.last_error = adopted.damage.take();
        adopted.release();
        self.journal = Some(journal);
        Ok(())
    }

    /// Everything was delivered, and nothing comes any more: the journal goes, unless something is
    /// in it that became a dead letter.
    pub(crate) fn end_journal(&mut self) {
        if let Some(journal) = self.journal.take_if(|_| self.letters.is_empty()) {
            journal.remove();
        }
    }

    /// Whether what is not delivered now is still there after the end of this process.
    pub(crate) fn is_journalled(&self) -> bool {
        self.journal.is_some()
    }

    /// Journals a write before it is queued.
    pub(super) fn journal_write(
        &mut self,
        key: &Arc<str>,
        write: &Write,
        ends: Option<Ends>,
    ) -> Result<()> {
        // What it may be made part of has to be there before it.
        self.journal_the_rest_of(key);
        // Before it is there: what is rewritten is how the outbox stands, which does not have it
        // yet.
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

    /// Journals one entry as it stands, before it is sent.
    pub(super) fn journal_standing(&mut self, key: &Arc<str>, id: Sequence) -> Result<()> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        if let Some(entry) = self.outbox.of_mut(key).find(|entry| entry.id == id) {
            journal.append(&JournalRecord::of_state(key, entry, journal.origin))?;
            entry.journalled = true;
        }
        Ok(())
    }

    /// Journals everything that waits and is not in the journal yet: it is about to be promised.
    pub(super) fn journal_the_rest(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let failed = journal_all(
            journal,
            self.outbox
                .not_journalled()
                .map(|(key, entry)| (&**key, entry)),
        );
        self.report_failure(failed);
    }

    /// The same of one key. With many that wait, the others are not looked at.
    pub(super) fn journal_the_rest_of(&mut self, key: &str) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let entries = self
            .outbox
            .of_mut(key)
            .filter(|entry| !entry.journalled && entry.is_to_survive());
        let failed = journal_all(journal, entries.map(|entry| (key, entry)));
        self.report_failure(failed);
    }

    /// Journals how the writes to `key` stand now.
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

    /// Journals the dead letter at this place: it was promised.
    pub(super) fn journal_letter(&mut self, place: usize) {
        let Some((journal, letter)) = self.journal.as_mut().zip(self.letters.get(place)) else {
            return;
        };
        let failed = journal.append(&JournalRecord::letter(letter)).err();
        self.report_failure(failed);
    }

    /// Journals what need not be there: without it more is tried again, and found to be done.
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
        let failed = journal.rewrite(self.standing(journal.origin)).err();
        self.journal = Some(journal);
        self.report_failure(failed);
    }

    /// What a journal has to hold.
    fn standing(&self, origin: ClockOrigin) -> impl Iterator<Item = JournalRecord<'_>> {
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
            tracing::error!(%error, "the journal cannot be written");
            self.last_error = Some(error);
        }
    }
}

/// What could not be journalled was sent, or may have been: it cannot be withdrawn any more.
fn journal_all<'a>(
    journal: &mut Journal,
    entries: impl Iterator<Item = (&'a str, &'a mut Entry)>,
) -> Option<Error> {
    let mut failed = None;
    for (key, entry) in entries {
        match journal.append(&JournalRecord::of_state(key, entry, journal.origin)) {
            Ok(()) => entry.journalled = true,
            Err(error) => failed = Some(error),
        }
    }
    failed
}

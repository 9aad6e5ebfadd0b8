//! Which large values are to be read apart from everything else, and who waits for them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::backend::WithExpiry;
use crate::backend::error::BackendError;
use crate::base::backoff::KeyPauses;
use crate::base::callback::call_out;
use crate::base::clock::Monotonic;
use crate::base::lock::lock;
use crate::cache::{Generation, Ticket};

/// What a read of a large value has brought.
pub(crate) type LargeAnswer = Result<WithExpiry, BackendError>;

/// A read of a large value that has not begun.
#[derive(Debug)]
pub(crate) struct LargeRead {
    pub(crate) key: Arc<str>,
    /// The last request that was answered with `TooLarge`, and the last generation under which one
    /// was sent that left the key tracked: changes after that are notified.
    pub(crate) ticket: Ticket,
    pub(crate) generation: Generation,
    /// The server is to answer although it does not have the slot yet.
    pub(crate) asking: bool,
    waiters: Vec<oneshot::Sender<LargeAnswer>>,
}

/// The reads that have not begun, at most one of each key, however often it is asked for.
#[derive(Debug, Default)]
pub(crate) struct LargeReads(Mutex<LargeReadQueue>);

#[derive(Debug, Default)]
struct LargeReadQueue {
    reads: VecDeque<LargeRead>,
    failing: KeyPauses,
}

impl LargeReads {
    /// Asks for a read that begins after this.
    pub(crate) fn ask(
        &self,
        key: &Arc<str>,
        ticket: Ticket,
        generation: Generation,
        asking: bool,
    ) -> oneshot::Receiver<LargeAnswer> {
        let (waiter, answer) = oneshot::channel();
        let mut queue = lock(&self.0);
        if let Some(read) = queue
            .reads
            .iter_mut()
            .find(|read| read.key == *key && read.asking == asking)
        {
            read.ticket = read.ticket.max(ticket);
            read.generation = read.generation.max(generation);
            read.waiters.push(waiter);
        } else {
            queue.reads.push_back(LargeRead {
                key: Arc::clone(key),
                ticket,
                generation,
                asking,
                waiters: vec![waiter],
            });
        }
        answer
    }

    /// Removes and returns the read that begins now, if any may.
    pub(crate) fn take(&self, mono: Monotonic) -> Option<LargeRead> {
        let mut queue = lock(&self.0);
        let LargeReadQueue { reads, failing } = &mut *queue;
        let at = reads
            .iter()
            .position(|read| failing.until(&read.key).is_none_or(|until| until <= mono))?;
        reads.remove(at)
    }

    /// When the first read may begin.
    pub(crate) fn next(&self) -> Option<Monotonic> {
        let queue = lock(&self.0);
        let until = |read: &LargeRead| queue.failing.until(&read.key).unwrap_or_default();
        queue.reads.iter().map(until).min()
    }

    /// The value of `key` arrived.
    pub(crate) fn arrived(&self, key: &str) {
        lock(&self.0).failing.passed(key);
    }

    /// The value of `key` could not be read: it is tried less and less often.
    pub(crate) fn failed(&self, key: &Arc<str>, mono: Monotonic) {
        lock(&self.0).failing.failed(key, KeyPauses::LONGEST, mono);
    }

    /// The connection is gone: nobody waits any more.
    pub(crate) fn clear(&self) {
        let reads = std::mem::take(&mut lock(&self.0).reads);
        call_out(|| drop(reads));
    }
}

impl LargeRead {
    pub(crate) fn answer(self, answer: &LargeAnswer) {
        for waiter in self.waiters {
            call_out(|| _ = waiter.send(answer.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;
    use crate::base::lock::assert_unlocked;

    #[test]
    fn a_key_is_read_once_for_all_who_asked_before_the_read_began_and_again_for_the_others() {
        let (reads, key) = (LargeReads::default(), Arc::from("k"));
        let mut early = [1, 2].map(|ticket| reads.ask(&key, ticket, Generation::default(), false));
        let first = reads.take(Duration::ZERO).unwrap();
        assert_eq!(first.ticket, 2);
        let mut late = reads.ask(&key, 3, Generation::default(), false);

        first.answer(&Err(BackendError::rejected("on purpose")));
        assert!(early.iter_mut().all(|early| early.try_recv().is_ok()));
        assert!(late.try_recv().is_err());
        assert_eq!(reads.take(Duration::ZERO).unwrap().ticket, 3);
        assert!(reads.take(Duration::ZERO).is_none());
    }

    #[test]
    fn a_value_that_cannot_be_read_waits_and_lets_others_go_first() {
        let (reads, bad, good) = (LargeReads::default(), Arc::from("bad"), Arc::from("good"));
        let ask = |key| drop(reads.ask(key, 1, Generation::default(), false));
        reads.failed(&bad, Duration::ZERO);
        ask(&bad);
        let due = reads.next().unwrap();
        assert!(due > Duration::ZERO);
        ask(&good);
        assert_eq!(reads.next(), Some(Duration::ZERO));
        assert_eq!(reads.take(Duration::ZERO).unwrap().key, good);
        assert!(reads.take(Duration::ZERO).is_none());
        assert_eq!(reads.take(due).unwrap().key, bad);
    }

    /// A waker of the user's that panics, if it may run here at all.
    struct PanickingWaker;

    impl Wake for PanickingWaker {
        fn wake(self: Arc<Self>) {
            assert_unlocked();
            panic!("on purpose");
        }
    }

    #[test]
    fn a_waker_that_panics_keeps_no_large_value_from_the_others_who_wait_for_it() {
        let (reads, key) = (LargeReads::default(), Arc::from("k"));
        let ask = || {
            let mut first = reads.ask(&key, 1, Generation::default(), false);
            let waker = Waker::from(Arc::new(PanickingWaker));
            let polled = Pin::new(&mut first).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            (first, reads.ask(&key, 1, Generation::default(), false))
        };
        let (_first, mut second) = ask();
        let read = reads.take(Duration::ZERO).unwrap();
        read.answer(&Err(BackendError::rejected("on purpose")));
        assert!(matches!(second.try_recv(), Ok(Err(_))));

        let (_first, mut second) = ask();
        reads.clear();
        assert_eq!(second.try_recv().unwrap_err(), TryRecvError::Closed);
        assert_eq!(reads.next(), None);
    }
}

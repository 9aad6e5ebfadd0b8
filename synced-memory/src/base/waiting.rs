//! Waiting with a deadline and without a runtime: on the caller's own thread, or in a task of any
//! executor.
//!
//! A blocking call must not panic inside an async runtime, so nothing here is tokio's.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use futures_timer::Delay;
use futures_util::task::AtomicWaker;

use crate::base::clock::Deadline;

thread_local! {
    static PARKING: (parking::Parker, Waker) = pair();
    /// When the future that is being polled has to be polled again at the latest.
    static AGAIN: Cell<Option<Deadline>> = const { Cell::new(None) };
    /// How many `block_on` run on this thread, each in a poll of the one before.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static SPIN: Spin = const { Spin { in_vain: Cell::new(0), skip: Cell::new(0) } };
}

fn pair() -> (parking::Parker, Waker) {
    let (parker, unparker) = parking::pair();
    (parker, unparker.into())
}

/// Runs `future` on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    // Inside a task, tokio's primitives would ask to be polled again once the task has yielded,
    // which it cannot.
    let mut future = pin!(tokio::task::unconstrained(future));
    let mut run = |(parker, waker): &(parking::Parker, Waker)| {
        let _nested = NestedRun::new(waker);
        let mut context = Context::from_waker(waker);
        loop {
            AGAIN.set(None);
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            let again = AGAIN.take();
            if SPIN.try_with(|spin| spin.until_woken(parker)) == Ok(true) {
                continue;
            }
            match again {
                Some(deadline) => _ = parker.park_timeout(deadline.remaining()),
                None => parker.park(),
            }
        }
    };
    // At the end of a thread its locals go one by one, and a memory that is kept in one may be the
    // last.
    PARKING.try_with(&mut run).unwrap_or_else(|_| run(&pair()))
}

/// Adaptive spinning: before its thread goes to sleep, a wait looks for its wake-up for a moment,
/// in which it lets others run. A server on the same host answers in less time than it takes to
/// wake a thread that sleeps.
#[derive(Debug)]
struct Spin {
    /// So many times in a row nothing came.
    in_vain: Cell<u32>,
    /// So many waits go without. Where the server is far away, nearly all of them.
    skip: Cell<u32>,
}

impl Spin {
    const LONGEST: Duration = Duration::from_micros(100);
    /// After so many in vain, the waits that go without do not double any more.
    const DOUBLINGS: u32 = 8;

    /// Whether the wake-up came.
    fn until_woken(&self, parker: &parking::Parker) -> bool {
        /// One thread at a time in the process: others have better use for the processors.
        static IS_TAKEN: AtomicBool = AtomicBool::new(false);
        if self.skip.get() > 0 {
            self.skip.set(self.skip.get() - 1);
            return false;
        }
        if IS_TAKEN.swap(true, Ordering::Acquire) {
            return false;
        }
        let end = Deadline::after(Self::LONGEST);
        let mut woken = parker.park_timeout(Duration::ZERO);
        while !woken && !end.remaining().is_zero() {
            std::thread::yield_now();
            woken = parker.park_timeout(Duration::ZERO);
        }
        IS_TAKEN.store(false, Ordering::Release);
        let in_vain = if woken {
            0
        } else {
            (self.in_vain.get() + 1).min(Self::DOUBLINGS)
        };
        self.in_vain.set(in_vain);
        self.skip.set((1 << in_vain) - 1);
        woken
    }
}

/// A run inside the poll of another one, as of a closure of the user that reads: what it waited for
/// says nothing of the outer one, whose wake-ups it may have taken.
struct NestedRun<'a> {
    waker: &'a Waker,
    outer: Option<Deadline>,
}

impl<'a> NestedRun<'a> {
    fn new(waker: &'a Waker) -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self {
            waker,
            outer: AGAIN.get(),
        }
    }
}

impl Drop for NestedRun<'_> {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        if DEPTH.get() > 0 {
            AGAIN.set(self.outer);
            self.waker.wake_by_ref();
        }
    }
}

/// Whether a poll with this context is one of `block_on`, on this thread.
fn is_parking(context: &Context<'_>) -> bool {
    PARKING.try_with(|(_, waker)| context.waker().will_wake(waker)) == Ok(true)
}

/// Whether whoever runs this waits on its own thread, and for that alone: it cannot drop it half
/// done.
pub(crate) async fn is_blocking() -> bool {
    poll_fn(|context| Poll::Ready(is_parking(context))).await
}

/// What `future` gives; `None` when it is not done at the deadline.
pub(crate) async fn until<F: Future>(future: F, deadline: Deadline) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut alarm = Alarm::at(deadline);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => alarm.poll(context).map(|()| None),
    })
    .await
}

/// Wakes whoever polls it once its time has come.
#[derive(Debug)]
pub(crate) struct Alarm {
    deadline: Deadline,
    timer: Option<Delay>,
}

impl Alarm {
    pub(crate) fn at(deadline: Deadline) -> Self {
        Self {
            deadline,
            timer: None,
        }
    }

    /// Ready from the deadline on.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let remaining = self.deadline.remaining();
            if remaining.is_zero() {
                return Poll::Ready(());
            }
            if is_parking(context) {
                let earlier = AGAIN.get().filter(|other| other.remaining() < remaining);
                AGAIN.set(earlier.or(Some(self.deadline)));
                return Poll::Pending;
            }
            ready!(Pin::new(self.timer.get_or_insert_with(|| Delay::new(remaining))).poll(context));
            self.timer = None;
        }
    }
}

/// Tells one waiter that there is something new to see. However often it is raised before the
/// waiter looks, it looks once.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    is_raised: AtomicBool,
    waiter: AtomicWaker,
}

impl Signal {
    /// Whether whoever raises it has to [`wake`](Signal::wake) the waiter: it does not know yet.
    ///
    /// To be called under the lock of what the waiter looks at, so that it sees what it was raised
    /// for.
    pub(crate) fn raise(&self) -> bool {
        !self.is_raised.swap(true, Ordering::AcqRel)
    }

    /// To be called under no lock: it runs code of whatever executor the waiter is in, which may
    /// drop anything.
    pub(crate) fn wake(&self) {
        self.waiter.wake();
    }

    /// Ready when it was raised since it was last ready.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.waiter.register(context.waker());
        if self.is_raised.swap(false, Ordering::AcqRel) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// The wake-ups of tasks that are told something under a lock: they wait until it is free.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    is_any: AtomicBool,
    all: Mutex<Vec<Arc<Defers>>>,
}

impl Deferred {
    /// Runs `future`, whose wake-up comes out of [`take`](Deferred::take). What waits on its own
    /// thread is woken at once: that runs nobody's code.
    pub(crate) async fn wakes<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            if is_parking(context) {
                return future.as_mut().poll(context);
            }
            let waker = Waker::from(Arc::new(Defers {
                to: Arc::clone(self),
                waker: context.waker().clone(),
            }));
            future.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await
    }

    /// Those of who was told by now: to be taken under the lock, and woken when it is free.
    pub(crate) fn take(&self) -> Vec<Arc<Defers>> {
        if self.is_any.load(Ordering::Acquire) && self.is_any.swap(false, Ordering::AcqRel) {
            return std::mem::take(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Vec::new()
    }
}

/// A task that was told something.
#[derive(Debug)]
pub(crate) struct Defers {
    to: Arc<Deferred>,
    waker: Waker,
}

impl Defers {
    /// Wakes it, which runs code of its executor.
    pub(crate) fn wake_now(&self) {
        self.waker.wake_by_ref();
    }
}

impl Wake for Defers {
    fn wake(self: Arc<Self>) {
        let to = Arc::clone(&self.to);
        to.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(self);
        to.is_any.store(true, Ordering::Release);
    }
}

/// Waits until the deadline.
pub(crate) async fn pause(deadline: Deadline) {
    until(pending::<()>(), deadline).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn after(millis: u64) -> Deadline {
        Deadline::after(Duration::from_millis(millis))
    }

    #[test]
    fn a_future_that_is_done_is_returned_even_when_the_time_is_over() {
        assert_eq!(block_on(until(std::future::ready(5), after(0))), Some(5));
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        assert_eq!(block_on(until(pending::<()>(), after(20))), None);
    }

    #[test]
    fn a_wait_ends_at_its_deadline_in_any_executor() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        assert_eq!(runtime.block_on(until(pending::<()>(), after(20))), None);
        // One inside a blocking call: its deadline is not that of the thread.
        block_on(async { assert_eq!(runtime.block_on(until(pending::<()>(), after(20))), None) });
    }

    #[test]
    fn waits_that_spin_in_vain_soon_go_without_and_one_that_is_answered_at_once_spins_again() {
        let (spin, (parker, unparker)) = (
            Spin {
                in_vain: Cell::new(0),
                skip: Cell::new(0),
            },
            parking::pair(),
        );
        // Where another thread of the tests spins, this one goes without, and nothing changes.
        let spin_through = |waits: u32| {
            let is_spun = |_: &u32| {
                let before = spin.skip.get();
                assert!(!spin.until_woken(&parker));
                before == 0 && spin.skip.get() > 0
            };
            (0..waits).filter(is_spun).count()
        };
        assert!(spin_through(1_000) <= 11);
        spin_through(spin.skip.get());
        unparker.unpark();
        while !spin.until_woken(&parker) {}
        assert_eq!(spin.skip.get(), 0);
    }

    #[test]
    fn the_earliest_deadline_ends_first() {
        let (late, early) = (pin!(pause(after(10_000))), pin!(pause(after(20))));
        let first = block_on(futures_util::future::select(late, early));
        assert!(matches!(first, futures_util::future::Either::Right(_)));
    }

    #[test]
    fn a_signal_that_is_raised_many_times_is_seen_once() {
        let signal = Signal::default();
        let mut context = Context::from_waker(Waker::noop());
        assert!(signal.poll(&context).is_pending());
        assert!(signal.raise());
        assert!(!signal.raise());
        assert!(signal.poll(&context).is_ready());
        assert!(signal.poll(&context).is_pending());
        let mut alarm = Alarm::at(after(0));
        assert!(alarm.poll(&mut context).is_ready());
    }

    #[test]
    fn an_answer_from_another_thread_ends_the_wait() {
        let (tell, answer) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || tell.send(7));
        assert_eq!(
            block_on(until(answer, Deadline::after(Duration::MAX))),
            Some(Ok(7))
        );
    }

    #[test]
    fn what_waits_inside_a_poll_takes_no_wake_up_from_what_waits_outside() {
        let (tell, mut answer) = tokio::sync::oneshot::channel();
        let mut tell = Some(tell);
        let outer = poll_fn(|context| {
            let seen = Pin::new(&mut answer).poll(context);
            if let Some(tell) = tell.take() {
                let (tell_inner, inner) = tokio::sync::oneshot::channel();
                // Both are told while the inner one waits.
                std::thread::spawn(move || {
                    let _ = tell.send(7);
                    let _ = tell_inner.send(8);
                });
                assert_eq!(block_on(inner), Ok(8));
            }
            seen
        });
        assert_eq!(block_on(outer), Ok(7));
    }
}

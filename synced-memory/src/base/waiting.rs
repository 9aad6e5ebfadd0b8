//! Waiting with a deadline and without a runtime: on the caller's own thread, or in a task of any
//! executor.
//!
//! A blocking call must not panic inside an async runtime, so no wait here needs the runtime of its
//! caller.
//!
//! Blocking and async calls share their futures. What differs between them is decided in one place
//! each:
//!
//! - A write looks once, when it begins, at how its caller waits, and passes that on as a
//!   [`WaitMode`].
//! - [`Alarm`] and [`DeferredWakes`] look at the waker that they are polled with: a deadline of
//!   [`block_on`] needs no timer, and its waker runs nobody else's code.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::{Pin, pin};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Sleep;

use crate::base::callback::call_out;
use crate::base::clock::Deadline;
use crate::base::lock::lock;
use crate::base::timer;

thread_local! {
    static PARKING: (parking::Parker, Waker) = parker_and_waker();

    // The others have no destructor, so that they are there in the destructors of other locals.

    /// When the future that is being polled has to be polled again at the latest.
    static NEXT_POLL: Cell<Option<Deadline>> = const { Cell::new(None) };
    /// The data of the waker that the innermost `block_on` of this thread polls with.
    static POLLING_WITH: Cell<*const ()> = const { Cell::new(ptr::null()) };
    static SPIN: Spin = const { Spin::new() };
}

fn parker_and_waker() -> (parking::Parker, Waker) {
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
            NEXT_POLL.set(None);
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            let next_poll = NEXT_POLL.take();
            if SPIN.with(|spin| spin.until_woken(parker)) {
                continue;
            }
            match next_poll {
                Some(deadline) => _ = parker.park_timeout(deadline.remaining()),
                None => parker.park(),
            }
        }
    };
    // At the end of a thread its locals are dropped one by one, and a memory that is kept in one of
    // them may be used after `PARKING` is gone.
    PARKING
        .try_with(&mut run)
        .unwrap_or_else(|_| run(&parker_and_waker()))
}

/// Adaptive spinning: before its thread goes to sleep, a wait polls for its wake-up for a moment,
/// and yields to other threads meanwhile. A server on the same host answers in less time than it
/// takes to wake a sleeping thread.
#[derive(Debug)]
struct Spin {
    /// How many spins in a row ended without a wake-up.
    failures: Cell<u32>,
    /// How many waits do not spin from now on. If the server is far away, nearly all of them.
    skip: Cell<u32>,
}

impl Spin {
    const LONGEST: Duration = Duration::from_micros(100);
    /// After so many failures, the number of waits that do not spin does not double any more.
    const DOUBLINGS: u32 = 8;

    const fn new() -> Self {
        Self {
            failures: Cell::new(0),
            skip: Cell::new(0),
        }
    }

    /// Whether the wake-up came.
    fn until_woken(&self, parker: &parking::Parker) -> bool {
        /// One thread at a time in the process: the others leave the processors to real work.
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
        let failures = if woken {
            0
        } else {
            (self.failures.get() + 1).min(Self::DOUBLINGS)
        };
        self.failures.set(failures);
        self.skip.set((1 << failures) - 1);
        woken
    }
}

/// A `block_on` inside the poll of another one, such as a read in a closure of the user. Its
/// deadline is not the outer one's, and it may have consumed a wake-up of the outer one, which is
/// therefore polled again.
struct NestedRun<'a> {
    waker: &'a Waker,
    outer: *const (),
    outer_next_poll: Option<Deadline>,
}

impl<'a> NestedRun<'a> {
    fn new(waker: &'a Waker) -> Self {
        Self {
            waker,
            outer: POLLING_WITH.replace(waker.data()),
            outer_next_poll: NEXT_POLL.get(),
        }
    }
}

impl Drop for NestedRun<'_> {
    fn drop(&mut self) {
        POLLING_WITH.set(self.outer);
        if !self.outer.is_null() {
            NEXT_POLL.set(self.outer_next_poll);
            self.waker.wake_by_ref();
        }
    }
}

/// Whether a poll with this context is one of `block_on`, on this thread.
fn is_parking(context: &Context<'_>) -> bool {
    // A waker without data is not ours: ours is an `Arc`.
    let data = context.waker().data();
    !data.is_null() && ptr::eq(data, POLLING_WITH.get())
}

/// How the caller of a future waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitMode {
    /// On its own thread, in [`block_on`], and for nothing else: it never drops the future before
    /// it is done.
    Blocking,
    /// In a task of any executor, which may drop the future at any time.
    Async,
}

impl WaitMode {
    /// The mode of whoever polls this. It does not change while a future is polled to its end: one
    /// that `block_on` runs stays on its stack.
    pub(crate) async fn of_caller() -> Self {
        poll_fn(|context| {
            Poll::Ready(if is_parking(context) {
                Self::Blocking
            } else {
                Self::Async
            })
        })
        .await
    }

    pub(crate) fn is_blocking(self) -> bool {
        self == Self::Blocking
    }
}

/// What `future` returns; `None` if it is not ready at the deadline.
pub(crate) async fn until<F: Future>(future: F, deadline: Deadline) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut alarm = Alarm::at(deadline);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => alarm.poll(context).map(|()| None),
    })
    .await
}

/// Wakes whoever polls it at its deadline.
#[derive(Debug)]
pub(crate) struct Alarm {
    deadline: Deadline,
    timer: Option<Pin<Box<Sleep>>>,
}

// A timer that is polled again after a panic is as it was.
impl UnwindSafe for Alarm {}
impl RefUnwindSafe for Alarm {}

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
                let earlier = NEXT_POLL
                    .get()
                    .filter(|other| other.remaining() < remaining);
                NEXT_POLL.set(earlier.or(Some(self.deadline)));
                return Poll::Pending;
            }
            if self.timer.is_none() {
                self.timer = timer::sleep(remaining);
            }
            let Some(sleep) = &mut self.timer else {
                // Without a timer it is polled again and again until the deadline.
                context.waker().wake_by_ref();
                return Poll::Pending;
            };
            ready!(sleep.as_mut().poll(context));
            self.timer = None;
        }
    }
}

/// Notifies one waiter that something has changed. However often it is raised before the waiter
/// polls it, it is ready once.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    is_raised: AtomicBool,
    waiter: AtomicWaker,
}

// A panic in code of the waiter's executor leaves the waker, and what was raised, in place.
impl UnwindSafe for Signal {}
impl RefUnwindSafe for Signal {}

impl Signal {
    /// Raises it. Returns whether the caller has to [`wake`](Signal::wake) the waiter, which is not
    /// notified yet.
    ///
    /// To be called under the lock of what the waiter reads, so that the waiter sees the change
    /// that it is notified of.
    pub(crate) fn raise(&self) -> bool {
        !self.is_raised.swap(true, Ordering::AcqRel)
    }

    /// To be called under no lock: it runs code of the waiter's executor, which may drop anything.
    pub(crate) fn wake(&self) {
        call_out(|| self.waiter.wake());
    }

    /// Ready if it was raised since it was last ready.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.waiter.register(context.waker());
        if self.is_raised.swap(false, Ordering::AcqRel) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// The wake-ups of tasks whose answers are sent under a lock: they are put off until it is free.
#[derive(Debug, Default)]
pub(crate) struct DeferredWakes {
    is_any: AtomicBool,
    wakes: Mutex<Vec<Arc<DeferredWake>>>,
}

impl DeferredWakes {
    /// Runs `future`, whose wake-up is put off until it is [taken](DeferredWakes::take). A caller
    /// that waits on its own thread is woken at once: that runs no code of an executor.
    pub(crate) async fn run<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        // Unconstrained: in a task that has used up its budget, tokio's primitives would wake it by
        // themselves, at another time than under the lock.
        let mut future = pin!(tokio::task::unconstrained(future));
        let mut wake = ForgottenOnDrop(None);
        poll_fn(|context| {
            if is_parking(context) {
                return future.as_mut().poll(context);
            }
            let wake = wake.0.get_or_insert_with(|| {
                Arc::new(DeferredWake {
                    queue: Arc::clone(self),
                    task: AtomicWaker::new(),
                })
            });
            wake.task.register(context.waker());
            let waker = Waker::from(Arc::clone(wake));
            future.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await
    }

    /// The wake-ups until now: to be taken under the lock, and made when it is free.
    pub(crate) fn take(&self) -> Vec<Arc<DeferredWake>> {
        if self.is_any.load(Ordering::Acquire) && self.is_any.swap(false, Ordering::AcqRel) {
            return std::mem::take(&mut *lock(&self.wakes));
        }
        Vec::new()
    }
}

/// A wake-up that was put off.
#[derive(Debug)]
pub(crate) struct DeferredWake {
    queue: Arc<DeferredWakes>,
    task: AtomicWaker,
}

impl DeferredWake {
    /// Wakes the task, which runs code of its executor.
    pub(crate) fn wake_now(&self) {
        call_out(|| self.task.wake());
    }
}

/// Forgets the task's waker when nobody waits any more. Whoever was to answer still holds the
/// wake-up, and may drop it under a lock: to drop a waker runs code of its executor, too.
struct ForgottenOnDrop(Option<Arc<DeferredWake>>);

impl Drop for ForgottenOnDrop {
    fn drop(&mut self) {
        if let Some(wake) = &self.0 {
            drop(wake.task.take());
        }
    }
}

impl Wake for DeferredWake {
    fn wake(self: Arc<Self>) {
        let queue = Arc::clone(&self.queue);
        lock(&queue.wakes).push(self);
        queue.is_any.store(true, Ordering::Release);
    }
}

/// Waits until the deadline.
pub(crate) async fn pause(deadline: Deadline) {
    until(pending::<()>(), deadline).await;
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // One inside a blocking call has a deadline of its own.
        block_on(async { assert_eq!(runtime.block_on(until(pending::<()>(), after(20))), None) });
    }

    #[test]
    fn waits_that_spin_in_vain_soon_go_without_and_one_that_is_answered_at_once_spins_again() {
        let (spin, (parker, unparker)) = (Spin::new(), parking::pair());
        // While another thread of the tests spins, this one does not, and nothing changes.
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
    fn the_mode_is_that_of_whoever_runs_the_future() {
        assert_eq!(block_on(WaitMode::of_caller()), WaitMode::Blocking);
        let by_hand = pin!(WaitMode::of_caller()).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(by_hand, Poll::Ready(WaitMode::Async));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        assert_eq!(runtime.block_on(WaitMode::of_caller()), WaitMode::Async);
        block_on(async {
            assert_eq!(runtime.block_on(WaitMode::of_caller()), WaitMode::Async);
        });
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
        let (sender, answer) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || sender.send(7));
        assert_eq!(
            block_on(until(answer, Deadline::after(Duration::MAX))),
            Some(Ok(7))
        );
    }

    #[test]
    fn what_waits_inside_a_poll_takes_no_wake_up_from_what_waits_outside() {
        let (sender, mut answer) = tokio::sync::oneshot::channel();
        let mut sender = Some(sender);
        let outer = poll_fn(|context| {
            let polled = Pin::new(&mut answer).poll(context);
            if let Some(sender) = sender.take() {
                let (inner_sender, inner) = tokio::sync::oneshot::channel();
                // Both are answered while the inner one waits.
                std::thread::spawn(move || {
                    let _ = sender.send(7);
                    let _ = inner_sender.send(8);
                });
                assert_eq!(block_on(inner), Ok(8));
            }
            polled
        });
        assert_eq!(block_on(outer), Ok(7));
    }

    /// The wake-ups that tokio makes by itself come under no lock, where nobody would take them.
    #[test]
    fn a_task_that_has_used_up_its_budget_gets_its_answer() {
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let (sender, answer) = tokio::sync::oneshot::channel();
            sender.send(7).unwrap();
            let wakes = Arc::new(DeferredWakes::default());
            let answered = runtime.block_on(async {
                while tokio::task::coop::has_budget_remaining() {
                    tokio::task::coop::consume_budget().await;
                }
                wakes.run(answer).await
            });
            done.send(answered)
        });
        let answered = is_done.recv_timeout(Duration::from_secs(5));
        assert_eq!(answered.expect("it is answered"), Ok(7));
    }
}

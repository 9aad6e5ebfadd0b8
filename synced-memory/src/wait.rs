//! Waiting for a future on the caller's own thread, with a deadline and without a runtime.
//!
//! A blocking call must not panic inside an async runtime, so nothing here is tokio's.

use crate::clock::Deadline;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

thread_local! {
    static PARKING: (parking::Parker, Waker) = pair();
}

fn pair() -> (parking::Parker, Waker) {
    let (parker, unparker) = parking::pair();
    (parker, unparker.into())
}

/// Runs `future` on this thread; `None` when it is not done at the deadline.
pub(crate) fn block_on<F: Future>(future: F, deadline: Deadline) -> Option<F::Output> {
    // Inside a task, tokio's primitives would ask to be polled again once the task has yielded, which it cannot.
    let mut future = pin!(tokio::task::unconstrained(future));
    let mut wait = |(parker, waker): &(parking::Parker, Waker)| {
        let mut context = Context::from_waker(waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Some(output);
            }
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return None;
            }
            parker.park_timeout(remaining);
        }
    };
    // At the end of a thread its locals go one by one, and a memory that is kept in one may be the last.
    PARKING.try_with(&mut wait).unwrap_or_else(|_| wait(&pair()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_future_that_is_done_is_returned_even_when_the_time_is_over() {
        assert_eq!(block_on(std::future::ready(5), Deadline::after(Duration::ZERO)), Some(5));
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        assert_eq!(block_on(std::future::pending::<()>(), Deadline::after(Duration::from_millis(20))), None);
    }

    #[test]
    fn an_answer_from_another_thread_ends_the_wait() {
        let (tell, answer) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || tell.send(7));
        assert_eq!(block_on(answer, Deadline::after(Duration::MAX)), Some(Ok(7)));
    }
}

use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that makes threads stop.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

/// Sets the flag when it is dropped: a thread scope waits for its threads, even if an assertion in
/// it has failed.
#[must_use]
#[derive(Debug)]
pub struct StopOnDrop<'a>(&'a Stop);

impl Stop {
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub fn on_drop(&self) -> StopOnDrop<'_> {
        StopOnDrop(self)
    }
}

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

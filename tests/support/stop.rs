use std::sync::atomic::{AtomicBool, Ordering};

/// Tells threads to stop.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

/// Tells them when it is dropped: a scope in which a check fails waits for its threads first.
#[must_use]
#[derive(Debug)]
pub struct StopOnDrop<'a>(&'a Stop);

impl Stop {
    pub fn is_told(&self) -> bool {
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

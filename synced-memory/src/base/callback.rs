//! Calling code of the user: events of a subscriber, wakers. It runs under no lock, and may make
//! any call (rule 18).

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::base::lock::assert_unlocked;

/// Runs code of the user that the current call did not ask for. A panic there is reported by the
/// panic hook, and hits nobody else: neither the call that happened to run it, nor what is to be
/// run after it.
pub(crate) fn call_out(callback: impl FnOnce()) {
    assert_unlocked();
    let _ = catch_unwind(AssertUnwindSafe(callback));
}

thread_local! {
    // Without a destructor, so that it is there in the destructors of other locals.
    static IS_IO_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as the I/O thread of a memory.
pub(crate) fn become_io_thread() {
    IS_IO_THREAD.set(true);
}

/// Whether this is the I/O thread of any memory, on which wakers run. A call that waited here would
/// keep a memory from being answered, perhaps the one that it waits for: no call waits.
pub(crate) fn is_io_thread() -> bool {
    IS_IO_THREAD.get()
}

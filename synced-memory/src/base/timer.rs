//! The timer for the deadlines of tasks: a thread with a runtime of tokio's that does nothing else.
//! It is started when a task first waits for a deadline, and there is one for each process.

use std::pin::Pin;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::callback::become_io_thread;
use super::fork::PerProcess;

static TIMER: PerProcess<Option<Timer>> = PerProcess::new();

#[derive(Debug)]
struct Timer {
    runtime: Handle,
    /// The thread ends when this is dropped.
    _running: oneshot::Sender<()>,
}

impl Timer {
    fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("synced-memory-timer".to_owned())
            .spawn(move || {
                // Wakers run on it: a call that waited there would delay all other deadlines.
                become_io_thread();
                runtime.block_on(ended)
            })?;
        Ok(Self {
            runtime: handle,
            _running: running,
        })
    }
}

/// Ready after so long, for a task of any executor; `None` if no thread can be started, or the
/// calling thread is ending.
pub(crate) fn sleep(length: Duration) -> Option<Pin<Box<Sleep>>> {
    let is_ending = Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed());
    if is_ending {
        return None;
    }
    let timer = TIMER.get(|| Timer::start().ok());
    let timer = timer.1.as_ref()?;
    let _context = timer.runtime.enter();
    Some(Box::pin(tokio::time::sleep(length)))
}

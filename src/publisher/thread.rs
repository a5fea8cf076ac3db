//! The publisher's thread, and `block_on` for callers without a runtime.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};

use tokio::runtime;

use super::queue::Queue;
use super::report::Reporter;
use super::sender::Sender;

/// Starts the thread that sends and reports. The thread has a runtime of its own, so that callers need none, and a
/// caller's runtime that is busy or ends does not delay the sending.
pub(super) fn start(sender: Sender, reporter: Reporter) -> io::Result<()> {
    /// Ends the publisher with its thread, even if the thread panics, so that no caller waits for ever.
    struct End(Arc<Queue>);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.abandon();
            self.0.end();
        }
    }

    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("fanfare-publish".to_owned()).spawn(move || {
        let end = End(sender.queue.clone());
        let queue = sender.queue.clone();
        runtime.block_on(until(queue.time_is_over(), beside(reporter.run(), sender.run())));
        // Before a caller of `close` goes on, and perhaps ends the process.
        queue.abandon();
        reporter.report();
        drop(end);
        // This does not wait for a DNS lookup that is still running.
        runtime.shutdown_background();
    })?;
    Ok(())
}

/// Runs `work` until it ends or `cut` does.
async fn until(cut: impl Future<Output = ()>, work: impl Future<Output = ()>) {
    let (mut cut, mut work) = (pin!(cut), pin!(work));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Pending => cut.as_mut().poll(cx),
        done => done,
    })
    .await;
}

/// Runs `work` to its end, and `endless` beside it.
async fn beside(endless: impl Future<Output = Infallible>, work: impl Future<Output = ()>) {
    let endless = async {
        endless.await;
    };
    until(endless, work).await;
}

/// Runs a future in this thread, which sleeps while the future waits.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

//! The publisher's thread, and waiting for it in a thread that has no runtime.

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

/// Starts the thread that sends and reports. It has a runtime of its own, so that callers need none, and none of theirs
/// that is busy or ends holds the sending up.
pub(super) fn start(sender: Sender, reporter: Reporter) -> io::Result<()> {
    /// Ends the publisher with its thread, also where that panics: nobody waits for what will not come.
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
        // Before who closes it goes on, and perhaps ends the process.
        queue.abandon();
        reporter.report();
        drop(end);
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
    })?;
    Ok(())
}

/// Runs `work` to its end, or to when `cut` has one.
async fn until(cut: impl Future<Output = ()>, work: impl Future<Output = ()>) {
    let (mut cut, mut work) = (pin!(cut), pin!(work));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Pending => cut.as_mut().poll(cx),
        done => done,
    })
    .await;
}

/// Runs `work` to its end, and beside it what has none.
async fn beside(endless: impl Future<Output = Infallible>, work: impl Future<Output = ()>) {
    let endless = async {
        endless.await;
    };
    until(endless, work).await;
}

/// Runs a future in this thread, which sleeps while it waits.
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

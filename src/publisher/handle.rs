//! The handle of a publisher, by which a service publishes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::encode::{Event, Stamp};
use super::queue::{Figures, Queue};
use super::rejected::Rejected;
use super::thread::block_on;

/// A publisher. It is cheap to clone; all clones share one queue and one connection.
///
/// When the last clone is dropped, queued events are still sent for as long as the process runs, but dropping does not
/// wait for that. [`close`](Publisher::close) does.
#[derive(Debug, Clone)]
pub struct Publisher {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    queue: Arc<Queue>,
    stamp: Stamp,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close(None);
    }
}

impl Publisher {
    pub(super) fn new(queue: Arc<Queue>, stamp: Stamp) -> Publisher {
        Publisher { handle: Arc::new(Handle { queue, stamp }) }
    }

    /// Publishes an event: `data` must be written as a JSON object, such as a struct or a map is. Numbers leave as they
    /// are written, of any size. It belongs to the user that `data.user_id` names; without one it is public, and
    /// [`for_users`](Publisher::for_users) is how to name its users.
    ///
    /// It never waits for the broker, nor for room in the queue. It may be called from any thread, in a runtime or not.
    ///
    /// # Errors
    /// [`Rejected`], if the event was dropped. The drop has been counted and will be reported.
    pub fn publish<T: Serialize + ?Sized>(&self, topic: &str, kind: &str, data: &T) -> Result<(), Rejected> {
        self.publish_to(None, topic, kind, data)
    }

    /// As [`publish`](Publisher::publish), but if the queue is full, it waits for room. This is for tools that pass on
    /// what they read as fast as the broker takes it.
    ///
    /// # Errors
    /// [`Rejected`], but never [`Rejected::Full`].
    pub async fn send<T: Serialize + ?Sized>(&self, topic: &str, kind: &str, data: &T) -> Result<(), Rejected> {
        let event = self.encode(None, topic, kind, data)?;
        self.handle.queue.push_when_there_is_room(event).await
    }

    /// Publishes to these users only, whatever `data.user_id` says.
    ///
    /// ```no_run
    /// # fn f(events: fanfare::publisher::Publisher, transfer: fanfare::publisher::Transaction<'_>) {
    /// let _ = events.for_users(&["ann", "bob"]).transactions().completed(&transfer);
    /// # }
    /// ```
    pub fn for_users<'a>(&'a self, users: &'a [&'a str]) -> ForUsers<'a> {
        ForUsers { publisher: self, users: Some(users) }
    }

    /// Figures of all events that were published so far.
    pub fn figures(&self) -> Figures {
        self.handle.queue.figures()
    }

    /// The id that the broker gave the last event that it accepted, if it has accepted any.
    pub fn last_id(&self) -> Option<String> {
        self.handle.queue.last_id()
    }

    /// Waits until every event that was queued before is accepted or dropped. Publishing goes on meanwhile. It takes as
    /// long as the broker does or, if the broker does not answer,
    /// [`Builder::give_up_after`](super::Builder::give_up_after).
    ///
    /// It works in any async runtime.
    pub async fn flush(&self) -> Figures {
        self.handle.queue.flushed().await
    }

    /// As [`flush`](Publisher::flush), for code that is not async; async code must not call it, since it blocks its
    /// thread.
    pub fn blocking_flush(&self) -> Figures {
        block_on(self.flush())
    }

    /// Takes no more events, of this clone or any other, sends what is queued, and gives the final figures; after
    /// `within` it drops what is left as `closed`.
    ///
    /// It works in any async runtime; the publisher's own thread keeps the time.
    pub async fn close(&self, within: Duration) -> Figures {
        self.handle.queue.close(Instant::now().checked_add(within));
        self.handle.queue.closed().await
    }

    /// As [`close`](Publisher::close), for code that is not async; async code must not call it, since it blocks its
    /// thread.
    pub fn blocking_close(&self, within: Duration) -> Figures {
        block_on(self.close(within))
    }

    pub(super) fn for_all(&self) -> ForUsers<'_> {
        ForUsers { publisher: self, users: None }
    }

    fn encode<T>(&self, users: Option<&[&str]>, topic: &str, kind: &str, data: &T) -> Result<Event, Rejected>
    where
        T: Serialize + ?Sized,
    {
        Event::encode(topic, kind, users, data, &self.handle.stamp).map_err(|invalid| {
            let rejected = Rejected::Invalid(invalid);
            self.handle.queue.reject(&rejected);
            rejected
        })
    }

    fn publish_to<T>(&self, users: Option<&[&str]>, topic: &str, kind: &str, data: &T) -> Result<(), Rejected>
    where
        T: Serialize + ?Sized,
    {
        let event = self.encode(users, topic, kind, data)?;
        self.handle.queue.push(event)
    }
}

/// A [`Publisher`] for events that belong to certain users.
#[derive(Debug, Clone, Copy)]
pub struct ForUsers<'a> {
    publisher: &'a Publisher,
    users: Option<&'a [&'a str]>,
}

impl<'a> ForUsers<'a> {
    /// As [`Publisher::publish`].
    ///
    /// # Errors
    /// [`Rejected`], also where there is no user, or one without a name: the event would be public.
    pub fn publish<T: Serialize + ?Sized>(&self, topic: &str, kind: &str, data: &T) -> Result<(), Rejected> {
        self.publisher.publish_to(self.users, topic, kind, data)
    }

    /// As [`publish`](ForUsers::publish), for data that names `user`: without other users, the event belongs to that
    /// user, who must have a name.
    pub(super) fn publish_of<T>(&self, user: &str, topic: &str, kind: &str, data: &T) -> Result<(), Rejected>
    where
        T: Serialize + ?Sized,
    {
        self.publisher.publish_to(Some(self.users.unwrap_or(&[user])), topic, kind, data)
    }

    /// As [`Publisher::send`].
    ///
    /// # Errors
    /// As [`publish`](ForUsers::publish), but never [`Rejected::Full`].
    pub async fn send<T: Serialize + ?Sized>(&self, topic: &str, kind: &str, data: &T) -> Result<(), Rejected> {
        let event = self.publisher.encode(self.users, topic, kind, data)?;
        self.publisher.handle.queue.push_when_there_is_room(event).await
    }
}

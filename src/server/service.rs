//! The hand-rolled hyper service: a request goes to its endpoint by method and path.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Version};
use tokio::sync::watch;
use tracing::{Instrument as _, Span};

use crate::auth::token::Verifier;
use crate::auth::{Denied, Listener};
use crate::broker::{Broker, Refused};
use crate::clock::Timestamp;
use crate::fanout::Puller;
use crate::frame::Framing;
use crate::http::access::Access;
use crate::http::admin;
use crate::http::cors::{Cors, Field};
use crate::http::counts::Counts;
use crate::http::idempotency::Answers;
use crate::http::metrics::metrics;
use crate::http::page;
use crate::http::publish::{self, PublishConfig};
use crate::http::reply::{Crowd, Problem, Reply, accepts_events, tell_allowance};
use crate::http::routes::{Endpoint, Route};
use crate::http::stats::{self, Monitor, Recent, Sources};
use crate::http::subscribe::{self, Asker, Opening, SubscribeConfig};
use crate::tls::Tls;
use crate::trace;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all connections share.
#[derive(Debug)]
pub struct Service {
    /// The broker.
    pub broker: Broker,
    /// Bounds on publishing.
    pub publish: PublishConfig,
    /// Bounds on listening.
    pub subscribe: SubscribeConfig,
    /// Who may do what, and how much of it.
    pub access: Access,
    /// Which pages are let in.
    pub cors: Cors,
    /// The answers that repeats of a publish get.
    pub answers: Answers,
    /// What is counted here.
    pub counts: Counts,
    /// What was counted a little earlier.
    pub recent: Recent,
    /// The stats as a stream.
    pub monitor: Monitor,
    /// What TLS is spoken with, where it is.
    pub tls: Option<Arc<Tls>>,
    /// A head's size in bytes at the most ([`super::ServerConfig::max_head`]).
    pub max_head: usize,
    /// Whether there is `/metrics`.
    pub metrics: bool,
    /// Whether there is the page at `/`.
    pub page: bool,
    /// Numbers the requests that bring no id of their own.
    pub request_ids: AtomicU64,
    /// Tells the connections that stay with hyper that the broker stops; each of them holds a receiver.
    pub stopping: watch::Sender<bool>,
}

/// What a request leads to.
pub(super) enum Outcome {
    /// An answer.
    Reply(Reply),
    /// A stream: the connection is to be taken over.
    Stream(Box<Opening>),
    /// One of the others, once the body has been read or something else been waited for.
    Later(Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its address.
    pub(super) address: IpAddr,
    /// Whether the connection stays with hyper, so that its streams pull.
    pub(super) pulls: bool,
    /// Why there is no room for the connection: all that it asks is refused.
    pub(super) crowd: Option<Crowd>,
}

impl Service {
    /// Routes a request.
    pub(super) fn route(self: &Arc<Self>, request: Request<Incoming>, peer: &Peer) -> Outcome {
        let request_id = self.request_id(request.headers());
        let cors = self.cors.fields(request.headers());
        let outcome = self.dispatch(request, peer, &request_id).unwrap_or_else(|problem| self.refuse(&problem));
        headed(outcome, request_id, cors)
    }

    /// The answer to a head that hyper could not read, and answered with `status` by itself; counted as a refusal.
    pub(super) fn broken_head(&self, status: Option<StatusCode>, max_head: usize) -> Vec<u8> {
        let problem = match status {
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => Problem::HeadTooLarge(max_head),
            Some(StatusCode::URI_TOO_LONG) => Problem::HeadTooLarge(max_head),
            Some(StatusCode::REQUEST_TIMEOUT) => Problem::HeadTooSlow,
            _ => Problem::Bad("this is not a request of HTTP/1.1".to_owned()),
        };
        self.counts.problems.count(problem.code());
        problem.to_http1(&self.new_request_id())
    }

    fn dispatch(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: &Peer,
        request_id: &str,
    ) -> Result<Outcome, Problem> {
        check_host(&request)?;
        self.check_head(&request)?;
        if let Some(crowd) = peer.crowd {
            return Ok(turned_away(crowd, &request));
        }
        let (route, method) = (self.find(request.uri().path())?, request.method());
        if route.is_for_operators && matches!(*method, Method::GET | Method::HEAD | Method::DELETE) {
            self.access.check_admin(request.headers())?;
            if *method == Method::DELETE {
                self.cors.check_change(&request)?;
            }
        }
        let answer = |reply| Ok(Outcome::Reply(reply));
        match route.endpoint(method) {
            Some(Endpoint::Events) => self.stream(request, peer, request_id),
            Some(Endpoint::Publish) => self.publish(request, peer, request_id),
            Some(Endpoint::Stats) => Ok(self.stats(request)),
            Some(Endpoint::StatsStream) => self.stats_stream(request, peer, request_id),
            Some(Endpoint::Metrics) => Ok(self.scrape()),
            Some(Endpoint::Page) => answer(self.page(request.headers())?),
            Some(Endpoint::Health) => answer(stats::health()),
            Some(Endpoint::Ready) => answer(stats::ready(&self.broker, self.access.has_keys_for_tokens())),
            Some(Endpoint::Streams) => Ok(self.later(Span::none(), |service| async move {
                Ok(Outcome::Reply(admin::streams(&service.broker, query(&request)).await?))
            })),
            Some(Endpoint::Kick) => Ok(self.later(Span::none(), |service| async move {
                Ok(Outcome::Reply(admin::kick(&service.broker, query(&request)).await?))
            })),
            Some(Endpoint::Topics) => answer(admin::topics(&self.broker, query(&request))?),
            None if *method == Method::OPTIONS => answer(self.cors.options(request.headers(), route)?),
            None => Err(Problem::Method(route)),
        }
    }

    /// The route of a path, but for those that are switched off.
    fn find(&self, path: &str) -> Result<&'static Route, Problem> {
        let is_on = |route: &&Route| match route.endpoint(&Method::GET) {
            Some(Endpoint::Metrics) => self.metrics,
            Some(Endpoint::Page) => self.page,
            _ => true,
        };
        Route::find(path).filter(is_on).ok_or(Problem::NotFound)
    }

    fn stats(self: &Arc<Self>, request: Request<Incoming>) -> Outcome {
        self.later(Span::none(), |service| async move {
            let may_see_topics = service.access.check_insight(request.headers());
            stats::stats(&service.sources(), query(&request), may_see_topics, Timestamp::now())
                .await
                .map(Outcome::Reply)
        })
    }

    fn scrape(self: &Arc<Self>) -> Outcome {
        self.later(Span::none(), |service| async move {
            let now = Timestamp::now();
            let watched = service.broker.watched(now).collect();
            Ok(Outcome::Reply(metrics(service.sources().figures(now).await, watched)))
        })
    }

    fn page(&self, headers: &HeaderMap) -> Result<Reply, Problem> {
        match self.access.check_insight(headers) {
            Ok(()) => Ok(page::page(&self.access)),
            // A browser shows no key by itself. One that is no good is for the sign-in's script to tell.
            Err(problem @ Problem::Denied(Denied::Missing)) => {
                self.counts.problems.count(problem.code());
                Ok(page::sign_in(problem.reply()))
            }
            Err(problem) => Err(problem),
        }
    }

    /// Where figures come from.
    pub fn sources(&self) -> Sources<'_> {
        Sources {
            broker: &self.broker,
            answers: &self.answers,
            limits: self.access.limits(),
            counts: &self.counts,
            tls: self.tls.as_ref().map(|tls| tls.figures()),
            key_set: self.access.verifier().and_then(Verifier::key_set),
            recent: &self.recent,
        }
    }

    fn publish(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: &Peer,
        request_id: &str,
    ) -> Result<Outcome, Problem> {
        self.cors.check_change(&request)?;
        let client = self.access.client(peer.address, request.headers());
        let (begun, span) = (Instant::now(), trace::publish(request.headers(), request_id));
        Ok(self.later(span, move |service| async move {
            let (publisher, allowance) = service.access.admit_publisher(request.headers(), client).await?;
            let Service { broker, answers, publish: config, .. } = &*service;
            let mut reply = publish::publish(broker, answers, config, &publisher, request).await?;
            if let Some(allowance) = allowance {
                tell_allowance(&mut reply, &allowance);
            }
            service.counts.publishes.observe(begun.elapsed(), 1);
            Ok(Outcome::Reply(reply))
        }))
    }

    fn stream(self: &Arc<Self>, request: Request<Incoming>, peer: &Peer, request_id: &str) -> Result<Outcome, Problem> {
        let span = trace::subscribe(request.headers(), request_id);
        let events = is_for_events(&request);
        let opened = span.in_scope(|| self.open(bodiless(request)?, peer, request_id, &span));
        opened.or_else(|problem| {
            span.record("refused", problem.code());
            self.refuse_stream(problem, events)
        })
    }

    /// Refuses a stream: where the problem passes by itself, in the way that `EventSource` survives, if the client reads
    /// events.
    fn refuse_stream(&self, problem: Problem, events: bool) -> Result<Outcome, Problem> {
        let refusal = if events { problem.refusal(Timestamp::now()) } else { None };
        let refusal = refusal.ok_or_else(|| problem.clone())?;
        self.counts.problems.count(problem.code());
        Ok(Outcome::Reply(refusal))
    }

    fn open(self: &Arc<Self>, head: Parts, peer: &Peer, request_id: &str, span: &Span) -> Result<Outcome, Problem> {
        match self.access.listener(&head, Timestamp::now()) {
            // The keys that tokens are signed with may have changed.
            Err(Denied::UnknownSigner | Denied::KeysUnavailable) => {
                let (peer, request_id) = (*peer, request_id.to_owned());
                let events = accepts_events(&head.headers) && head.method == Method::GET;
                Ok(self.later(span.clone(), move |service| async move {
                    service.access.refresh().await;
                    let listener = service.access.listener(&head, Timestamp::now());
                    let opened = listener
                        .map_err(Problem::from)
                        .and_then(|listener| service.let_in(&head, &listener, &peer, &request_id));
                    opened.or_else(|problem| service.refuse_stream(problem, events))
                }))
            }
            listener => self.let_in(&head, &listener?, peer, request_id),
        }
    }

    fn let_in(&self, head: &Parts, listener: &Listener, peer: &Peer, request_id: &str) -> Result<Outcome, Problem> {
        self.open_from(&self.broker, head, listener, peer, request_id)
    }

    fn stats_stream(&self, request: Request<Incoming>, peer: &Peer, request_id: &str) -> Result<Outcome, Problem> {
        let events = is_for_events(&request);
        self.open_stats(request, peer, request_id).or_else(|problem| self.refuse_stream(problem, events))
    }

    fn open_stats(&self, request: Request<Incoming>, peer: &Peer, request_id: &str) -> Result<Outcome, Problem> {
        let head = bodiless(request)?;
        self.access.check_insight(&head.headers)?;
        let broker = self.monitor.broker().map_err(|error| {
            tracing::error!(%error, "cannot start the stream of stats");
            Problem::Refused(Refused::Full)
        })?;
        let mut outcome = self.open_from(broker, &head, &Listener::Anyone, peer, request_id)?;
        if let Outcome::Stream(opening) = &mut outcome {
            opening.is_of_stats = true;
        }
        Ok(outcome)
    }

    /// An answer to `HEAD`, else a stream of this broker.
    fn open_from(
        &self,
        broker: &Broker,
        head: &Parts,
        listener: &Listener,
        peer: &Peer,
        request_id: &str,
    ) -> Result<Outcome, Problem> {
        if head.method == Method::HEAD {
            return subscribe::probe(&self.subscribe, head, listener).map(Outcome::Reply);
        }
        let framing = match head.version {
            Version::HTTP_11 if !peer.pulls => Framing::Chunked,
            _ => Framing::Plain,
        };
        let client = self.access.client(peer.address, &head.headers);
        let asker = Asker { listener, client, framing, request_id, listed: self.access.keys().has_admin() };
        let opening = subscribe::subscribe(broker, &self.subscribe, self.access.limits(), head, &asker)?;
        Ok(Outcome::Stream(Box::new(opening)))
    }

    /// Gives an opened stream its connection, and perhaps the caller a shard to wake, as [`Broker::open`].
    pub(super) fn hand_over(&self, opening: Opening, socket: std::net::TcpStream) -> Option<usize> {
        let head = opening.head();
        match self.monitor.started().filter(|_| opening.is_of_stats) {
            None => self.broker.open(opening.admitted, socket, head),
            Some(monitor) => {
                monitor.wake(monitor.open(opening.admitted, socket, head));
                None
            }
        }
    }

    /// Opens a stream whose bytes somebody else writes: as hyper has them, its head and its body.
    pub(super) fn pull(&self, opening: Opening) -> (hyper::http::response::Parts, Puller) {
        let broker = self.monitor.started().filter(|_| opening.is_of_stats).unwrap_or(&self.broker);
        let (parts, admitted) = opening.into_response();
        (parts, broker.pull(admitted))
    }

    /// What cannot be said at once.
    fn later<F>(self: &Arc<Self>, span: Span, work: impl FnOnce(Arc<Service>) -> F) -> Outcome
    where
        F: Future<Output = Result<Outcome, Problem>> + Send + 'static,
    {
        let (service, outcome) = (self.clone(), work(self.clone()));
        let settled = async move {
            outcome.await.unwrap_or_else(|problem| {
                Span::current().record("refused", problem.code());
                service.refuse(&problem)
            })
        };
        Outcome::Later(Box::pin(settled.instrument(span)))
    }

    fn refuse(&self, problem: &Problem) -> Outcome {
        self.counts.problems.count(problem.code());
        Outcome::Reply(problem.reply())
    }

    /// The request's own id where it brings a usable one, else a new one.
    fn request_id(&self, headers: &HeaderMap) -> String {
        let given = headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok());
        match given.filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())) {
            Some(id) => id.to_owned(),
            None => self.new_request_id(),
        }
    }

    fn new_request_id(&self) -> String {
        format!("req-{}", self.request_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// HTTP/2's heads are bounded here, so that a refusal looks like all others: hyper lets through twice as much, and
    /// measures HTTP/1's itself.
    fn check_head(&self, request: &Request<Incoming>) -> Result<(), Problem> {
        if request.version() != Version::HTTP_2 {
            return Ok(());
        }
        // RFC 9113, section 6.5.2: 32 bytes a field besides its name and value.
        let fields =
            request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum::<usize>();
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        match fields + target > self.max_head {
            true => Err(Problem::HeadTooLarge(self.max_head)),
            false => Ok(()),
        }
    }
}

/// The answer to whatever is asked on a connection for which there is no room. It was counted when it came.
fn turned_away(crowd: Crowd, request: &Request<Incoming>) -> Outcome {
    let problem = Problem::TooManyConnections(crowd);
    let endpoint = Route::find(request.uri().path()).and_then(|route| route.endpoint(request.method()));
    let is_stream = matches!(endpoint, Some(Endpoint::Events | Endpoint::StatsStream)) && is_for_events(request);
    let refusal = if is_stream { problem.refusal(Timestamp::now()) } else { None };
    Outcome::Reply(refusal.unwrap_or_else(|| problem.reply()))
}

fn query(request: &Request<Incoming>) -> &str {
    request.uri().query().unwrap_or_default()
}

fn is_for_events(request: &Request<Incoming>) -> bool {
    *request.method() == Method::GET && accepts_events(request.headers())
}

/// The head of a request for a stream. A body's bytes would be taken for the next request's once the connection is a
/// stream.
fn bodiless(request: Request<Incoming>) -> Result<Parts, Problem> {
    match hyper::body::Body::is_end_stream(request.body()) {
        true => Ok(request.into_parts().0),
        false => Err(Problem::Bad("a request for a stream has no body".to_owned())),
    }
}

/// An outcome with the fields that every answer has.
fn headed(outcome: Outcome, request_id: String, cors: Vec<Field>) -> Outcome {
    match outcome {
        Outcome::Reply(mut reply) => {
            let fields = reply.headers_mut();
            // A made or checked id is always a valid header value.
            if let Ok(id) = HeaderValue::from_str(&request_id) {
                fields.insert(X_REQUEST_ID, id);
            }
            for (name, value) in cors {
                fields.append(name, value);
            }
            Outcome::Reply(reply)
        }
        Outcome::Stream(mut opening) => {
            opening.set_fields(request_id, cors);
            Outcome::Stream(opening)
        }
        Outcome::Later(later) => Outcome::Later(Box::pin(async move { headed(later.await, request_id, cors) })),
    }
}

/// RFC 9112, section 3.2: an HTTP/1.1 request has exactly one `Host`. Two of them are how a request is made to mean
/// one thing to a proxy and another thing here.
fn check_host<B>(request: &Request<B>) -> Result<(), Problem> {
    let hosts = request.headers().get_all(HOST).iter().count();
    match (request.version(), hosts) {
        (Version::HTTP_11, 0) => Err(Problem::Bad("the Host header is missing".to_owned())),
        (_, 0 | 1) => Ok(()),
        _ => Err(Problem::Bad("there is more than one Host header".to_owned())),
    }
}

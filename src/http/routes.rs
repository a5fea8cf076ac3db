//! The routes: each path with its methods and the endpoints that they lead to. Dispatch, `Allow`, the answers to
//! preflights and the commands read this table. No other file of the broker names a path or lists methods.

use hyper::Method;
use hyper::header::HeaderValue;

/// The stream of events.
pub const EVENTS: &str = "/api/v1/events";
/// Where events are published.
pub const BROADCAST: &str = "/api/v1/events/broadcast";
/// The stats, once.
pub const STATS: &str = "/api/v1/events/stats";
/// The stats as a stream.
pub const STATS_STREAM: &str = "/api/v1/events/stats/stream";

/// The purpose of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// A stream of events.
    Events,
    /// A publish.
    Publish,
    /// The stats.
    Stats,
    /// A stream of the stats.
    StatsStream,
    /// The figures for Prometheus.
    Metrics,
    /// The page in a browser.
    Page,
    /// Whether the process answers.
    Health,
    /// Whether new streams should come here.
    Ready,
    /// The streams that are open, for operators.
    Streams,
    /// The end of some of them.
    Kick,
    /// The busiest topics, for operators.
    Topics,
}

/// A path with its methods.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// The path.
    pub path: &'static str,
    /// Its methods with their endpoints. `HEAD` comes with `GET`, and every path answers `OPTIONS`.
    pub methods: &'static [(Method, Endpoint)],
    /// Whether it is for operators only.
    pub is_for_operators: bool,
}

/// All routes.
pub static ROUTES: [Route; 11] = [
    open(EVENTS, &[(Method::GET, Endpoint::Events)]),
    open(BROADCAST, &[(Method::POST, Endpoint::Publish)]),
    open(STATS, &[(Method::GET, Endpoint::Stats)]),
    open(STATS_STREAM, &[(Method::GET, Endpoint::StatsStream)]),
    open("/metrics", &[(Method::GET, Endpoint::Metrics)]),
    open("/", &[(Method::GET, Endpoint::Page)]),
    open("/health", &[(Method::GET, Endpoint::Health)]),
    open("/api/health", &[(Method::GET, Endpoint::Health)]),
    open("/ready", &[(Method::GET, Endpoint::Ready)]),
    operators("/api/v1/admin/streams", &[(Method::GET, Endpoint::Streams), (Method::DELETE, Endpoint::Kick)]),
    operators("/api/v1/admin/topics", &[(Method::GET, Endpoint::Topics)]),
];

const fn open(path: &'static str, methods: &'static [(Method, Endpoint)]) -> Route {
    Route { path, methods, is_for_operators: false }
}

const fn operators(path: &'static str, methods: &'static [(Method, Endpoint)]) -> Route {
    Route { path, methods, is_for_operators: true }
}

impl Route {
    /// The route of a path.
    pub fn find(path: &str) -> Option<&'static Route> {
        ROUTES.iter().find(|route| route.path == path)
    }

    /// The endpoint that a method leads to.
    pub fn endpoint(&self, method: &Method) -> Option<Endpoint> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.methods.iter().find(|(known, _)| known == method).map(|(_, endpoint)| *endpoint)
    }

    /// The methods as `Allow` lists them.
    pub fn allow(&self) -> String {
        let mut allow = String::new();
        for (method, _) in self.methods {
            allow += method.as_str();
            allow += if method == Method::GET { ", HEAD, " } else { ", " };
        }
        allow + Method::OPTIONS.as_str()
    }

    /// The same as a field's value.
    pub fn allow_value(&self) -> HeaderValue {
        HeaderValue::try_from(self.allow()).expect("methods are visible ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_knows_its_methods() {
        let streams = Route::find("/api/v1/admin/streams").expect("it is in the table");
        assert_eq!(streams.endpoint(&Method::HEAD), Some(Endpoint::Streams));
        assert_eq!(streams.endpoint(&Method::DELETE), Some(Endpoint::Kick));
        assert_eq!(streams.endpoint(&Method::POST), None);
        assert_eq!(streams.allow(), "GET, HEAD, DELETE, OPTIONS");
        assert_eq!(Route::find(BROADCAST).map(Route::allow).as_deref(), Some("POST, OPTIONS"));
        assert_eq!(Route::find("/api/v1/events/"), None);
    }
}

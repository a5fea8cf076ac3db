//! The routes: the paths, what is behind each, and the methods that each takes.

use hyper::Method;

/// What is behind a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The page.
    Page,
    /// The stream of events.
    Events,
    /// Publishing.
    Broadcast,
    /// The figures as JSON.
    Stats,
    /// The figures as a stream.
    StatsStream,
    /// The figures for Prometheus.
    Metrics,
    /// Whether the process answers.
    Health,
    /// Whether the broker takes streams.
    Ready,
    /// The open streams: listed, and ended.
    AdminStreams,
    /// The topics with the most listeners.
    AdminTopics,
}

/// A path.
#[derive(Debug)]
pub struct Route {
    path: &'static str,
    /// What is behind it.
    pub endpoint: Endpoint,
    /// The methods that it takes, as `Allow` has them (RFC 9110, section 10.2.1).
    pub allow: &'static str,
}

impl Route {
    const fn new(path: &'static str, endpoint: Endpoint, allow: &'static str) -> Route {
        Route { path, endpoint, allow }
    }

    /// Whether it takes this method.
    pub fn takes(&self, method: &Method) -> bool {
        self.allow.split(", ").any(|allowed| allowed == method.as_str())
    }
}

const READ: &str = "GET, HEAD, OPTIONS";

/// All of them, the busiest first.
const ROUTES: [Route; 11] = [
    Route::new("/api/v1/events", Endpoint::Events, READ),
    Route::new("/api/v1/events/broadcast", Endpoint::Broadcast, "POST, OPTIONS"),
    Route::new("/api/v1/events/stats", Endpoint::Stats, READ),
    Route::new("/api/v1/events/stats/stream", Endpoint::StatsStream, READ),
    Route::new("/metrics", Endpoint::Metrics, READ),
    Route::new("/health", Endpoint::Health, READ),
    Route::new("/api/health", Endpoint::Health, READ),
    Route::new("/ready", Endpoint::Ready, READ),
    Route::new("/", Endpoint::Page, READ),
    Route::new("/api/v1/admin/streams", Endpoint::AdminStreams, "GET, HEAD, DELETE, OPTIONS"),
    Route::new("/api/v1/admin/topics", Endpoint::AdminTopics, READ),
];

/// The route of a path.
pub fn find(path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.path == path)
}

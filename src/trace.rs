//! What the process tells of itself as it goes: the limit on its log ([`held`]), and traces.
//!
//! Of traces: a span for each request that publishes, and for each that opens a stream. There is none for a delivery: one
//! event has as many as there are streams.
//!
//! The spans are `tracing`'s, and exist only with the feature `otlp`, and then only where a collector is set (by the names
//! of OpenTelemetry's own environment variables): a layer of the log exports them. Who sends a `traceparent` (W3C Trace Context)
//! finds them in its own trace.

pub mod held;

use std::fmt::Display;

use hyper::header::HeaderMap;
use tracing::Span;

#[cfg(feature = "otlp")]
pub use export::{Exporter, layer};

/// What the spans are told apart by from all that is logged.
#[cfg(feature = "otlp")]
const TARGET: &str = "fanfare::span";

/// The span of a request to publish.
#[cfg_attr(not(feature = "otlp"), allow(unused_variables, reason = "there is no span to put them into"))]
pub fn publish(headers: &HeaderMap, request_id: &str) -> Span {
    #[cfg(not(feature = "otlp"))]
    return Span::none();
    #[cfg(feature = "otlp")]
    export::follow(
        headers,
        tracing::info_span!(
            target: TARGET,
            "publish",
            otel.kind = "consumer",
            request_id,
            events = tracing::field::Empty,
            id = tracing::field::Empty,
            refused = tracing::field::Empty,
        ),
    )
}

/// The span of a request for a stream, until the stream is open.
#[cfg_attr(not(feature = "otlp"), allow(unused_variables, reason = "there is no span to put them into"))]
pub fn subscribe(headers: &HeaderMap, request_id: &str) -> Span {
    #[cfg(not(feature = "otlp"))]
    return Span::none();
    #[cfg(feature = "otlp")]
    export::follow(
        headers,
        tracing::info_span!(
            target: TARGET,
            "subscribe",
            otel.kind = "server",
            request_id,
            refused = tracing::field::Empty,
        ),
    )
}

/// The events that the current span is about were accepted, the last one by this id.
#[cfg_attr(not(feature = "otlp"), allow(unused_variables, reason = "there is no span to put them into"))]
pub fn accepted(events: usize, id: impl Display) {
    #[cfg(feature = "otlp")]
    // As a signed number: of unsigned ones the exporter makes texts.
    Span::current().record("events", events as i64).record("id", tracing::field::display(id));
}

#[cfg(feature = "otlp")]
mod export {
    use std::fmt;
    use std::io;
    use std::time::Duration;

    use async_trait::async_trait;
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full, Limited};
    use hyper::header::HeaderMap;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    use opentelemetry::propagation::TextMapPropagator as _;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError, Request, Response};
    use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tokio::runtime::{Builder, Runtime};
    use tokio::time::timeout;
    use tracing::{Span, Subscriber};
    use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::registry::LookupSpan;

    use super::TARGET;
    use crate::client::{Connector, connector, reason, server};

    /// A collector is set by one of these (OpenTelemetry specification, "OTLP Exporter Configuration").
    const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

    /// How long an export may take; what it had is lost then, and the SDK says so.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// The most of a collector's answer that is read.
    const ANSWER_MAX: usize = 64 << 10;

    /// What exports spans. To be shut down last of all, so that the last ones get there.
    #[derive(Debug)]
    pub struct Exporter(SdkTracerProvider);

    impl Exporter {
        /// Exports what is left, within some seconds.
        pub fn shut_down(&self) {
            if let Err(error) = self.0.shutdown() {
                tracing::warn!(%error, "the last spans could not be exported");
            }
        }
    }

    /// The layer of the log that exports spans, where a collector is set.
    ///
    /// # Errors
    /// Where the collector's address cannot be read.
    pub fn layer<S>() -> Result<Option<(impl Layer<S> + Send + Sync, Exporter)>, String>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let endpoint = |name: &'static str| Some((name, std::env::var(name).ok().filter(|value| !value.is_empty())?));
        let Some((name, endpoint)) = ENDPOINTS.into_iter().find_map(endpoint) else { return Ok(None) };
        let url = server(&endpoint, "expected a URL such as http://collector:4318");
        let url = url.map_err(|why| format!("{name}: {why}"))?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let client = Client::builder(TokioExecutor::new()).build(connector(&url)?);
        // The endpoint, and what else can be set, the library reads by itself.
        let exporter = SpanExporter::builder().with_http().with_http_client(OwnClient { runtime, client }).build();
        let exporter = exporter.map_err(|error| error.to_string())?;
        let mut provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            provider = provider.with_resource(Resource::builder().with_service_name("fanfare").build());
        }
        let provider = provider.build();
        let tracer = provider.tracer("fanfare");
        let layer =
            OpenTelemetryLayer::new(tracer).with_filter(Targets::new().with_target(TARGET, tracing::Level::INFO));
        Ok(Some((layer, Exporter(provider))))
    }

    /// Makes a span a child of the one that the request names.
    pub(super) fn follow(headers: &HeaderMap, span: Span) -> Span {
        if !span.is_disabled() && headers.contains_key("traceparent") {
            let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
            // An error says that nobody exports it.
            let _ = span.set_parent(parent);
        }
        span
    }

    /// Exports are made by a thread of the library's own, without a runtime: this brings one.
    struct OwnClient {
        runtime: Runtime,
        client: Client<Connector, Full<Bytes>>,
    }

    impl fmt::Debug for OwnClient {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("OwnClient")
        }
    }

    #[async_trait]
    impl HttpClient for OwnClient {
        async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            let exchange = async {
                let answer = self.client.request(request.map(Full::new)).await;
                let (head, body) = answer.map_err(|error| io::Error::other(reason(&error)))?.into_parts();
                let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
                Ok(Response::from_parts(head, body))
            };
            // It blocks that thread, which has nothing else to do.
            match self.runtime.block_on(async { timeout(PATIENCE, exchange).await }) {
                Ok(answer) => answer,
                Err(_) => Err(io::Error::other(format!("no answer within {PATIENCE:?}")).into()),
            }
        }
    }
}

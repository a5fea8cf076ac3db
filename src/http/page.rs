//! `GET /`: a page that shows how it is going, what comes, and how to connect. It gets all it shows from the endpoints
//! that everybody uses.
//!
//! The document is put together by the compiler: it stays in the binary, and is in memory only while somebody loads it.
//! What is published is anybody's text, and an operator's key is at hand here: so the browser is told to run these
//! scripts and no others, and to speak with this server alone (Content Security Policy, Level 3).

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

use super::access::Access;
use super::reply::{Reply, text_reply};

// Macros, since `concat!` takes no constants.
macro_rules! style {
    () => {
        include_str!("page/page.css")
    };
}

/// The page's script: what each of its files declares, the others of them see, and nobody else.
macro_rules! script {
    () => {
        concat!(
            "'use strict';\n(() => {\n",
            include_str!("page/dom.js"),
            include_str!("page/source.js"),
            include_str!("page/chart.js"),
            include_str!("page/figures.js"),
            include_str!("page/topics.js"),
            include_str!("page/live.js"),
            include_str!("page/publish.js"),
            include_str!("page/connect.js"),
            include_str!("page/main.js"),
            "})();\n"
        )
    };
}

macro_rules! sign_in_script {
    () => {
        include_str!("page/sign_in.js")
    };
}

macro_rules! document {
    ($body:literal, $script:ident) => {
        concat!(
            include_str!("page/head.html"),
            "<style>",
            style!(),
            "</style>\n",
            include_str!($body),
            "<script>",
            $script!(),
            "</script>\n"
        )
    };
}

const HTML: &str = "text/html; charset=utf-8";
const PAGE: &str = document!("page/page.html", script);
const SIGN_IN: &str = document!("page/sign_in.html", sign_in_script);

/// The same for both documents: the sign-in puts the page in its own place, and its policy stays.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; connect-src 'self'; img-src data:; script-src {} {}; style-src {}; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        source(script!()),
        source(sign_in_script!()),
        source(style!()),
    );
    HeaderValue::from_str(&policy).expect("it is plain ASCII")
});

/// An element's text as a policy names it.
fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// The page. It knows whether listeners show tokens and publishers show keys, for what it tells of how to connect.
pub fn page(access: &Access) -> Reply {
    let (tokens, keys) = (!access.is_open_to_listeners(), !access.is_open_to_publishers());
    let attributes = format!(" data-tokens=\"{tokens}\" data-keys=\"{keys}\"");
    document(text_reply(StatusCode::OK, HTML, ""), &attributes, PAGE)
}

/// A refusal that asks for a key, for whoever has opened the page in a browser, which shows none by itself.
pub fn sign_in(refusal: Reply) -> Reply {
    document(refusal, "", SIGN_IN)
}

/// Puts a document in an answer; these are the attributes of its root.
fn document(mut reply: Reply, attributes: &str, rest: &'static str) -> Reply {
    let text = format!("<!doctype html>\n<html lang=\"en\"{attributes}>\n{rest}");
    *reply.body_mut() = Full::new(Bytes::from(text));
    let fields = reply.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(HTML));
    fields.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply
}

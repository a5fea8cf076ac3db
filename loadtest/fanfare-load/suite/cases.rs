//! What is run: each case is a scenario at Fanfare and, in turns with it, at what its figures are compared with.

use super::Size;
use crate::scenario::{
    AckArgs, BurstArgs, Events, IdleArgs, OpenArgs, PacedArgs, ReachArgs, ResumeArgs, Scenario, Streams,
};
use crate::token::Signer;

/// Whose figures they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Fanfare, as the case is about it.
    Fanfare,
    /// The plain loop.
    Plain,
    /// Fanfare, which asks for no token and is shown none.
    NoTokens,
    /// Fanfare, with a plain HTTP/1.1 connection for each stream.
    Plaintext,
}

impl Subject {
    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Fanfare => "Fanfare",
            Self::Plain => "plain loop",
            Self::NoTokens => "without tokens",
            Self::Plaintext => "plain HTTP/1.1",
        }
    }

    /// For names of files and keys.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Fanfare => "fanfare",
            Self::Plain => "plain",
            Self::NoTokens => "no-tokens",
            Self::Plaintext => "plaintext",
        }
    }
}

/// One of the two sides of a case.
pub struct Setup {
    pub subject: Subject,
    pub scenario: Scenario,
    /// The server's, without those that every one gets.
    pub arguments: Vec<String>,
    /// The streams go inside TLS.
    pub tls: bool,
    /// The streams go over HTTP/2, so many on a connection.
    pub http2: Option<u32>,
}

pub struct Case {
    pub name: &'static str,
    pub ours: Setup,
    pub beside: Setup,
}

/// Streams on one connection of HTTP/2.
pub const HTTP2_STREAMS: u32 = 100;

/// What the suite's tokens are signed with. No secret: the server it is for ends with the run.
const TOKEN_SECRET: &str = "of the load tests' own servers, which end with each run";

/// All cases, in the order in which they run.
pub fn cases(size: &Size) -> Vec<Case> {
    let streams = Streams { streams: size.streams, ..Streams::default() };
    let events = Events::default();
    let paced = |streams: usize| {
        let streams = Streams { streams, ..Streams::default() };
        Scenario::Paced(PacedArgs { streams, events, rate: size.paced.0, for_s: size.paced.1 })
    };
    let idle = |steps: &[usize], hold_s: f64| {
        let (in_flight, settle_s) = (streams.in_flight, size.idle_settle_s);
        Scenario::Idle(IdleArgs { steps: steps.to_vec(), in_flight, settle_s, hold_s })
    };
    let open = Scenario::Open(OpenArgs { streams, jwt_secret: None });
    let reach = ReachArgs { streams, events, rate: size.reach.0, for_s: size.reach.1 };
    let beside_plain = |scenario: Scenario| Case {
        name: scenario.name(),
        ours: Setup::new(Subject::Fanfare, scenario.clone(), size),
        beside: Setup::new(Subject::Plain, scenario, size),
    };
    let beside_plaintext = |name: &'static str, scenario: Scenario, tls: bool, http2: Option<u32>| Case {
        name,
        ours: Setup { tls, http2, ..Setup::new(Subject::Fanfare, scenario.clone(), size) },
        beside: Setup::new(Subject::Plaintext, scenario, size),
    };
    vec![
        beside_plain(open.clone()),
        Case {
            name: "open-tokens",
            ours: with_tokens(streams, size),
            beside: Setup::new(Subject::NoTokens, open, size),
        },
        beside_plain(idle(&size.idle_steps, size.hold_s)),
        beside_plaintext("idle-tls", idle(&size.tls_steps, 0.0), true, None),
        beside_plaintext("idle-http2", idle(&size.http2_steps, 0.0), false, Some(HTTP2_STREAMS)),
        beside_plain(paced(size.streams)),
        beside_plaintext("paced-tls", paced(size.tls_streams), true, None),
        beside_plaintext("paced-http2", paced(size.streams), false, Some(HTTP2_STREAMS)),
        beside_plain(Scenario::Burst(BurstArgs {
            streams,
            size: events,
            events: size.burst,
            connections: 1,
            limit_s: 120.0,
        })),
        beside_plain(Scenario::Ack(AckArgs { streams, events, rate: size.ack.0, for_s: size.ack.1 })),
        beside_plain(Scenario::Topics(reach.clone())),
        beside_plain(Scenario::Users(reach)),
        beside_plain(Scenario::Resume(ResumeArgs {
            streams: size.streams,
            in_flight: None,
            missed: size.missed,
            events,
        })),
    ]
}

fn with_tokens(streams: Streams, size: &Size) -> Setup {
    let Ok(signer) = Signer::new(TOKEN_SECRET);
    let scenario = Scenario::Open(OpenArgs { streams, jwt_secret: Some(signer) });
    let mut setup = Setup::new(Subject::Fanfare, scenario, size);
    setup.arguments.extend(["--auth", "required", "--jwt-secret", TOKEN_SECRET].map(str::to_owned));
    setup
}

impl Setup {
    /// How often heartbeats come is only said where they are what is measured: the other scenarios are over before
    /// Fanfare's first, and the plain loop sends none unasked.
    fn new(subject: Subject, scenario: Scenario, size: &Size) -> Self {
        let heartbeat = matches!(scenario, Scenario::Idle(_)).then_some(size.heartbeat_s);
        let mut arguments = Vec::new();
        match subject {
            Subject::Plain => {
                arguments.push("plain".to_owned());
                arguments.extend(heartbeat.map(|seconds| format!("--heartbeat-s={seconds}")));
            }
            _ => arguments.extend(heartbeat.map(|seconds| format!("--heartbeat={seconds}s"))),
        }
        Self { subject, scenario, arguments, tls: false, http2: None }
    }
}

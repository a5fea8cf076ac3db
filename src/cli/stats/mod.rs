//! `fanfare stats`: how a broker is doing, live in a terminal, or once for programs.

mod model;
mod view;

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use self::model::Model;
use super::Failure;
use super::follow::{Follow, News};
use super::look::plain;
use super::remote::{self, Refusal, Remote};
use crate::client::{Client, reason};
use crate::config::Span;
use crate::http::routes;

/// How it shows, and how it ends.
const ABOUT: &str = "\
In a terminal it is a view that the broker feeds once a second; q, Esc or Ctrl-C leave it. Elsewhere, or with --json, it
prints what the broker answers, as one line, and ends with 0; with 1 where there is no good answer in time: a health check.
The live view, and the topics, are for operators where the broker has an operator's key.";

/// What `fanfare stats` is told.
#[derive(Debug, Args)]
#[command(after_help = remote::SECRETS, after_long_help = format!("{ABOUT}\n\n{}", remote::SECRETS))]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Once, as the broker's JSON, also in a terminal.
    #[arg(long)]
    json: bool,
    /// How long the answer may take, where it is asked for once.
    #[arg(long, default_value = "5s", value_name = "SPAN")]
    timeout: Span,
}

/// The most that is read of an answer, in bytes: a hundred topics with the longest names take a tenth of it.
const ANSWER_MAX: usize = 1 << 20;

/// Seconds of the past that the view begins with.
const PAST_S: usize = 120;

/// How long nothing may come of what comes once a second.
const IDLE: Duration = Duration::from_secs(15);

/// Shows how things are.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { remote, json, timeout: Span(timeout) } = arguments;
    let client = remote.client()?;
    match *json || !io::stdout().is_terminal() {
        true => {
            let answer = remote::runtime()?.block_on(once(&client, *timeout));
            let answer = answer.map_err(|why| Failure::Failed(format!("{}: {why}", client.base())))?;
            // A terminal acts on characters that JSON may hold as they are.
            let answer = if io::stdout().is_terminal() { plain(&answer) } else { answer.into() };
            super::print(format!("{answer}\n").as_bytes())
        }
        false => live(client, Model::new(&remote.url)),
    }
}

/// The stats as they are answered, in one line.
async fn once(client: &Client, within: Duration) -> Result<String, String> {
    let asking = async {
        let asked = client.send(Method::GET, routes::STATS, HeaderMap::new(), Bytes::new());
        let answer = asked.await.map_err(|unreachable| unreachable.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(Refusal::read(answer).await.to_string());
        }
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| format!("the answer could not be read: {}", reason(&*error)))?.to_bytes();
        // Whoever answers with something else is not a broker that is well.
        let stats: &serde_json::value::RawValue =
            serde_json::from_slice(&body).map_err(|error| format!("the answer is no JSON: {error}"))?;
        Ok(stats.get().replace(['\n', '\r'], " "))
    };
    match tokio::time::timeout(within, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}

/// What the view waits for.
enum Happened {
    News(Result<News, Failure>),
    Terminal(io::Result<event::Event>),
    /// A signal says that it is time to go.
    Asked,
}

/// Shows the view until it is left.
fn live(client: Client, model: Model) -> Result<(), Failure> {
    // Few at a time: a view that does not keep up slows the stream.
    let (tell, happened) = mpsc::sync_channel(16);
    let target = format!("{}?last={PAST_S}", routes::STATS_STREAM);
    let mut follow = Follow::new(client, target, Some(IDLE), None);
    let runtime = remote::runtime()?;
    // Before the screen is taken: who is refused at once should read why.
    let first = runtime.block_on(follow.next())?;
    let signals = runtime.block_on(async { (signal(SignalKind::terminate()), signal(SignalKind::hangup())) });
    let (Ok(mut terminate), Ok(mut hangup)) = signals else {
        return Err(Failure::failed("cannot wait for signals"));
    };
    let told = tell.clone();
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => drop(told.send(Happened::Asked)),
                _ = hangup.recv() => drop(told.send(Happened::Asked)),
                () = feed(follow, first, &told) => {}
            }
        });
    });
    // It is given back at a panic too.
    let mut terminal = ratatui::try_init().map_err(Failure::failed)?;
    thread::spawn(move || while tell.send(Happened::Terminal(event::read())).is_ok() {});
    let shown = show(&mut terminal, model, &happened);
    ratatui::restore();
    shown
}

async fn feed(mut follow: Follow, first: News, tell: &SyncSender<Happened>) {
    let mut news = Ok(first);
    loop {
        let over = news.is_err();
        if tell.send(Happened::News(news)).is_err() || over {
            // The signals go on being waited for until the view has ended.
            return std::future::pending().await;
        }
        news = follow.next().await;
    }
}

fn show(terminal: &mut DefaultTerminal, mut model: Model, happened: &Receiver<Happened>) -> Result<(), Failure> {
    loop {
        terminal.draw(|frame| view::draw(&model, frame)).map_err(Failure::failed)?;
        // Without news, what is told of how long ago it was goes on.
        let mut next = happened.recv_timeout(Duration::from_secs(1)).ok();
        while let Some(happened_now) = next {
            match happened_now {
                Happened::Asked => return Ok(()),
                Happened::Terminal(event) => {
                    if event.map_err(Failure::failed)?.as_key_press_event().is_some_and(leaves) {
                        return Ok(());
                    }
                }
                Happened::News(news) => model.take(news?, Instant::now()),
            }
            // All that has come is seen at once.
            next = happened.try_recv().ok();
        }
    }
}

fn leaves(key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c' | 'd') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

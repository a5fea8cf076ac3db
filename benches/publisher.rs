//! What publishing costs a service: the CPU of one call, and how many events a second a broker on the same machine takes.
//!
//! The broker is the real binary, in a process of its own.

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanfare::publisher::{Publisher, Rejected, Transaction, TransactionKind};
use serde_json::value::RawValue;

/// Events of one flush.
const MANY: u64 = 10_000;

/// The platform's commonest event, of about 330 bytes as it is sent.
const EVENT: Transaction<'static> = Transaction {
    transaction_id: "7f9c2ba4-e88f-4b1a",
    kind: TransactionKind::Transfer,
    status: "pending",
    amount: 10_000,
    currency: "INR",
    source_wallet_id: Some("w-1024"),
    destination_wallet_id: Some("w-2048"),
    description: "monthly rent",
};

/// A broker; it ends with this value.
struct Broker {
    process: Child,
    url: String,
}

impl Broker {
    fn start() -> Broker {
        let mut process = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the broker starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let url = line.trim().split_once("listening on ").expect("an address").1.to_owned();
        Broker { process, url }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One call, while the thread that sends is asleep: a request is under way to nobody, and the queue takes all.
fn call(c: &mut Criterion) {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("a bound socket has an address");
    let publisher = |stamp, events| {
        let builder = Publisher::builder("bench").url(&format!("http://{address}")).stamp(stamp);
        builder
            .queue_events(events)
            .queue_bytes(1 << 30)
            .timeout(Duration::from_secs(3600))
            .build()
            .expect("a publisher")
    };
    let raw = serde_json::value::to_raw_value(&EVENT).expect("it is JSON");
    let mut group = c.benchmark_group("a call of publish");
    group.throughput(Throughput::Elements(1));
    let mut run = |name: &str, stamp: bool, room: usize, data: &dyn Fn(&Publisher) -> Result<(), Rejected>| {
        group.bench_function(name, |b| {
            // A queue that nobody empties takes so many calls; each further thousand gets a new one.
            b.iter_custom(|calls| {
                let mut spent = Duration::ZERO;
                let mut left = calls;
                while left > 0 {
                    let some = left.min(MANY);
                    let events = publisher(stamp, room);
                    let _ = data(&events);
                    let began = Instant::now();
                    for _ in 0..some {
                        let _ = black_box(data(&events));
                    }
                    spent += began.elapsed();
                    left -= some;
                    events.blocking_close(Duration::ZERO);
                }
                spent
            });
        });
    };
    let many = MANY as usize + 1;
    run("a struct, stamped", true, many, &|events| events.transactions().created(&EVENT));
    run("a struct, as it is", false, many, &|events| events.transactions().created(&EVENT));
    run("raw JSON, as it is", false, many, &|events| {
        events.publish::<RawValue>("transactions", "transaction.created", &raw)
    });
    run("a struct, stamped, into a full queue", true, 1, &|events| events.transactions().created(&EVENT));
    group.finish();
}

/// Events of a burst, from the first call until the broker has accepted the last one.
fn accepted(c: &mut Criterion) {
    let broker = Broker::start();
    let mut group = c.benchmark_group("published and accepted");
    group.throughput(Throughput::Elements(MANY));
    group.sample_size(20);
    for batch in [1, 50, 500, 2000] {
        let events = Publisher::builder("bench").url(&broker.url).max_batch(batch).queue_events(MANY as usize);
        let events = events.build().expect("a publisher");
        group.bench_function(format!("{MANY} events, in batches of {batch} at most"), |b| {
            b.iter(|| {
                for _ in 0..MANY {
                    events.transactions().created(&EVENT).expect("there is room");
                }
                events.blocking_flush()
            });
        });
        let figures = events.blocking_close(Duration::from_secs(5));
        assert_eq!(figures.accepted, figures.published, "{figures:?}");
    }
    group.finish();
}

criterion_group!(benches, call, accepted);
criterion_main!(benches);

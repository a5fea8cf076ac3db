//! A service that publishes: one event of each kind that the platform knows, to where `GATEWAY_URL` says.
//!
//! ```sh
//! curl -N 'http://127.0.0.1:8000/api/v1/events' &                    # somebody who listens
//! GATEWAY_URL=http://127.0.0.1:8000 cargo run --example wallet-service
//! ```
//!
//! `FANFARE_KEY` is the service's API key, where the broker asks for one. It prints what became of the events, and fails
//! where not all of them were accepted.

use std::process::ExitCode;
use std::time::Duration;

use fanfare::publisher::{Publisher, Rejected, StatusChange, Transaction, TransactionKind, User, Wallet, WalletAction};
use serde_json::json;

fn main() -> ExitCode {
    let events = match Publisher::from_env("wallet-service") {
        Ok(events) => events,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(64);
        }
    };
    if let Err(rejected) = publish(&events) {
        eprintln!("{rejected}");
    }
    // What is queued is sent before the process ends, but the broker is not waited for longer than this.
    let figures = events.blocking_close(Duration::from_secs(5));
    println!("{figures:#?}");
    match figures.accepted == figures.published {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A service would go on where an event is rejected, which is counted and reported by itself.
fn publish(events: &Publisher) -> Result<(), Rejected> {
    let user = User {
        user_id: "ann",
        phone: "+911234567890",
        full_name: "Ann Example",
        status: "pending",
        kyc_status: "pending",
        rejection_reason: None,
    };
    events.users().registered(&user)?;
    events.users().kyc_updated(&User { kyc_status: "verified", ..user })?;
    events.users().status_changed(&User { status: "active", kyc_status: "verified", ..user })?;

    let wallet = Wallet {
        wallet_id: "w-1024",
        user_id: "ann",
        kind: "default",
        currency: "INR",
        status: "inactive",
        balance: 0,
        available_balance: 0,
    };
    events.wallets().created(&wallet)?;
    let wallet = Wallet { status: "active", ..wallet };
    let activated = StatusChange { action: WalletAction::Activated, old_status: "inactive", new_status: "active" };
    events.wallets().status_changed(&wallet, &activated)?;

    // Its data names no user: who may see it is said beside it.
    let (both, one) = (["ann", "bob"], ["ann"]);
    let deposit = Transaction {
        transaction_id: "7f9c2ba4",
        kind: TransactionKind::Deposit,
        status: "pending",
        amount: 50_000,
        currency: "INR",
        source_wallet_id: None,
        destination_wallet_id: Some("w-1024"),
        description: "salary",
    };
    events.for_users(&one).transactions().created(&deposit)?;
    events.for_users(&one).transactions().completed(&Transaction { status: "completed", ..deposit })?;
    events.wallets().balance_updated(&Wallet { balance: 50_000, available_balance: 50_000, ..wallet })?;
    let transfer = Transaction {
        transaction_id: "e88f4b1a",
        kind: TransactionKind::Transfer,
        status: "failed",
        amount: 10_000,
        source_wallet_id: Some("w-1024"),
        destination_wallet_id: Some("w-2048"),
        description: "monthly rent",
        ..deposit
    };
    events.for_users(&both).transactions().failed(&transfer)?;

    events.risk().alert(&json!({ "user_id": "ann", "score": 87, "rule": "velocity" }))?;
    events.risk().event("risk.score_changed", &json!({ "user_id": "ann", "score": 12 }))?;

    // Any other.
    events.publish("announcements", "maintenance", &json!({ "in_minutes": 30 }))
}

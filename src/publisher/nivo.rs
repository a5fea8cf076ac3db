//! The Nivo platform's events by name: each with the fields that its catalogue gives it, and no others but those that
//! the publisher adds.
//!
//! Amounts are whole numbers in the currency's minor unit, and leave as such.

use serde::Serialize;

use super::handle::{ForUsers, Publisher};
use super::rejected::Rejected;

impl Publisher {
    /// Events of the topic `transactions`. They name no user in their data: without [`for_users`](Publisher::for_users)
    /// they are public.
    pub fn transactions(&self) -> Transactions<'_> {
        Transactions(self.for_all())
    }

    /// Events of the topic `wallets`.
    pub fn wallets(&self) -> Wallets<'_> {
        Wallets(self.for_all())
    }

    /// Events of the topic `users`.
    pub fn users(&self) -> Users<'_> {
        Users(self.for_all())
    }

    /// Events of the topic `risk`.
    pub fn risk(&self) -> Risk<'_> {
        Risk(self.for_all())
    }
}

impl<'a> ForUsers<'a> {
    /// As [`Publisher::transactions`].
    pub fn transactions(self) -> Transactions<'a> {
        Transactions(self)
    }

    /// As [`Publisher::wallets`].
    pub fn wallets(self) -> Wallets<'a> {
        Wallets(self)
    }

    /// As [`Publisher::users`].
    pub fn users(self) -> Users<'a> {
        Users(self)
    }

    /// As [`Publisher::risk`].
    pub fn risk(self) -> Risk<'a> {
        Risk(self)
    }
}

/// A movement of money, as the topic `transactions` tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Transaction<'a> {
    /// Which one.
    pub transaction_id: &'a str,
    /// What it does.
    #[serde(rename = "type")]
    pub kind: TransactionKind,
    /// How far it is.
    pub status: &'a str,
    /// How much, in the currency's minor unit.
    pub amount: i64,
    /// ISO 4217.
    pub currency: &'a str,
    /// Where it comes from, if from a wallet; left out where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_wallet_id: Option<&'a str>,
    /// Where it goes, if to a wallet; left out where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_wallet_id: Option<&'a str>,
    /// What for.
    pub description: &'a str,
}

/// What a [`Transaction`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransactionKind {
    /// From one wallet to another.
    Transfer,
    /// Into a wallet, from outside.
    Deposit,
    /// Out of a wallet.
    Withdrawal,
}

/// A wallet as it is now, as the topic `wallets` tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Wallet<'a> {
    /// Which one.
    pub wallet_id: &'a str,
    /// Whose; the event is seen by this user only.
    pub user_id: &'a str,
    /// What kind of wallet.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// ISO 4217.
    pub currency: &'a str,
    /// Its state.
    pub status: &'a str,
    /// What is in it, in the currency's minor unit.
    pub balance: i64,
    /// What of it can be spent, in the currency's minor unit.
    pub available_balance: i64,
}

/// How a wallet's state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StatusChange<'a> {
    /// What was done to it.
    pub action: WalletAction,
    /// Its state before.
    pub old_status: &'a str,
    /// Its state since.
    pub new_status: &'a str,
}

/// What was done to a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WalletAction {
    /// It can be used.
    Activated,
    /// It cannot be used for now.
    Frozen,
    /// It can be used again.
    Unfrozen,
    /// It cannot be used any more.
    Closed,
}

/// A user as they are now, as the topic `users` tells of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct User<'a> {
    /// Who; the event is seen by this user only.
    pub user_id: &'a str,
    /// Their telephone's number.
    pub phone: &'a str,
    /// Their name.
    pub full_name: &'a str,
    /// The account's state.
    pub status: &'a str,
    /// How far it is known who they are.
    pub kyc_status: &'a str,
    /// Why that was refused; left out where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejection_reason: Option<&'a str>,
}

/// Events of the topic `transactions`. Their data names no user: without [`for_users`](super::Publisher::for_users) all
/// listeners see them.
///
/// ```no_run
/// # use fanfare::publisher::{Publisher, Transaction, TransactionKind};
/// # fn f(events: Publisher) -> Result<(), fanfare::publisher::Rejected> {
/// events.for_users(&["ann", "bob"]).transactions().created(&Transaction {
///     transaction_id: "7f9c2ba4",
///     kind: TransactionKind::Transfer,
///     status: "pending",
///     amount: 10_000,
///     currency: "INR",
///     source_wallet_id: Some("w-1024"),
///     destination_wallet_id: Some("w-2048"),
///     description: "monthly rent",
/// })
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Transactions<'a>(pub(super) ForUsers<'a>);

impl Transactions<'_> {
    /// `transaction.created`.
    ///
    /// # Errors
    /// [`Rejected`], as [`Publisher::publish`](super::Publisher::publish); so do all others here.
    pub fn created(&self, transaction: &Transaction<'_>) -> Result<(), Rejected> {
        self.0.publish("transactions", "transaction.created", transaction)
    }

    /// `transaction.completed`.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn completed(&self, transaction: &Transaction<'_>) -> Result<(), Rejected> {
        self.0.publish("transactions", "transaction.completed", transaction)
    }

    /// `transaction.failed`.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn failed(&self, transaction: &Transaction<'_>) -> Result<(), Rejected> {
        self.0.publish("transactions", "transaction.failed", transaction)
    }
}

/// Events of the topic `wallets`.
#[derive(Debug, Clone, Copy)]
pub struct Wallets<'a>(pub(super) ForUsers<'a>);

impl Wallets<'_> {
    /// `wallet.created`.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn created(&self, wallet: &Wallet<'_>) -> Result<(), Rejected> {
        self.0.publish_of(wallet.user_id, "wallets", "wallet.created", wallet)
    }

    /// `wallet.status_changed`: the wallet as it is since, and the change.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn status_changed(&self, wallet: &Wallet<'_>, change: &StatusChange<'_>) -> Result<(), Rejected> {
        #[derive(Serialize)]
        struct Changed<'a> {
            #[serde(flatten)]
            wallet: &'a Wallet<'a>,
            #[serde(flatten)]
            change: &'a StatusChange<'a>,
        }
        self.0.publish_of(wallet.user_id, "wallets", "wallet.status_changed", &Changed { wallet, change })
    }

    /// `wallet.balance_updated`.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn balance_updated(&self, wallet: &Wallet<'_>) -> Result<(), Rejected> {
        self.0.publish_of(wallet.user_id, "wallets", "wallet.balance_updated", wallet)
    }
}

/// Events of the topic `users`.
#[derive(Debug, Clone, Copy)]
pub struct Users<'a>(pub(super) ForUsers<'a>);

impl Users<'_> {
    /// `user.registered`.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn registered(&self, user: &User<'_>) -> Result<(), Rejected> {
        self.0.publish_of(user.user_id, "users", "user.registered", user)
    }

    /// `user.kyc_updated`.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn kyc_updated(&self, user: &User<'_>) -> Result<(), Rejected> {
        self.0.publish_of(user.user_id, "users", "user.kyc_updated", user)
    }

    /// `user.status_changed`.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn status_changed(&self, user: &User<'_>) -> Result<(), Rejected> {
        self.0.publish_of(user.user_id, "users", "user.status_changed", user)
    }
}

/// Events of the topic `risk`. Their data is the caller's: where it has no `user_id`, all listeners see it unless
/// [`for_users`](super::Publisher::for_users) says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Risk<'a>(pub(super) ForUsers<'a>);

impl Risk<'_> {
    /// `risk.alert`.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn alert<T: Serialize + ?Sized>(&self, data: &T) -> Result<(), Rejected> {
        self.event("risk.alert", data)
    }

    /// Any other, by its whole type, such as `risk.score_changed`.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn event<T: Serialize + ?Sized>(&self, kind: &str, data: &T) -> Result<(), Rejected> {
        self.0.publish("risk", kind, data)
    }
}

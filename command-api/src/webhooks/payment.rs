//! Payment: everything that webhooks have said of one payment, and what of it the journal is to be told next.

use std::collections::{BTreeMap, BTreeSet};

use ledger_core::credits::Credits;
use ledger_core::id::Id;
use runtime::pg::{self, PgConnection, PgPool, credits_of, numeric_text};
use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::heard::{Heard, What};

/// One payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The provider's id.
    pub payment_id: Id,
    /// Whose it is; none until a webhook says so.
    pub account: Option<Id>,
    /// The top-up that it is for.
    pub attempt: Option<Id>,
    /// What it buys, in the account's unit.
    amount: Option<Credits>,
    /// What it cost, in the provider's smallest unit, as the next ones.
    charged: Option<i64>,
    /// All refunds together.
    refunded: i64,
    disputes: BTreeMap<Id, Disputed>,
    told: Told,
}

/// A dispute as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Disputed {
    amount: i64,
    opened: bool,
    won: bool,
}

/// What the journal has been told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// Whether a webhook has said that it is paid.
    is_paid: bool,
    paid: bool,
    /// Why it failed, where a webhook has said so.
    failure: Option<String>,
    failed: bool,
    refunded: i64,
    opened: BTreeSet<Id>,
    won: BTreeSet<Id>,
}

/// What the journal is to be told, amounts in the account's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// It was paid.
    Paid { amount: Credits },
    /// It was not.
    Failed { reason: String },
    /// So much more was given back, `total` together in the provider's smallest unit.
    Refunded { amount: Credits, total: i64 },
    /// It is contested.
    Opened { dispute: Id, amount: Credits },
    /// The payer was not right.
    Won { dispute: Id, amount: Credits },
}

impl Payment {
    fn new(payment_id: Id) -> Self {
        Self {
            payment_id,
            account: None,
            attempt: None,
            amount: None,
            charged: None,
            refunded: 0,
            disputes: BTreeMap::new(),
            told: Told::default(),
        }
    }

    /// Takes in a webhook; `priced`: what the payment cost by the account's price.
    pub fn hear(&mut self, heard: &Heard, priced: Option<i64>) {
        self.account = self.account.take().or_else(|| heard.account.clone());
        self.attempt = self.attempt.take().or_else(|| heard.attempt.clone());
        self.amount = self.amount.or(heard.amount);
        match &heard.what {
            What::Paid { charged } => {
                self.told.is_paid = true;
                self.charged = self.charged.or(*charged).or(priced);
            }
            What::Failed { reason } => self.told.failure = Some(reason.clone()),
            What::Refunded { total, charged } => {
                self.refunded = self.refunded.max(*total);
                self.charged = charged.or(self.charged);
            }
            What::Opened { dispute, amount } => {
                let known = self.disputes.entry(dispute.clone()).or_default();
                (known.amount, known.opened) = (*amount, true);
            }
            What::Won { dispute, amount } => {
                let known = self.disputes.entry(dispute.clone()).or_default();
                (known.amount, known.won) = (*amount, true);
            }
        }
    }

    /// Returns what follows from all that was said and was not told yet, in an order that makes sense: paid before anything
    /// is taken back, and never more taken back at once than was paid.
    pub fn due(&mut self) -> Vec<Tell> {
        let mut due = Vec::new();
        while let Some(tell) = self.next() {
            due.push(tell);
        }
        due
    }

    fn next(&mut self) -> Option<Tell> {
        if let Some(reason) = self.told.failure.clone().filter(|_| !self.told.failed) {
            self.told.failed = true;
            return Some(Tell::Failed { reason });
        }
        let amount = self.amount.filter(|_| self.told.is_paid)?;
        if !self.told.paid {
            self.told.paid = true;
            return Some(Tell::Paid { amount });
        }
        self.next_won().or_else(|| self.next_refund()).or_else(|| self.next_opened())
    }

    fn next_won(&mut self) -> Option<Tell> {
        let won = |(dispute, known): (&Id, &Disputed)| (known.won).then(|| (dispute.clone(), known.amount));
        let told = |dispute: &Id| self.told.opened.contains(dispute) && !self.told.won.contains(dispute);
        let (dispute, amount) = self.disputes.iter().filter_map(won).find(|(dispute, _)| told(dispute))?;
        self.told.won.insert(dispute.clone());
        Some(Tell::Won { dispute, amount: self.credits(amount) })
    }

    fn next_refund(&mut self) -> Option<Tell> {
        let more = self.refunded - self.told.refunded;
        if more <= 0 || more > self.left() {
            return None;
        }
        let before = self.credits(self.told.refunded);
        self.told.refunded = self.refunded;
        let amount = self.credits(self.refunded).minus(before).ok().filter(|amount| amount.is_positive())?;
        Some(Tell::Refunded { amount, total: self.refunded })
    }

    fn next_opened(&mut self) -> Option<Tell> {
        let left = self.left();
        let is_next = |(dispute, known): &(&Id, &Disputed)| {
            known.opened && known.amount <= left && !self.told.opened.contains(*dispute)
        };
        let (dispute, amount) =
            self.disputes.iter().find(is_next).map(|(dispute, known)| (dispute.clone(), known.amount))?;
        self.told.opened.insert(dispute.clone());
        Some(Tell::Opened { dispute, amount: self.credits(amount) })
    }

    /// What of the payment is not taken back.
    fn left(&self) -> i64 {
        let open = self.told.opened.difference(&self.told.won);
        let contested: i64 =
            open.filter_map(|dispute| self.disputes.get(dispute)).map(|known| known.amount).sum();
        self.charged.unwrap_or_default() - self.told.refunded - contested
    }

    /// Returns what a part of the charge is worth in the account's unit; all of it is all that was bought.
    fn credits(&self, part: i64) -> Credits {
        let (Some(amount), Some(charged)) = (self.amount, self.charged.filter(|charged| *charged > 0)) else {
            return Credits::ZERO;
        };
        amount.mul_div_half_even(Credits::whole(part), Credits::whole(charged)).unwrap_or(amount)
    }
}

const READ: &str = "
    select account_id, attempt_id, amount::text, charged, refunded, disputes::text, told::text
    from control.payment
    where payment_id = $1";

async fn load(connection: &mut PgConnection, payment_id: &Id) -> Result<Payment, sqlx::Error> {
    let mut payment = Payment::new(payment_id.clone());
    let row = sqlx::query(READ).bind(payment_id.as_str()).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(payment) };
    let name = |column| {
        let text: Option<&str> = row.try_get(column)?;
        text.map(Id::new).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
    };
    payment.account = name("account_id")?;
    payment.attempt = name("attempt_id")?;
    let amount: Option<&str> = row.try_get("amount")?;
    payment.amount = amount.map(credits_of).transpose()?;
    payment.charged = row.try_get("charged")?;
    payment.refunded = row.try_get("refunded")?;
    let unreadable = |error: serde_json::Error| sqlx::Error::Decode(error.into());
    payment.disputes = serde_json::from_str(row.try_get("disputes")?).map_err(unreadable)?;
    payment.told = serde_json::from_str(row.try_get("told")?).map_err(unreadable)?;
    Ok(payment)
}

/// Reads what is known of a payment.
pub async fn read(pool: &PgPool, payment_id: &Id) -> Result<Payment, sqlx::Error> {
    let payment_id = payment_id.clone();
    pg::write(pool, |connection| Box::pin(async move { load(connection, &payment_id).await })).await
}

/// The same under a lock: one webhook of a payment is taken in after the other.
pub async fn lock(connection: &mut PgConnection, payment_id: &Id) -> Result<Payment, sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('payment/' || $1, 0))")
        .bind(payment_id.as_str())
        .execute(&mut *connection)
        .await?;
    load(connection, payment_id).await
}

/// Keeps what was said of a payment whose account is not known yet.
pub async fn note(pool: &PgPool, heard: Heard, priced: Option<i64>) -> Result<(), sqlx::Error> {
    pg::write(pool, move |connection| {
        Box::pin(async move {
            let mut payment = lock(connection, &heard.payment_id).await?;
            payment.hear(&heard, priced);
            save(connection, &payment).await
        })
    })
    .await
}

/// Stores a payment.
pub async fn save(connection: &mut PgConnection, payment: &Payment) -> Result<(), sqlx::Error> {
    let json = |value: serde_json::Result<String>| value.map_err(|error| sqlx::Error::Encode(error.into()));
    sqlx::query(
        "insert into control.payment (payment_id, account_id, attempt_id, amount, charged, refunded, disputes, told)
         values ($1, $2, $3, $4::text::numeric, $5, $6, $7::text::jsonb, $8::text::jsonb)
         on conflict (payment_id) do update
         set account_id = excluded.account_id,
             attempt_id = excluded.attempt_id,
             amount     = excluded.amount,
             charged    = excluded.charged,
             refunded   = excluded.refunded,
             disputes   = excluded.disputes,
             told       = excluded.told",
    )
    .bind(payment.payment_id.as_str())
    .bind(payment.account.as_ref().map(Id::as_str))
    .bind(payment.attempt.as_ref().map(Id::as_str))
    .bind(payment.amount.map(numeric_text))
    .bind(payment.charged)
    .bind(payment.refunded)
    .bind(json(serde_json::to_string(&payment.disputes))?)
    .bind(json(serde_json::to_string(&payment.told))?)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Id {
        Id::new(text).expect("an id")
    }

    fn heard(what: What) -> Heard {
        let (payment_id, account, amount) = (id("pi_1"), Some(id("acme")), "100".parse().ok());
        Heard { payment_id, account, attempt: None, amount, what }
    }

    /// What is left of the payment in credits, and what the journal was told.
    fn hear(all: &[&What]) -> (Credits, Vec<String>) {
        let mut payment = Payment::new(id("pi_1"));
        let mut told = Vec::new();
        for what in all {
            payment.hear(&heard((*what).clone()), None);
            told.extend(payment.due().into_iter().map(|tell| format!("{tell:?}")));
        }
        (payment.credits(payment.left()), told)
    }

    fn orders<T: Clone>(all: &[T]) -> Vec<Vec<T>> {
        if all.len() < 2 {
            return vec![all.to_vec()];
        }
        (0..all.len())
            .flat_map(|first| {
                let mut rest = all.to_vec();
                let one = rest.remove(first);
                orders(&rest).into_iter().map(move |rest| [vec![one.clone()], rest].concat())
            })
            .collect()
    }

    #[test]
    fn every_order_of_five_ends_alike_however_often_each_comes() {
        let paid = What::Paid { charged: Some(500) };
        let part = What::Refunded { total: 100, charged: Some(500) };
        let all = What::Refunded { total: 200, charged: Some(500) };
        let opened = What::Opened { dispute: id("dp_1"), amount: 300 };
        let won = What::Won { dispute: id("dp_1"), amount: 300 };
        let five = [&paid, &part, &all, &opened, &won];
        for order in orders(&five) {
            let (left, told) = hear(&order);
            assert_eq!(left.to_string(), "60", "{order:?}: {told:?}");
            let twice: Vec<&What> = order.iter().flat_map(|what| [*what, *what]).collect();
            assert_eq!(hear(&twice), (left, told), "{order:?}");
            let again: Vec<&What> = order.iter().chain(&order).copied().collect();
            assert_eq!(hear(&again).0, left, "{order:?}");
        }
    }

    #[test]
    fn what_would_take_more_than_was_paid_waits_until_there_is_room() {
        let paid = What::Paid { charged: Some(500) };
        let opened = What::Opened { dispute: id("dp_1"), amount: 500 };
        let won = What::Won { dispute: id("dp_1"), amount: 500 };
        let refunded = What::Refunded { total: 500, charged: Some(500) };
        for order in orders(&[&paid, &opened, &won, &refunded]) {
            let (left, told) = hear(&order);
            assert_eq!(left.to_string(), "0", "{order:?}: {told:?}");
            assert!(told.iter().any(|tell| tell.starts_with("Refunded")), "{order:?}: {told:?}");
        }
    }

    #[test]
    fn parts_of_a_refund_come_to_the_whole() {
        let paid = What::Paid { charged: Some(300) };
        let parts = [100, 200, 300].map(|total| What::Refunded { total, charged: None });
        let (left, told) = hear(&[&paid, &parts[0], &parts[1], &parts[2]]);
        assert_eq!((left, told.len()), (Credits::ZERO, 4));
    }
}

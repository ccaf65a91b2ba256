//! Promotions: the grants that win users: welcome bonus, promo codes, referrals. Each is made once, whatever is retried.

mod promo_codes;
mod redemptions;
mod referrals;

use ledger_core::credits::Credits;
use ledger_core::derive;
use ledger_core::event::{Data, Grant, GrantSource};
use ledger_core::id::{EventId, Id};
use runtime::http::Problem;
use runtime::pg::PgConnection;

use crate::app::App;
use crate::effects::Effect;

pub use promo_codes::create as create_promo_code;
pub use redemptions::{create as create_redemption, redeem};
pub use referrals::{Referrer, Rewards, invite, inviter, referred};

/// What new accounts and their referrers get.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct PromotionsConfig {
    /// Credits that every new account gets besides its allowance, in its own unit; 0 = none
    #[arg(long, env = "LEDGER_WELCOME_BONUS", default_value_t = Credits::ZERO, value_parser = bonus)]
    pub welcome_bonus: Credits,
    /// Credits that both sides get when an account opens that another has referred; 0 = none
    #[arg(long, env = "LEDGER_REFERRAL_BONUS", default_value_t = Credits::ZERO, value_parser = bonus)]
    pub referral_bonus: Credits,
}

impl Default for PromotionsConfig {
    fn default() -> Self {
        Self { welcome_bonus: Credits::ZERO, referral_bonus: Credits::ZERO }
    }
}

fn bonus(text: &str) -> Result<Credits, String> {
    match text.parse::<Credits>() {
        Ok(amount) if !amount.is_negative() => Ok(amount),
        _ => Err("must be an amount of 0 or above".to_owned()),
    }
}

fn grant_effect(account: &Id, id: &str, source: GrantSource, amount: Credits) -> Result<Effect, Problem> {
    let grant_id =
        Id::new(id).map_err(|_| Problem::bad_field("account_id", "too_long", "is too long for its bonus"))?;
    let event_id = EventId::from(&grant_id);
    let (priority, effective_at, expires_at, reason) = (None, None, None, None);
    let grant = Grant { grant_id, source, amount, priority, effective_at, expires_at, reason };
    Ok(Effect {
        account: account.clone(),
        source: derive::GRANTS,
        event_id,
        data: Data::CreditsGranted(grant),
    })
}

/// Returns the welcome bonus of a new account, if there is one.
pub fn welcome(app: &App, account: &Id) -> Result<Option<Effect>, Problem> {
    let amount = app.sales.promotions.welcome_bonus;
    let wanted = amount.is_positive();
    wanted
        .then(|| grant_effect(account, &format!("welcome:{account}"), GrantSource::Welcome, amount))
        .transpose()
}

/// Two requests of one account take turns.
pub async fn lock_account(connection: &mut PgConnection, account: &Id) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('growth/' || $1, 0))")
        .bind(account.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

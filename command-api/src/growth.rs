//! Growth: the grants that win users: welcome bonus, promo codes, referrals. Each is made once, whatever is retried.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use ledger_core::credits::Credits;
use ledger_core::derive;
use ledger_core::door::{Body, FieldError};
use ledger_core::event::{Data, Event, Grant, GrantSource};
use ledger_core::id::{EventId, Id, Label};
use ledger_core::time::Time;
use runtime::auth::Action;
use runtime::http::{Path, Problem};
use runtime::outbox;
use runtime::pg::{self, PgConnection, credits_of, numeric_text, time_of, timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::Row;
use uuid::Uuid;

use crate::App;
use crate::asked::{self, Asked};
use crate::effects::{self, Effect};
use crate::grants::lot_draft;
use crate::idempotency;
use crate::submit::{self, Draft};

/// Accounts whose referrer is rewarded: the first ones of each.
const REWARDED_MAX: i32 = 10;
/// Longest promo code, so that the id of its lot is one.
const CODE_CHARS_MAX: usize = 100;
/// Longest address.
const EMAIL_CHARS_MAX: usize = 254;
/// Begins the codes of invitations.
const INVITATION: &str = "ref_";

/// What new accounts and their referrers get.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct GrowthConfig {
    /// Credits that every new account gets besides its allowance, in its own unit; 0 = none
    #[arg(long, env = "LEDGER_WELCOME_BONUS", default_value_t = Credits::ZERO, value_parser = bonus)]
    pub welcome_bonus: Credits,
    /// Credits that both sides get when an account opens that another has referred; 0 = none
    #[arg(long, env = "LEDGER_REFERRAL_BONUS", default_value_t = Credits::ZERO, value_parser = bonus)]
    pub referral_bonus: Credits,
}

impl Default for GrowthConfig {
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
    let amount = app.sales.growth.welcome_bonus;
    let wanted = amount.is_positive();
    wanted
        .then(|| grant_effect(account, &format!("welcome:{account}"), GrantSource::Welcome, amount))
        .transpose()
}

/// Body of `POST /v1/promo-codes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPromoCode {
    code: Id,
    amount: Credits,
    #[serde(default)]
    valid_from: Option<Time>,
    #[serde(default)]
    valid_until: Option<Time>,
    #[serde(default)]
    max_redemptions: Option<i32>,
    #[serde(default)]
    expires_at: Option<Time>,
}

impl Body for NewPromoCode {
    const GOOD: &'static str = r#"{"code":"c","amount":"1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        let mut refuse = |bad: bool, field: &str, code: &str, detail: &str| {
            if bad {
                errors.push(FieldError::new(field, code, detail));
            }
        };
        let too_long = self.code.as_str().len() > CODE_CHARS_MAX;
        refuse(too_long, "code", "too_long", "is at most 100 characters");
        refuse(!self.amount.is_positive(), "amount", "not_positive", "must be above 0");
        let most = self.max_redemptions.is_some_and(|most| most < 1);
        refuse(most, "max_redemptions", "out_of_range", "must be 1 or more");
        let backwards = self.valid_from.zip(self.valid_until).is_some_and(|(from, until)| until <= from);
        refuse(backwards, "valid_until", "not_after", "must be after valid_from");
    }
}

impl NewPromoCode {
    fn grant(&self) -> Result<Grant, Problem> {
        Ok(Grant {
            grant_id: Id::new(&format!("promo:{}", self.code)).map_err(Problem::internal)?,
            source: GrantSource::Promo,
            amount: self.amount,
            priority: None,
            effective_at: None,
            expires_at: self.expires_at,
            reason: None,
        })
    }

    fn draft(&self, account: &Id) -> Result<Draft, Problem> {
        let grant = self.grant()?;
        Ok(lot_draft(account, &grant.grant_id.clone(), Data::CreditsGranted(grant)))
    }
}

const PROMO_CODE: &str = "
    select code, amount::text, valid_from, valid_until, max_redemptions, expires_at, redemptions
    from control.promo_code
    where code = $1";

/// Returns a code with how often it was redeemed; locked where that is going to change.
async fn promo_code(
    connection: &mut PgConnection,
    code: &Id,
    lock: bool,
) -> Result<Option<(NewPromoCode, i32)>, sqlx::Error> {
    let sql = if lock { format!("{PROMO_CODE} for update") } else { PROMO_CODE.to_owned() };
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(code.as_str()).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let time = |column| Ok::<_, sqlx::Error>(row.try_get::<Option<DateTime<Utc>>, _>(column)?.map(time_of));
    let known = NewPromoCode {
        code: code.clone(),
        amount: credits_of(row.try_get("amount")?)?,
        valid_from: time("valid_from")?,
        valid_until: time("valid_until")?,
        max_redemptions: row.try_get("max_redemptions")?,
        expires_at: time("expires_at")?,
    };
    Ok(Some((known, row.try_get("redemptions")?)))
}

fn unknown_code(code: &Id) -> Problem {
    Problem::not_found("promo_code_unknown", format!("there is no promo code {code}"))
}

/// `POST /v1/promo-codes`
pub async fn create_promo_code(
    State(app): State<App>,
    asked: Asked,
    request: Request,
) -> Result<Response, Problem> {
    asked.principal.require_role(Action::PromoCodes)?;
    let new: NewPromoCode = asked::body(request).await?;
    let stored = pg::write(&app.pool, {
        let new = new.clone();
        move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "insert into control.promo_code (code, amount, valid_from, valid_until, max_redemptions, expires_at,
                                                     redemptions, created_at)
                     values ($1, $2::text::numeric, $3, $4, $5, $6, 0, clock_timestamp())
                     on conflict (code) do nothing",
                )
                .bind(new.code.as_str())
                .bind(numeric_text(new.amount))
                .bind(new.valid_from.map(timestamp))
                .bind(new.valid_until.map(timestamp))
                .bind(new.max_redemptions)
                .bind(new.expires_at.map(timestamp))
                .execute(&mut *connection)
                .await?;
                promo_code(connection, &new.code, false).await
            })
        }
    })
    .await
    .map_err(Problem::from)?;
    match stored {
        Some((stored, _)) if stored == new => Ok((StatusCode::CREATED, axum::Json(new)).into_response()),
        _ => Err(Problem::conflict("this code was made before, with other content")),
    }
}

/// Redeems a code for an account that has not done so before: counts it, keeps the grant for whoever redeems again, and
/// returns it.
///
/// Locks the code, so that no race passes its uses. `at`: the account's time.
pub async fn redeem(
    connection: &mut PgConnection,
    account: &Id,
    code: &Id,
    at: Time,
    recorded_at: Time,
    actor: &Label,
) -> Result<Event, Problem> {
    let Some((promo, redemptions)) = promo_code(connection, code, true).await? else {
        return Err(unknown_code(code));
    };
    let refuse = |code: &'static str, detail: String| Err(Problem::unprocessable(code, detail));
    let ended = promo.valid_until.is_some_and(|until| at >= until)
        || promo.expires_at.is_some_and(|expires| at >= expires);
    if ended {
        return refuse("promo_code_expired", format!("the promo code {code} has ended"));
    }
    if promo.valid_from.is_some_and(|from| at < from) {
        return refuse("promo_code_not_yet_valid", format!("the promo code {code} does not hold yet"));
    }
    if promo.max_redemptions.is_some_and(|most| redemptions >= most) {
        return refuse("promo_code_used_up", format!("the promo code {code} is used up"));
    }
    sqlx::query("update control.promo_code set redemptions = redemptions + 1 where code = $1")
        .bind(code.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "insert into control.redemption (account_id, code, redeemed_at) values ($1, $2, clock_timestamp())",
    )
    .bind(account.as_str())
    .bind(code.as_str())
    .execute(&mut *connection)
    .await?;
    let draft = promo.draft(account)?;
    idempotency::keep_in(connection, &draft.name(), &draft.recorded(recorded_at, actor.clone())?).await?;
    draft.event(recorded_at, actor.clone())
}

/// Body of `POST /v1/accounts/{account}/redemptions`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redemption {
    code: Id,
}

impl Body for Redemption {
    const GOOD: &'static str = r#"{"code":"c"}"#;

    fn check(&self, _: &mut Vec<FieldError>) {}
}

/// `POST /v1/accounts/{account}/redemptions`
///
/// Redeeming again gives the first answer, also when the code has ended since.
pub async fn create_redemption(
    State(app): State<App>,
    asked: Asked,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Response, Problem> {
    asked.require(Action::Settings, &account)?;
    let Redemption { code } = asked::body(request).await?;
    let (known, recorded_at) = submit::admit(&app, &asked, &account).await?;
    let looked_up = code.clone();
    let promo = pg::write(&app.pool, |connection| {
        Box::pin(async move { promo_code(connection, &looked_up, false).await })
    });
    let Some((promo, _)) = promo.await.map_err(Problem::from)? else { return Err(unknown_code(&code)) };
    let draft = promo.draft(&account)?;
    let at = recorded_at.max(known.ledger_time);
    let (redeeming, actor) = (account.clone(), asked.actor()?);
    let put = pg::write(&app.pool, move |connection| {
        Box::pin(async move {
            lock_account(connection, &redeeming).await?;
            if has_redeemed(connection, &redeeming, &code).await? {
                return Ok(Vec::new());
            }
            let event = redeem(connection, &redeeming, &code, at, recorded_at, &actor).await?;
            Ok::<_, Problem>(effects::enqueue(connection, vec![event]).await?)
        })
    })
    .await?;
    // Kept in the same transaction: it is appended here, or found to be.
    let answer = submit::once(&app, &asked, draft, async { Ok(recorded_at) }).await?;
    outbox::done(&app.pool, put.iter().map(|put| put.outbox_id).collect()).await?;
    Ok(answer)
}

/// Two requests of one account take turns.
pub async fn lock_account(connection: &mut PgConnection, account: &Id) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('growth/' || $1, 0))")
        .bind(account.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn has_redeemed(connection: &mut PgConnection, account: &Id, code: &Id) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from control.redemption where account_id = $1 and code = $2)")
        .bind(account.as_str())
        .bind(code.as_str())
        .fetch_one(connection)
        .await
}

/// Body of `POST /v1/accounts/{account}/referrals`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    email: String,
}

impl Body for Invitation {
    const GOOD: &'static str = r#"{"email":"a@b.c"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        let (local, domain) = self.email.split_once('@').unwrap_or(("", ""));
        let bad = local.is_empty()
            || domain.is_empty()
            || domain.contains('@')
            || self.email.chars().count() > EMAIL_CHARS_MAX
            || self.email.chars().any(|c| c.is_whitespace() || c.is_control() || "<>,;\"\\".contains(c));
        if bad {
            errors.push(FieldError::new("email", "not_an_email", "must be an e-mail address"));
        }
    }
}

/// `POST /v1/accounts/{account}/referrals`
///
/// The same address again gets the same code, and no second mail.
pub async fn invite(
    State(app): State<App>,
    asked: Asked,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Response, Problem> {
    asked.require(Action::Settings, &account)?;
    let Invitation { email } = asked::body(request).await?;
    submit::admit(&app, &asked, &account).await?;
    let code: String = pg::write(&app.pool, move |connection| {
        Box::pin(async move { invited(connection, &account, &email).await })
    })
    .await
    .map_err(Problem::from)?;
    Ok((StatusCode::CREATED, axum::Json(json!({"code": code}))).into_response())
}

async fn invited(connection: &mut PgConnection, account: &Id, email: &str) -> Result<String, sqlx::Error> {
    lock_account(connection, account).await?;
    let known: Option<String> = sqlx::query_scalar(
        "select code from control.invitation where account_id = $1 and lower(email) = lower($2)",
    )
    .bind(account.as_str())
    .bind(email)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(code) = known {
        return Ok(code);
    }
    let code = format!("{INVITATION}{}", &Uuid::new_v4().simple().to_string()[..16]);
    sqlx::query(
        "insert into control.invitation (code, account_id, email, created_at)
         values ($1, $2, $3, clock_timestamp())",
    )
    .bind(&code)
    .bind(account.as_str())
    .bind(email)
    .execute(&mut *connection)
    .await?;
    count(connection, account, [1, 0, 0], Credits::ZERO).await?;
    mail(connection, account, email, &code).await?;
    Ok(code)
}

/// Puts the invitation among the mails that the alert worker sends.
async fn mail(
    connection: &mut PgConnection,
    account: &Id,
    email: &str,
    code: &str,
) -> Result<(), sqlx::Error> {
    let subject = format!("{account} invites you");
    let text = format!(
        "Hello,\n\n{account} invites you. Open an account with the referral code {code}, and both of you get credits.\n"
    );
    sqlx::query(
        "insert into delivery.notification (account_id, notification_id, firing_id, kind, channel, recipient, address, subject,
                                            text, status, attempts, next_attempt_at, created_at)
         values ($1, $2, $3, 'referral_invitation', 'email', $4, $5, $6, $7, 'pending', 0, clock_timestamp(),
                 clock_timestamp())",
    )
    .bind(account.as_str())
    .bind(format!("invitation-{code}"))
    .bind(Uuid::new_v5(&derive::NAMESPACE, format!("invitation/{account}/{code}").as_bytes()))
    .bind(code)
    .bind(email)
    .bind(subject)
    .bind(text)
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds to what inviting has brought an account.
async fn count(
    connection: &mut PgConnection,
    account: &Id,
    [invited, accepted, rewarded]: [i32; 3],
    earned: Credits,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into control.referrer as known (account_id, invited, accepted, rewarded, credits_earned)
         values ($1, $2, $3, $4, $5::text::numeric)
         on conflict (account_id) do update
         set invited        = known.invited + excluded.invited,
             accepted       = known.accepted + excluded.accepted,
             rewarded       = known.rewarded + excluded.rewarded,
             credits_earned = known.credits_earned + excluded.credits_earned",
    )
    .bind(account.as_str())
    .bind(invited)
    .bind(accepted)
    .bind(rewarded)
    .bind(numeric_text(earned))
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the account behind a code of an invitation; none: it is none.
pub async fn inviter(app: &App, code: &Id) -> Result<Option<Id>, Problem> {
    let account: Option<String> =
        sqlx::query_scalar("select account_id from control.invitation where code = $1")
            .bind(code.as_str())
            .fetch_optional(&app.pool)
            .await?;
    account.map(|account| Id::new(&account).map_err(Problem::internal)).transpose()
}

/// Whoever has referred a new account, with the time that its reward is recorded at.
#[derive(Debug, Clone)]
pub struct Referrer {
    /// The account.
    pub account: Id,
    /// As the new account said it: its id or the code of an invitation.
    pub said: Id,
    /// When.
    pub at: Time,
}

/// Counts a new account as referred, and returns what both sides get: the new one first.
pub async fn referred(
    connection: &mut PgConnection,
    bonus: Credits,
    guest: &Id,
    referrer: &Referrer,
) -> Result<BTreeMap<bool, Effect>, Problem> {
    let accepted =
        sqlx::query("update control.invitation set accepted_by = $2 where code = $1 and accepted_by is null")
            .bind(referrer.said.as_str())
            .bind(guest.as_str())
            .execute(&mut *connection)
            .await?;
    // An account id, or a code that was passed on, is an invitation that nobody sent.
    let invited = i32::from(accepted.rows_affected() == 0);
    count(connection, &referrer.account, [invited, 1, 0], Credits::ZERO).await?;
    let mut effects = BTreeMap::new();
    if !bonus.is_positive() {
        return Ok(effects);
    }
    effects.insert(
        false,
        grant_effect(guest, &format!("referral:{guest}:joined"), GrantSource::Referral, bonus)?,
    );
    let rewarded = sqlx::query(
        "update control.referrer
         set rewarded       = rewarded + 1,
             credits_earned = credits_earned + $3::text::numeric
         where account_id = $1 and rewarded < $2",
    )
    .bind(referrer.account.as_str())
    .bind(REWARDED_MAX)
    .bind(numeric_text(bonus))
    .execute(connection)
    .await?;
    if rewarded.rows_affected() > 0 {
        let reward =
            grant_effect(&referrer.account, &format!("referral:{guest}"), GrantSource::Referral, bonus)?;
        effects.insert(true, reward);
    }
    Ok(effects)
}

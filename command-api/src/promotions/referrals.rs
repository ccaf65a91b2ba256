//! Referrals: an account invites by mail, and both sides get credits when the invited account opens.

use std::time::Duration;

use axum::extract::State;
use ledger_core::event::field_error::FieldError;
use ledger_core::event::{GrantSource, derive};
use ledger_core::request::Body;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, ReferrerId};
use ledger_core::value::time::Time;
use platform::pg::{self, PgConnection, numeric_text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Created, Route, Sent, post};

use super::bonus::{grant_effect, lock_account};
use crate::app::App;
use crate::email::{NOT_AN_EMAIL, is_email};
use crate::request_context::RequestContext;
use crate::write;
use crate::write::effects::Effect;

/// Referred accounts that bring their referrer a reward: only the first ones.
const REWARDED_MAX: i32 = 10;
/// Prefix of invitation codes.
const INVITATION: &str = "ref_";

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    email: String,
}

impl Body for Invitation {
    const GOOD: &'static str = r#"{"email":"a@b.c"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        if !is_email(&self.email) {
            errors.push(FieldError::new("email", "not_an_email", NOT_AN_EMAIL));
        }
    }
}

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/referrals", invite)
            .named("inviteByEmail", "Invites somebody by e-mail.")
            .says("By admins. The same address again gets the same code, and no second mail."),
    ]
}

/// `POST /v1/accounts/{account}/referrals`
///
/// A repeat for the same address gets the same code, and sends no second mail.
async fn invite(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<Invitation>,
) -> Result<Created<Invited>, Problem> {
    context.require(Action::Settings, &account)?;
    let Invitation { email } = sent.read().await?;
    write::admit_open(&app, &context, &account).await?;
    let per_day = app.sales.promotions.invitations_per_day;
    let lock = account.to_string();
    let code = app.write(&lock, move |connection| {
        Box::pin(async move { invited(connection, &account, &email, per_day).await })
    });
    Ok(Created(Invited { code: code.await? }))
}

/// The code of an invitation, for `referred_by` of the account that is opened.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Invited {
    #[schemars(with = "ReferrerId")]
    code: String,
}

async fn invited(
    connection: &mut PgConnection,
    account: &AccountId,
    email: &str,
    per_day: u32,
) -> Result<String, Problem> {
    lock_account(connection, account).await?;
    let known = sqlx::query_scalar!(
        "select code from control.invitation where account_id = $1 and lower(email) = lower($2)",
        account.as_str(),
        email
    )
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(code) = known {
        return Ok(code);
    }
    require_rate(connection, account, per_day).await?;
    let code = format!("{INVITATION}{}", &Uuid::new_v4().simple().to_string()[..16]);
    sqlx::query!(
        "insert into control.invitation (code, account_id, email, created_at)
         values ($1, $2, $3, clock_timestamp())",
        code,
        account.as_str(),
        email
    )
    .execute(&mut *connection)
    .await?;
    count(connection, account, Stats { invited: 1, accepted: 0 }).await?;
    mail(connection, account, email, &code).await?;
    Ok(code)
}

/// 429 if the account has sent as many invitations within 24 hours as it may.
async fn require_rate(
    connection: &mut PgConnection,
    account: &AccountId,
    per_day: u32,
) -> Result<(), Problem> {
    if per_day == 0 {
        return Ok(());
    }
    let seconds = sqlx::query_scalar!(
        r#"select ceil(extract(epoch from created_at + interval '1 day' - clock_timestamp()))::bigint as "seconds!"
           from control.invitation
           where account_id = $1 and created_at > clock_timestamp() - interval '1 day'
           order by created_at desc
           offset $2
           limit 1"#,
        account.as_str(),
        i64::from(per_day) - 1
    )
    .fetch_optional(connection)
    .await?;
    let Some(seconds) = seconds else { return Ok(()) };
    let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
    let detail = format!("an account sends at most {per_day} invitations a day");
    Err(Problem::too_many_requests(detail).retry_after(wait))
}

/// Enqueues the invitation with the mails that the alert worker sends.
async fn mail(
    connection: &mut PgConnection,
    account: &AccountId,
    email: &str,
    code: &str,
) -> Result<(), sqlx::Error> {
    let subject = format!("{account} invites you");
    let text = format!(
        "Hello,\n\n{account} invites you. Open an account with the referral code {code}, and both of you get credits.\n"
    );
    sqlx::query!(
        "insert into delivery.notification (account_id, notification_id, firing_id, kind, channel, recipient, address,
                                            subject, text, status, attempts, next_attempt_at, created_at)
         values ($1, $2, $3, 'referral_invitation', 'email', $4, $5, $6, $7, 'pending', 0, clock_timestamp(),
                 clock_timestamp())",
        account.as_str(),
        format!("invitation-{code}"),
        Uuid::new_v5(&derive::NAMESPACE, format!("invitation/{account}/{code}").as_bytes()),
        code,
        email,
        subject,
        text
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Counts of an account's invitations, and of the accounts opened by them.
struct Stats {
    invited: i32,
    accepted: i32,
}

/// Adds to the counts of an account.
async fn count(connection: &mut PgConnection, account: &AccountId, more: Stats) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into control.referrer as known (account_id, invited, accepted, rewarded, credits_earned)
         values ($1, $2, $3, 0, 0)
         on conflict (account_id) do update
         set invited  = known.invited + excluded.invited,
             accepted = known.accepted + excluded.accepted",
        account.as_str(),
        more.invited,
        more.accepted
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Returns the account behind an invitation code; none if the code is unknown.
pub async fn inviter(app: &App, code: &ReferrerId) -> Result<Option<AccountId>, Problem> {
    let account =
        sqlx::query_scalar!("select account_id from control.invitation where code = $1", code.as_str())
            .fetch_optional(pg::bounded(&app.pool))
            .await?;
    account.map(|account| AccountId::new(&account).map_err(Problem::internal)).transpose()
}

/// The referrer of a new account, with the time that its reward is recorded at.
#[derive(Debug, Clone)]
pub struct Referrer {
    pub account: AccountId,
    /// The text in the request: an account id or an invitation code.
    pub said: ReferrerId,
    pub at: Time,
}

/// The grants to both sides of a referral.
#[derive(Debug)]
pub struct Rewards {
    pub guests: Effect,
    /// To the referrer; none beyond the first ten.
    pub referrers: Option<Effect>,
}

/// Counts a new account as referred, and returns both grants; none if no bonus is configured.
pub async fn referred(
    connection: &mut PgConnection,
    bonus: Credits,
    guest: &AccountId,
    referrer: &Referrer,
) -> Result<Option<Rewards>, Problem> {
    let accepted = sqlx::query!(
        "update control.invitation set accepted_by = $2 where code = $1 and accepted_by is null",
        referrer.said.as_str(),
        guest.as_str()
    )
    .execute(&mut *connection)
    .await?;
    // An account id, or a code that was passed on, counts as an invitation without a mail.
    let invited = i32::from(accepted.rows_affected() == 0);
    count(connection, &referrer.account, Stats { invited, accepted: 1 }).await?;
    if !bonus.is_positive() {
        return Ok(None);
    }
    let guests = grant_effect(guest, &format!("referral:{guest}:joined"), GrantSource::Referral, bonus)?;
    let rewarded = sqlx::query!(
        "update control.referrer
         set rewarded       = rewarded + 1,
             credits_earned = credits_earned + $3::text::numeric
         where account_id = $1 and rewarded < $2",
        referrer.account.as_str(),
        REWARDED_MAX,
        numeric_text(bonus)
    )
    .execute(connection)
    .await?;
    let referrers = (rewarded.rows_affected() > 0)
        .then(|| grant_effect(&referrer.account, &format!("referral:{guest}"), GrantSource::Referral, bonus));
    Ok(Some(Rewards { guests, referrers: referrers.transpose()? }))
}

//! Backtest: the firings of a rule as if it had been in force since an account's opening.

use std::time::Duration;

use axum::extract::State;
use ledger_core::account::Core;
use ledger_core::event::field_error::FieldError;
use ledger_core::event::{Basis, SetLimits, SetUserAlert};
use ledger_core::fold::{Applied, Moment, Observer};
use ledger_core::policy::alert::{Backtest, Hit, Rule};
use ledger_core::request;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AlertId, Label};
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use web::auth::Principal;
use web::http::{Accepts, Payload, Problem, Query, RECORD_BYTES_MAX, json_value};
use web::openapi::{Route, Sent, post};

use crate::access::Whole;
use crate::answer::{self, Answer, Now};
use crate::app::{App, BACKTESTS_MAX};
use crate::as_of::{self, EVENTS_MAX, Onlooker};
use crate::reading;

/// Longest duration of a backtest: such a history on a slow machine.
const LONGEST: Duration = Duration::from_secs(600);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BacktestQuery {
    at_least: Option<AtLeast>,
}

/// The kinds of rules that can be tried.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[allow(dead_code, reason = "stands for its schema")]
enum TriedKind {
    OrgAlert,
    UserAlert,
    UserLimitReached,
}

/// A rule, with the fields of its setting: of an alert on the account's figures, of the user alert, or of limits.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "stands for its schema")]
pub(crate) struct TriedRule {
    /// By default `org_alert`.
    kind: Option<TriedKind>,
    /// With `org_alert`: the figure that it watches.
    basis: Option<Basis>,
    /// With `org_alert` and `user_alert`.
    threshold: Option<Credits>,
    /// With `user_limit_reached`.
    default_limit: Option<Credits>,
    /// With `user_limit_reached`: features whose usage does not count.
    excluded_features: Option<Vec<Label>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Backtest")]
struct Tried {
    /// All firings, including those beyond the list.
    total: u64,
    /// In order; 10,000 at most.
    items: Vec<Hit>,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/alerts/backtest", run)
            .named(
                "backtestAlert",
                "Returns what a rule would have fired, had it been in force from the opening.",
            )
            .says("Folds the whole history of the account again: at most 1,000,000 events. Stores nothing.")
            .refuses(&["history_too_long"]),
    ]
}

/// `POST /v1/accounts/{account}/alerts/backtest`
async fn run(
    State(app): State<App>,
    Whole(account): Whole,
    caller: Principal,
    Query(query): Query<BacktestQuery>,
    sent: Sent<TriedRule>,
) -> Result<Answer<Now<Tried>>, Problem> {
    let accepted = Accepts { media_type: "application/json", bytes_max: RECORD_BYTES_MAX };
    let payload = Payload::read(sent.into_request(), &[accepted]).await?;
    let rule = rule_of(json_value(&payload.bytes)?).map_err(Problem::invalid)?;
    let full =
        || Problem::too_many_requests(format!("{BACKTESTS_MAX} backtests at once, half of them of one key"));
    let slot = app.slots.backtests.take(&caller.key_id).ok_or_else(full)?;
    // Dropped with this future when the caller leaves; the read goes on by itself, so it has to be told.
    let left = CancellationToken::new();
    let _leaving = left.clone().drop_guard();
    let answered = reading::of_within(&app, account, query.at_least, LONGEST, move |connection, account| {
        Box::pin(async move {
            let _held = slot;
            if account.core.events > EVENTS_MAX {
                let detail = format!("the account has more than {EVENTS_MAX} events");
                return Err(Problem::unprocessable("history_too_long", detail));
            }
            let mut trial = Trial { backtest: Backtest::new(rule), left };
            as_of::refold_all(connection, account, &mut trial).await?;
            let tried = trial.backtest;
            Ok(Tried { total: tried.total(), items: tried.hits().to_vec() })
        })
    });
    let (reflects, answer) = answered.await?;
    answer::object(&reflects, answer)
}

/// A rule that observes the account while it is folded again.
struct Trial {
    backtest: Backtest,
    /// The caller waits no more.
    left: CancellationToken,
}

impl Observer for Trial {
    fn after(&mut self, core: &Core, moment: &Moment<'_>) {
        self.backtest.after(core, moment);
    }
}

impl Onlooker for Trial {
    fn folded(&mut self, core: &Core, applied: &Applied) {
        self.backtest.usage(core, applied);
    }

    fn is_done(&self) -> bool {
        self.left.is_cancelled()
    }
}

/// Reads a rule: the body of an org alert, of the user alert or of limits, and which of them it is.
fn rule_of(mut body: Value) -> Result<Rule, Vec<FieldError>> {
    let kind = body.as_object_mut().and_then(|body| body.remove("kind"));
    let kind = match kind.as_ref().map(|kind| kind.as_str()) {
        None => "org_alert",
        Some(Some(kind)) => kind,
        Some(None) => "",
    };
    match kind {
        "org_alert" => {
            let tried = AlertId::new("tried").map_err(|_| Vec::new())?;
            let alert = request::read_org_alert(&tried, body)?;
            Ok(Rule::OrgAlert { basis: alert.basis, threshold: alert.threshold })
        }
        "user_alert" => {
            let alert: SetUserAlert = request::read(body)?;
            let threshold = alert.threshold.ok_or_else(|| required("threshold"))?;
            Ok(Rule::UserAlert { threshold })
        }
        "user_limit_reached" => {
            let limits: SetLimits = request::read(body)?;
            let limit = limits.default_limit.ok_or_else(|| required("default_limit"))?;
            Ok(Rule::Limit { limit, excluded_features: limits.excluded_features.unwrap_or_default() })
        }
        _ => {
            let rule = "is org_alert, user_alert or user_limit_reached";
            Err(vec![FieldError::new("kind", "not_one_of", rule)])
        }
    }
}

fn required(field: &str) -> Vec<FieldError> {
    vec![FieldError::new(field, "required", "is required")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        let found = match rule_of(serde_json::from_str(body).expect("JSON")) {
            Ok(rule) => format!("{rule:?}").split([' ', '{']).next().unwrap_or_default().to_owned(),
            Err(errors) => {
                let all: Vec<_> = errors.iter().map(|e| format!("{} {}", e.field, e.code)).collect();
                all.join(", ")
            }
        };
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn a_rule_is_the_body_of_its_setting() {
        check(r#"{"basis":"percent_used","threshold":"75"}"#, "OrgAlert");
        check(
            r#"{"kind":"org_alert","basis":"absolute_used","threshold":"7","channels":["email"]}"#,
            "OrgAlert",
        );
        check(r#"{"kind":"user_alert","threshold":"5"}"#, "UserAlert");
        check(r#"{"kind":"user_limit_reached","default_limit":"5","excluded_features":["chat"]}"#, "Limit");
        check(r#"{"basis":"percent_used","threshold":"101"}"#, "threshold out_of_range");
        check(r#"{"kind":"user_alert"}"#, "threshold required");
        check(r#"{"kind":"user_limit_reached"}"#, "default_limit required");
        check(r#"{"kind":"credit_balance_low"}"#, "kind not_one_of");
        check(r#"{"kind":5}"#, "kind not_one_of");
        check("[]", "body wrong_type");
    }
}

//! Plan: what is in force, and apart from it what waits.

use axum::extract::State;
use ledger_core::account::setting::Setting;
use ledger_core::account::{Core, Plan};
use ledger_core::event::{OnExhausted, PackExpiry, Rollover};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{EventId, RateCardId, Text};
use ledger_core::value::period::Cycle;
use ledger_core::value::time::{Time, Zone};
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{Now, Tagged};
use crate::app::App;
use crate::http::settings;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanQuery {
    at_least: Option<AtLeast>,
}

/// A plan with its defaults filled in; fields as in requests.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Plan")]
pub(crate) struct PlanView {
    name: Option<Text>,
    cycle: Cycle,
    anchor: Time,
    timezone: Zone,
    allowance: Credits,
    rollover: Rollover,
    pack_expiry: PackExpiry,
    on_exhausted: OnExhausted,
    overage_limit: Option<Credits>,
    rate_card: Option<RateCardId>,
}

impl From<&Plan> for PlanView {
    fn from(plan: &Plan) -> Self {
        Self {
            name: plan.name.clone(),
            cycle: plan.schedule.cycle,
            anchor: plan.schedule.anchor,
            timezone: plan.schedule.timezone,
            allowance: plan.allowance,
            rollover: plan.rollover,
            pack_expiry: plan.pack_expiry,
            on_exhausted: plan.on_exhausted,
            overage_limit: plan.overage_limit,
            rate_card: plan.rate_card.clone(),
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Plans")]
struct PlansView {
    /// In force.
    plan: PlanView,
    /// In force from `next_at`, the next boundary.
    next: Option<PlanView>,
    next_at: Option<Time>,
    replaced: Option<ReplacedView>,
}

/// The waiting plan that the last change of the plan replaced.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReplacedPlan")]
struct ReplacedView {
    plan: PlanView,
    /// The change that replaced it.
    by: EventId,
}

impl From<&Core> for PlansView {
    fn from(core: &Core) -> Self {
        let replaced = core.replaced_plan.as_ref();
        Self {
            plan: PlanView::from(&core.plan),
            next: core.next_plan.as_ref().map(PlanView::from),
            next_at: core.next_plan_at(),
            replaced: replaced.map(|replaced| ReplacedView {
                plan: PlanView::from(&replaced.plan),
                by: replaced.by.clone(),
            }),
        }
    }
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/plan", read)
            .named("getPlan", "Returns the plan in force, and the one that waits for the next boundary."),
    ]
}

/// `GET /v1/accounts/{account}/plan`
async fn read(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<PlanQuery>,
) -> Result<Tagged<Now<PlansView>>, Problem> {
    settings::one(&app, account, query.at_least, Setting::Plan, |core| Ok(PlansView::from(core))).await
}

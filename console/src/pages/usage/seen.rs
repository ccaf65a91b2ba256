//! Seen: what the visitor sees of the account.

use ledger_core::value::time::{Day, Zone};

use crate::account::{Account, Period, path_of};
use crate::api::{Failure, List};
use crate::format::Unit;
use crate::layout::{Frame, Tab};
use crate::visit::Visit;

/// Periods of the picker: two years of months.
pub(super) const PERIODS: usize = 24;

/// What the visitor sees of the account: a member sees the own use and nothing of the account.
pub(super) struct Seen {
    pub(super) frame: Frame,
    pub(super) unit: Unit,
    pub(super) zone: Zone,
    pub(super) today: Day,
    pub(super) periods: Vec<Period>,
}

pub(super) async fn seen(visit: &Visit, id: &str) -> Result<Seen, Failure> {
    if visit.who.is_member() {
        let frame = Frame::of_member(visit, id, Tab::Usage, "Your usage");
        let today = Zone::UTC.local_day(visit.now);
        return Ok(Seen { frame, unit: visit.who.own_unit(), zone: Zone::UTC, today, periods: Vec::new() });
    }
    let path = format!("{}/periods?limit={PERIODS}", path_of(id));
    let (account, periods) = tokio::join!(visit.account(id), visit.api.get::<List<Period>>(&path));
    let account: Account = account?;
    let zone: Zone = account.plan.timezone.parse().unwrap_or(Zone::UTC);
    Ok(Seen {
        frame: Frame::account(visit, &account, Tab::Usage, "Usage").live(id),
        unit: account.unit,
        today: zone.local_day(account.now(visit.now)),
        zone,
        // The picker works without them: the open period and all time are always there.
        periods: periods.map(|periods| periods.items).unwrap_or_default(),
    })
}

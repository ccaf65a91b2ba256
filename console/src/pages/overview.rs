//! Overview: what an account may still spend, where it went, and how long it lasts.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use ledger_core::value::time::{Day, Time, Zone};
use serde::Deserialize;
use web::auth::Role;

use crate::account::{Account, Period, path_of};
use crate::api::{Failure, List};
use crate::chart::{self, Column, Line, Part, Svg};
use crate::format::{self, Amount, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::lots::{self, Lot};
use crate::visit::{Fields, Visit, segment};

/// Groups that the page reads to show where credits went.
const GROUPS: &str =
    "/usage?period=current&group_by=category,tier,model&sort=-credits&limit=200&quantities=false";
const DAYS: &str = "/usage?period=current&group_by=day&limit=500&quantities=false";
const HOLDS: usize = 6;
const FIRINGS: usize = 5;
/// Days whose use says how fast credits go.
const PACE_DAYS: i64 = 7;
const DAY_MICROS: i64 = 86_400_000_000;
/// Categories with a colour of their own.
const COLOURS: [&str; 6] = ["c1", "c2", "c3", "c4", "c5", "c6"];

#[derive(Deserialize)]
struct Balance {
    settled: Sum,
    held: Sum,
    available: Sum,
    credit_balance: Sum,
    overdraft: Sum,
    used: Sum,
    percent_used: Option<Sum>,
    percent_remaining: Option<Sum>,
    status: String,
    lifetime_added: Sum,
    lifetime_spent: Sum,
    period: Period,
    recorded_at: Time,
    lots: Vec<Lot>,
}

#[derive(Deserialize)]
struct Group {
    category: Option<String>,
    tier: Option<String>,
    model: Option<String>,
    credits: Sum,
}

#[derive(Deserialize)]
struct OnDay {
    day: Day,
    credits: Sum,
    events: u64,
}

#[derive(Deserialize)]
struct Reservation {
    reservation_id: String,
    state: String,
    amount: Sum,
    user_id: Option<String>,
    feature: Option<String>,
    created_at: Time,
    expires_at: Time,
}

#[derive(Deserialize)]
struct Firing {
    kind: String,
    alert_id: Option<String>,
    subject: String,
    threshold: Sum,
    figure: Sum,
    fired_at: Time,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    base: String,
    credit: CreditBar,
    burn: Result<Burn, Failure>,
    went: Result<Went, Failure>,
    holds: Result<Holds, Failure>,
    firings: Result<Vec<Fired>, Failure>,
    may_buy: bool,
    as_of: When,
}

/// The credit bar: what is left of the period's credits, by where it came from.
struct CreditBar {
    plan: String,
    status: String,
    available: Amount,
    unit: &'static str,
    percent_remaining: Option<String>,
    bar: Svg,
    parts: Vec<Share>,
    used: Amount,
    percent_used: Option<String>,
    held: Amount,
    /// Whether the next period brings credits.
    comes_back: bool,
    overdraft: Option<Amount>,
    credit_balance: Amount,
    lifetime_added: Amount,
    lifetime_spent: Amount,
    resets: When,
    resets_in: String,
}

struct Share {
    class: &'static str,
    label: &'static str,
    amount: Amount,
}

/// The burn-down of the period.
struct Burn {
    plot: Svg,
    top: Amount,
    starts: When,
    ends: When,
    /// What is expected, in a sentence: before and after the time that it names.
    expected: Expected,
    days: Vec<DayLeft>,
}

struct DayLeft {
    day: String,
    used: Amount,
    left: Amount,
}

enum Expected {
    Empty,
    /// Nothing was used lately.
    Idle,
    RunsOut {
        at: When,
        is_in: String,
        pace: Amount,
    },
    Lasts {
        left: Amount,
        pace: Amount,
    },
}

struct Went {
    total: Amount,
    bar: Svg,
    categories: Vec<Slice>,
    has_more: bool,
}

struct Slice {
    class: &'static str,
    label: String,
    href: String,
    sum: Sum,
    amount: Amount,
    share: String,
    bar: Svg,
    tiers: Vec<Slice>,
}

struct Holds {
    rows: Vec<Hold>,
    has_more: bool,
}

struct Hold {
    id: String,
    state: String,
    amount: Amount,
    user: Option<String>,
    user_href: String,
    feature: String,
    since: When,
    ends_in: String,
}

struct Fired {
    what: String,
    about: String,
    at: When,
    ago: String,
    class: &'static str,
}

pub fn routes() -> Router {
    Router::new().route("/accounts/{account}", get(show))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    if visit.who.role == Role::Member {
        return own(visit, id).await;
    }
    let api = &visit.api;
    let path = path_of(&id);
    let read = |below: &str| format!("{path}{below}");
    let (holds, firings) =
        (format!("{path}/reservations?limit={HOLDS}"), format!("{path}/firings?limit={FIRINGS}"));
    let (balance_path, days_path, groups_path) = (read("/balance"), read(DAYS), read(GROUPS));
    let whole = async { tokio::try_join!(visit.account(&id), api.get::<Balance>(&balance_path)) };
    let (whole, days, groups, holds, firings) = tokio::join!(
        whole,
        api.get::<List<OnDay>>(&days_path),
        api.get::<List<Group>>(&groups_path),
        api.get::<List<Reservation>>(&holds),
        api.get::<List<Firing>>(&firings),
    );
    let (account, balance) = whole?;
    let base = format!("/accounts/{}", segment(&id));
    let now = account.now(visit.now);
    layout::page(&Overview {
        frame: Frame::account(&visit, &account, Tab::Overview, "Overview").live(&id),
        credit: credit_bar(&account, &balance, now),
        burn: days.map(|days| burn(&account, &balance, &days.items, now)),
        went: groups.map(|groups| went(&base, account.unit, &groups)),
        holds: holds.map(|holds| open_holds(&base, account.unit, holds, now)),
        firings: firings.map(|firings| firings.items.iter().map(|one| fired(&account, one, now)).collect()),
        may_buy: visit.who.may_set() && !account.is_closed(),
        as_of: format::when(&balance.recorded_at),
        base,
    })
}

fn credit_bar(account: &Account, balance: &Balance, now: Time) -> CreditBar {
    let unit = account.unit;
    let left = lots::left(&balance.lots, balance.recorded_at.max(now)).map(|(kind, sum)| (kind.shown(), sum));
    let whole = left.iter().fold(balance.used, |whole, (_, sum)| whole.plus(*sum));
    let mut bar = Vec::new();
    // Open holds are taken from what burns first.
    let mut held = balance.held;
    for ((class, label), sum) in left {
        let taken = sum.min(held);
        held = held.minus(taken);
        let free = sum.minus(taken);
        bar.push(Part { class, sum: free, label: format!("{label}: {}", unit.show(free).text()) });
    }
    let held = balance.held.minus(held);
    bar.push(Part { class: "held", sum: held, label: format!("Held: {}", unit.show(held).text()) });
    let title = format!("{} left of {}", unit.show(balance.available).text(), unit.show(whole).text());
    let parts = left.into_iter().filter(|(_, sum)| sum.is_positive());
    CreditBar {
        plan: plan_of(account),
        status: balance.status.clone(),
        available: unit.show(balance.available),
        unit: unit.word(),
        percent_remaining: balance.percent_remaining.map(format::percent_of_api),
        bar: chart::bar(&title, &bar, whole),
        parts: parts.map(|((class, label), sum)| Share { class, label, amount: unit.show(sum) }).collect(),
        used: unit.show(balance.used),
        percent_used: balance.percent_used.map(format::percent_of_api),
        held: unit.show(balance.held),
        comes_back: account.plan.allowance.is_positive(),
        overdraft: balance.overdraft.is_positive().then(|| unit.show(balance.overdraft)),
        credit_balance: unit.show(balance.credit_balance),
        lifetime_added: unit.show(balance.lifetime_added),
        lifetime_spent: unit.show(balance.lifetime_spent),
        resets: format::when(&balance.period.ends_at),
        resets_in: format::distance(now, balance.period.ends_at),
    }
}

fn plan_of(account: &Account) -> String {
    let plan = &account.plan;
    let name = plan.name.clone().filter(|name| !name.is_empty());
    let allowance = account.unit.show(plan.allowance).text();
    let each = format!("{allowance} {}", format::words(&plan.cycle).to_lowercase());
    name.map_or_else(|| each.clone(), |name| format!("{name} \u{b7} {each}"))
}

/// The part of a period that has passed, in millionths.
fn passed(period: &Period, at: Time) -> u32 {
    let (length, since) = (period.ends_at.minus(period.starts_at).max(1), at.minus(period.starts_at));
    let share = i128::from(since) * 1_000_000 / i128::from(length);
    u32::try_from(share.clamp(0, 1_000_000)).unwrap_or_default()
}

fn burn(account: &Account, balance: &Balance, days: &[OnDay], now: Time) -> Burn {
    let (unit, period) = (account.unit, balance.period);
    let now = now.clamp(period.starts_at, period.ends_at);
    let left = if balance.settled.is_positive() { balance.settled } else { Sum::ZERO };
    let used = days.iter().fold(Sum::ZERO, |sum, day| sum.plus(day.credits));
    let whole = left.plus(used);
    let zone: Zone = account.plan.timezone.parse().unwrap_or(Zone::UTC);
    let first = zone.local_day(period.starts_at).days();
    let mut points = vec![(0, 1_000_000)];
    let (mut rest, mut rows) = (whole, Vec::new());
    for day in days {
        rest = rest.minus(day.credits);
        let ended = period.starts_at.plus_micros(i64::from(day.day.days() - first + 1) * DAY_MICROS);
        points.push((passed(&period, ended.min(now)), rest.share_of(whole)));
        rows.push(DayLeft { day: day.day.to_string(), used: unit.show(day.credits), left: unit.show(rest) });
    }
    let here = (passed(&period, now), rest.share_of(whole));
    points.push(here);
    let pace = pace(days, zone, &period, now);
    let expected = expected(unit, left, &pace, &period, now);
    let to = match run_out(left, &pace, now).filter(|at| *at < period.ends_at) {
        Some(at) => (passed(&period, at), 0),
        None => (1_000_000, left_at(left, &pace, now, period.ends_at).share_of(whole)),
    };
    let lines = [
        Line { class: "even", points: vec![(0, 1_000_000), (1_000_000, 0)], is_filled: false },
        Line { class: "ahead", points: vec![here, to], is_filled: false },
        Line { class: "left", points, is_filled: true },
    ];
    let title = "Credits left in this period, day by day, and as they are expected to go on";
    Burn {
        plot: chart::lines(title, &lines, &[("now", here.0)]),
        top: unit.show(whole),
        starts: format::day(&period.starts_at),
        ends: format::day(&period.ends_at),
        expected,
        days: rows,
    }
}

/// How fast credits go: a sum in some time.
struct Pace {
    sum: Sum,
    micros: i64,
}

/// Returns the pace of the last days of the period.
fn pace(days: &[OnDay], zone: Zone, period: &Period, now: Time) -> Pace {
    let from = now.plus_micros(-PACE_DAYS * DAY_MICROS).max(period.starts_at);
    let first = zone.local_day(from);
    let lately = days.iter().filter(|day| day.day >= first);
    let sum = lately.fold(Sum::ZERO, |sum, day| sum.plus(day.credits));
    Pace { sum, micros: now.minus(from).max(1) }
}

impl Pace {
    /// Returns what goes in so much time; none if nothing does, or past all figures.
    fn over(&self, micros: i64) -> Option<Sum> {
        let units = self.sum.units().checked_mul(i128::from(micros))? / i128::from(self.micros);
        Some(Sum(ledger_core::value::credits::Credits::from_units(units)))
    }
}

fn run_out(left: Sum, pace: &Pace, now: Time) -> Option<Time> {
    if !pace.sum.is_positive() {
        return None;
    }
    let micros = left.units().checked_mul(i128::from(pace.micros))? / pace.sum.units();
    let micros = i64::try_from(micros).ok()?;
    now.micros().checked_add(micros).map(Time::from_micros)
}

fn left_at(left: Sum, pace: &Pace, now: Time, at: Time) -> Sum {
    let left = left.minus(pace.over(at.minus(now)).unwrap_or(left));
    if left.is_negative() { Sum::ZERO } else { left }
}

fn expected(unit: Unit, left: Sum, pace: &Pace, period: &Period, now: Time) -> Expected {
    if !left.is_positive() {
        return Expected::Empty;
    }
    let (true, Some(a_day)) = (pace.sum.is_positive(), pace.over(DAY_MICROS)) else { return Expected::Idle };
    let a_day = unit.show(a_day);
    match run_out(left, pace, now).filter(|at| *at < period.ends_at) {
        Some(at) => Expected::RunsOut { at: format::day(&at), is_in: format::distance(now, at), pace: a_day },
        None => Expected::Lasts { left: unit.show(left_at(left, pace, now, period.ends_at)), pace: a_day },
    }
}

/// What use is divided by, level by level.
type Level = (&'static str, fn(&Group) -> Option<&str>);
const LEVELS: [Level; 3] = [
    ("category", |group| group.category.as_deref()),
    ("tier", |group| group.tier.as_deref()),
    ("model", |group| group.model.as_deref()),
];

fn went(base: &str, unit: Unit, groups: &List<Group>) -> Went {
    let total = groups.items.iter().fold(Sum::ZERO, |sum, group| sum.plus(group.credits));
    let all: Vec<&Group> = groups.items.iter().collect();
    let categories = Division { base, unit, total }.slices(&all, &[], "");
    let part = |slice: &Slice| {
        let label = format!("{}: {}", slice.label, unit.show(slice.sum).text());
        Part { class: slice.class, sum: slice.sum, label }
    };
    let parts: Vec<Part> = categories.iter().map(part).collect();
    let bar = chart::bar("Use by category", &parts, total);
    Went { total: unit.show(total), bar, categories, has_more: groups.next_cursor.is_some() }
}

/// Divides use, and links each part to what it is made of.
struct Division<'a> {
    base: &'a str,
    unit: Unit,
    total: Sum,
}

impl Division<'_> {
    /// Returns the parts of the next level, the largest first; `above` are the names of the levels above.
    fn slices(&self, groups: &[&Group], above: &[&str], class: &'static str) -> Vec<Slice> {
        let Some((_, name_of)) = LEVELS.get(above.len()) else { return Vec::new() };
        let mut named: Vec<(&str, Sum, Vec<&Group>)> = Vec::new();
        for group in groups {
            let name = name_of(group).unwrap_or_default();
            match named.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, sum, within)) => {
                    *sum = sum.plus(group.credits);
                    within.push(group);
                }
                None => named.push((name, group.credits, vec![group])),
            }
        }
        named.sort_by_key(|(_, sum, _)| std::cmp::Reverse(*sum));
        if let ([("", _, within)], false) = (named.as_slice(), above.is_empty()) {
            // A level without any name says nothing.
            return self.slices(within, &[above, &[""]].concat(), class);
        }
        let slice = |(at, (name, sum, within)): (usize, &(&str, Sum, Vec<&Group>))| {
            let class = if above.is_empty() { COLOURS[at.min(COLOURS.len() - 1)] } else { class };
            self.slice(class, *sum, within, &[above, &[*name]].concat())
        };
        named.iter().enumerate().map(slice).collect()
    }

    fn slice(&self, class: &'static str, sum: Sum, within: &[&Group], names: &[&str]) -> Slice {
        let next = LEVELS.get(names.len()).map_or("day", |(dimension, _)| *dimension);
        let filters = LEVELS.iter().zip(names).map(|((dimension, _), name)| (*dimension, *name));
        let query: Fields = filters.chain([("group_by", next)]).collect();
        let name = names.last().copied().filter(|name| !name.is_empty());
        let (share, shown) = (format::percent(sum.share_of(self.total)), self.unit.show(sum));
        let part = Part { class, sum, label: shown.text() };
        Slice {
            class,
            label: name.unwrap_or("not named").to_owned(),
            href: format!("{}/usage{}", self.base, query.link()),
            sum,
            amount: shown,
            bar: chart::bar(&format!("{share} of all"), &[part], self.total),
            share,
            tiers: self.slices(within, names, class),
        }
    }
}

fn open_holds(base: &str, unit: Unit, list: List<Reservation>, now: Time) -> Holds {
    let row = |hold: Reservation| Hold {
        amount: unit.show(hold.amount),
        user_href: hold
            .user_id
            .as_deref()
            .map_or_else(String::new, |user| format!("{base}/people/{}", segment(user))),
        user: hold.user_id,
        feature: hold.feature.unwrap_or_default(),
        since: format::when(&hold.created_at),
        ends_in: format::distance(now, hold.expires_at),
        id: hold.reservation_id,
        state: hold.state,
    };
    Holds { has_more: list.next_cursor.is_some(), rows: list.items.into_iter().map(row).collect() }
}

fn fired(account: &Account, firing: &Firing, now: Time) -> Fired {
    let unit = account.unit;
    let about =
        if firing.subject == account.account_id { "the account".to_owned() } else { firing.subject.clone() };
    let alert = firing.alert_id.as_deref().unwrap_or("alert");
    let (figure, threshold) = (unit.show(firing.figure).text(), unit.show(firing.threshold).text());
    let (what, class) = match firing.kind.as_str() {
        "org_alert" => (format!("{alert} fired at {figure} (set at {threshold})"), "low"),
        "user_alert" => (format!("used {figure} (alert at {threshold})"), "low"),
        "user_limit_reached" => (format!("reached the limit of {threshold}"), "depleted"),
        "credit_balance_low" => (format!("balance is low: {figure} (line at {threshold})"), "low"),
        "credit_balance_depleted" => ("credits are used up".to_owned(), "depleted"),
        "credits_available_again" => (format!("credits are back: {figure}"), "ok"),
        "credit_auto_recharge_triggered" => (format!("auto top-up of {figure}"), "ok"),
        "credit_purchase_failed" => ("a top-up failed".to_owned(), "depleted"),
        other => (format::words(other), "low"),
    };
    Fired {
        what,
        about,
        at: format::when(&firing.fired_at),
        ago: format::distance(now, firing.fired_at),
        class,
    }
}

#[derive(Template)]
#[template(path = "overview_own.html")]
struct Own {
    frame: Frame,
    used: Amount,
    limit: Option<Amount>,
    left: Option<Amount>,
    held: Amount,
    is_blocked: bool,
    bar: Svg,
    went: Result<Went, Failure>,
    days: Result<Svg, Failure>,
}

#[derive(Deserialize)]
struct User {
    used: Sum,
    counted: Sum,
    held: Sum,
    limit: Option<Sum>,
    blocked: bool,
}

/// Shows a member the own use and limit: nothing else of the account.
async fn own(visit: Visit, id: String) -> Result<Response, Failure> {
    let path = path_of(&id);
    let (users, groups, days) =
        (format!("{path}/users?limit=1"), format!("{path}{GROUPS}"), format!("{path}{DAYS}"));
    let (users, groups, days) = tokio::join!(
        visit.api.get::<List<User>>(&users),
        visit.api.get::<List<Group>>(&groups),
        visit.api.get::<List<OnDay>>(&days),
    );
    let unit = visit.who.own_unit();
    let nothing = User { used: Sum::ZERO, counted: Sum::ZERO, held: Sum::ZERO, limit: None, blocked: false };
    let user = users?.items.into_iter().next().unwrap_or(nothing);
    let whole = user.limit.unwrap_or(user.used);
    let class = if user.blocked { "depleted" } else { "allowance" };
    let part = Part { class, sum: user.counted, label: unit.show(user.counted).text() };
    let base = format!("/accounts/{}", segment(&id));
    layout::page(&Own {
        frame: Frame::of_member(&visit, &id, Tab::Overview, "Your use"),
        used: unit.show(user.used),
        limit: user.limit.map(|limit| unit.show(limit)),
        left: user.limit.map(|limit| unit.show(limit.minus(user.counted))),
        held: unit.show(user.held),
        is_blocked: user.blocked,
        bar: chart::bar("Used of your limit", &[part], whole),
        went: groups.map(|groups| went(&base, unit, &groups)),
        days: days.map(|days| daily(unit, &days.items)),
    })
}

fn daily(unit: Unit, days: &[OnDay]) -> Svg {
    let column = |day: &OnDay| {
        let label =
            format!("{}: {} in {} events", day.day, unit.show(day.credits).text(), format::count(day.events));
        Column { parts: vec![Part { class: "c1", sum: day.credits, label: label.clone() }], label }
    };
    let columns: Vec<Column> = days.iter().map(column).collect();
    chart::columns("Use by day", &columns, chart::top(&columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(text: &str) -> Sum {
        serde_json::from_value(text.into()).expect("an amount")
    }

    fn time(text: &str) -> Time {
        text.parse().expect("a time")
    }

    fn period() -> Period {
        Period { index: 1, starts_at: time("2026-03-01T00:00:00Z"), ends_at: time("2026-03-31T00:00:00Z") }
    }

    fn check(left: &str, used_lately: &str, expected_day: Option<&str>) {
        let now = time("2026-03-11T00:00:00Z");
        let days =
            [OnDay { day: "2026-03-09".parse().expect("a day"), credits: sum(used_lately), events: 1 }];
        let pace = pace(&days, Zone::UTC, &period(), now);
        let at = run_out(sum(left), &pace, now).filter(|at| *at < period().ends_at);
        assert_eq!(at, expected_day.map(time), "{left} left, {used_lately} in 7 days");
    }

    #[test]
    fn credits_run_out_at_the_pace_of_the_last_days() {
        check("70", "70", Some("2026-03-18T00:00:00Z"));
        check("10", "70", Some("2026-03-12T00:00:00Z"));
        check("700", "70", None);
        check("70", "0", None);
        check("99999999999999999999999999999", "0.000000001", None);
    }

    #[test]
    fn use_is_divided_by_what_has_names() {
        let group = |category: &str, tier: Option<&str>, model: Option<&str>, credits: &str| Group {
            category: Some(category.to_owned()),
            tier: tier.map(str::to_owned),
            model: model.map(str::to_owned),
            credits: sum(credits),
        };
        let items = vec![
            group("chat", Some("basic"), Some("m1"), "1"),
            group("chat", Some("premium"), Some("m2"), "5"),
            group("chat", Some("premium"), Some("m3"), "2"),
            group("storage", None, None, "3"),
        ];
        let shown = went("/accounts/a", Unit::Credits, &List { items, next_cursor: None }).categories;
        let texts = |slices: &[Slice]| -> Vec<String> {
            slices.iter().map(|slice| format!("{} {}", slice.label, slice.amount.text())).collect()
        };
        assert_eq!(texts(&shown), ["chat 8", "storage 3"]);
        assert_eq!(texts(&shown[0].tiers), ["premium 7", "basic 1"]);
        assert_eq!(texts(&shown[0].tiers[0].tiers), ["m2 5", "m3 2"]);
        assert!(shown[1].tiers.is_empty());
        let model = &shown[0].tiers[0].tiers[0];
        assert_eq!(model.href, "/accounts/a/usage?category=chat&tier=premium&model=m2&group_by=day");
    }

    #[test]
    fn a_period_passes_from_its_start_to_its_end() {
        let at = |text: &str| passed(&period(), time(text));
        assert_eq!(at("2026-02-01T00:00:00Z"), 0);
        assert_eq!(at("2026-03-16T00:00:00Z"), 500_000);
        assert_eq!(at("2026-04-16T00:00:00Z"), 1_000_000);
    }
}

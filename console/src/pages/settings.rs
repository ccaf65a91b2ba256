//! Settings: the account itself, its plan and what waits, its people and its webhook, and how it is closed.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use ledger_core::value::time::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::account::{Account, path_of};
use crate::api::Failure;
use crate::format::{self, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::typed::{Again, Typed, filled};
use crate::visit::{Fields, Form, Visit, segment};

/// People that the page lists; a search finds the others.
const PEOPLE: usize = 100;
/// Fields of a plan in its form, as the API names them; the rollover has two more.
const PLAN: [&str; 9] = [
    "name",
    "cycle",
    "anchor",
    "timezone",
    "allowance",
    "pack_expiry",
    "on_exhausted",
    "overage_limit",
    "rate_card",
];

#[derive(Deserialize)]
struct Holder {
    #[serde(flatten)]
    account: Account,
    overdraft: String,
    usd_per_unit: Option<Sum>,
    #[serde(default)]
    payment_customer: Option<String>,
}

#[derive(Deserialize)]
struct Plans {
    plan: Plan,
    next: Option<Plan>,
    next_at: Option<Time>,
}

#[derive(Deserialize)]
struct Plan {
    name: Option<String>,
    cycle: String,
    anchor: Time,
    timezone: String,
    allowance: Sum,
    rollover: Rollover,
    pack_expiry: String,
    on_exhausted: String,
    overage_limit: Option<Sum>,
    rate_card: Option<String>,
}

#[derive(Deserialize)]
struct Rollover {
    mode: String,
    #[serde(default)]
    cap: Option<Sum>,
}

/// What `PUT …/contacts` takes, and what it answers.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Contacts {
    admins: Vec<Person>,
    users: Vec<Person>,
    webhook: Option<Webhook>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Person {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Webhook {
    url: String,
    /// Only in the answer that makes it.
    #[serde(default, skip_serializing)]
    secret: Option<String>,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct Settings {
    frame: Frame,
    place: String,
    account: Account,
    overdraft: String,
    price: String,
    customer: String,
    threshold: String,
    tag: String,
    plans: Result<ShownPlans, Failure>,
    /// None: not for this key.
    contacts: Option<Result<ShownContacts, Failure>>,
    again: Again,
    hook: Hook,
    may_set: bool,
    may_decide: bool,
}

/// What a form has done with the webhook, shown once.
#[derive(Default)]
struct Hook {
    secret: Option<String>,
    tested: Option<Tested>,
}

/// What came of a test call.
#[derive(Deserialize)]
struct Tested {
    event_id: String,
    is_accepted: bool,
    status: Option<u16>,
    duration_ms: u64,
    reason: Option<String>,
}

struct ShownPlans {
    now: Vec<(&'static str, String)>,
    next: Vec<(&'static str, String)>,
    next_at: Option<When>,
}

struct ShownContacts {
    people: Vec<ShownPerson>,
    searched: String,
    total: usize,
    webhook: Option<String>,
}

struct ShownPerson {
    id: String,
    name: String,
    email: String,
    list: &'static str,
}

impl Settings {
    fn at(&self, below: &str) -> String {
        format!("{}{below}", self.place)
    }
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/settings", get(show))
        .route("/accounts/{account}/settings/account", get(show).post(set_account))
        .route("/accounts/{account}/settings/customer", get(show).post(set_customer))
        .route("/accounts/{account}/settings/people", get(show).post(put_person))
        .route("/accounts/{account}/settings/people/remove", post(remove_person))
        .route("/accounts/{account}/settings/people/erase", post(erase_person))
        .route("/accounts/{account}/settings/webhook", get(show).post(set_webhook))
        .route("/accounts/{account}/settings/webhook/remove", post(remove_webhook))
        .route("/accounts/{account}/settings/webhook/secret", get(show).post(new_secret))
        .route("/accounts/{account}/settings/webhook/test", get(show).post(test_webhook))
        .route("/accounts/{account}/settings/plan", get(ask_plan).post(set_plan))
        .route("/accounts/{account}/settings/close", get(ask_close).post(close))
}

fn place(id: &str) -> String {
    format!("/accounts/{}/settings", segment(id))
}

fn text(sum: Option<Sum>) -> String {
    sum.map(|sum| sum.0.to_string()).unwrap_or_default()
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    render(&visit, &id, Again::default(), Hook::default()).await
}

async fn render(visit: &Visit, id: &str, again: Again, hook: Hook) -> Result<Response, Failure> {
    let (api, path, may_set) = (&visit.api, path_of(id), visit.who.may_set());
    let (plan_path, contacts_path) = (format!("{path}/plan"), format!("{path}/contacts"));
    let contacts = async { if may_set { Some(api.get::<Contacts>(&contacts_path).await) } else { None } };
    let (holder, plans, contacts) =
        tokio::join!(api.get_tagged::<Holder>(&path), api.get::<Plans>(&plan_path), contacts);
    let (Holder { account, overdraft, usd_per_unit, payment_customer }, tag) = holder?;
    let unit = account.unit;
    let status = again.status();
    let page = Settings {
        frame: Frame::account(visit, &account, Tab::Settings, "Settings"),
        place: place(id),
        price: text(usd_per_unit),
        customer: payment_customer.unwrap_or_default(),
        threshold: text(account.low_balance_threshold),
        plans: plans.map(|plans| shown_plans(unit, &plans)),
        contacts: contacts
            .map(|read| read.map(|contacts| shown_contacts(&contacts, visit.query.get("person")))),
        may_set: may_set && !account.is_closed(),
        may_decide: visit.who.is_operator() && !account.is_closed(),
        account,
        overdraft,
        tag,
        again,
        hook,
    };
    layout::page_with(status, &page)
}

fn shown_plans(unit: Unit, plans: &Plans) -> ShownPlans {
    ShownPlans {
        now: facts(unit, &plans.plan),
        next: plans.next.as_ref().map(|next| facts(unit, next)).unwrap_or_default(),
        next_at: plans.next_at.as_ref().map(format::when),
    }
}

fn facts(unit: Unit, plan: &Plan) -> Vec<(&'static str, String)> {
    let rollover = match (plan.rollover.mode.as_str(), plan.rollover.cap) {
        ("none", _) => "Expires".to_owned(),
        (_, Some(cap)) => format!("Rolls over, up to {}", unit.show(cap).text()),
        _ => "Rolls over".to_owned(),
    };
    let exhausted = match (plan.on_exhausted.as_str(), plan.overage_limit) {
        ("allow", Some(limit)) => format!("Work goes on, {} beyond 0", unit.show(limit).text()),
        ("allow", None) => "Work goes on".to_owned(),
        _ => "Work stops".to_owned(),
    };
    let bought = if plan.pack_expiry == "never" { "Never" } else { "With the cycle" };
    let named = plan.name.clone().filter(|name| !name.is_empty()).map(|name| ("Name", name));
    let all = [
        ("Allowance", format!("{} {}", unit.show(plan.allowance).text(), unit.word())),
        ("Cycle", format::words(&plan.cycle)),
        ("Time zone", plan.timezone.clone()),
        ("What is left over", rollover),
        ("Bought credits end", bought.to_owned()),
        ("When credits run out", exhausted),
        ("Rate card", plan.rate_card.clone().unwrap_or_else(|| "None".to_owned())),
    ];
    named.into_iter().chain(all).collect()
}

fn shown_contacts(contacts: &Contacts, searched: &str) -> ShownContacts {
    let lists = [("admins", &contacts.admins), ("users", &contacts.users)];
    let all = lists.into_iter().flat_map(|(list, people)| people.iter().map(move |person| (list, person)));
    let wanted = searched.to_lowercase();
    let has_it = |text: &str| text.to_lowercase().contains(&wanted);
    let is_found = |person: &Person| {
        has_it(&person.id)
            || person.name.as_deref().is_some_and(has_it)
            || person.email.as_deref().is_some_and(has_it)
    };
    let found = all.filter(|(_, person)| is_found(person)).take(PEOPLE).map(|(list, person)| ShownPerson {
        id: person.id.clone(),
        name: person.name.clone().unwrap_or_default(),
        email: person.email.clone().unwrap_or_default(),
        list,
    });
    ShownContacts {
        people: found.collect(),
        searched: searched.to_owned(),
        total: contacts.admins.len() + contacts.users.len(),
        webhook: contacts.webhook.as_ref().map(|webhook| webhook.url.clone()),
    }
}

/// Ends a form of this page: with the page that says so, or with the form as it was typed.
async fn answer(
    visit: &Visit,
    id: &str,
    form: &'static str,
    fields: &Fields,
    sent: Result<Value, Failure>,
    word: &str,
) -> Result<Response, Failure> {
    match sent {
        Ok(answer) => Ok(layout::done(&place(id), layout::word_of(&answer, word))),
        Err(failure) if failure.is_about_form() => {
            render(visit, id, Again::of(form, fields, failure), Hook::default()).await
        }
        Err(failure) => Err(failure),
    }
}

/// Returns the change of an account: an empty threshold removes it, an empty name stays as it is.
fn account_body(form: &Fields) -> Value {
    let mut body = filled(form, &["name", "overdraft"]);
    let threshold = form.filled("low_balance_threshold").map_or(Value::Null, Value::from);
    body.insert("low_balance_threshold".into(), threshold);
    body.into()
}

async fn set_account(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let write = visit.api.patch(&path_of(&id)).json(&account_body(&form)).if_match(form.get("tag"));
    let sent = write.send().await;
    answer(&visit, &id, "account", &form, sent, "saved").await
}

async fn set_customer(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let customer = form.filled("payment_customer").map_or(Value::Null, Value::from);
    let sent = visit.api.patch(&path_of(&id)).json(&json!({"payment_customer": customer})).send().await;
    answer(&visit, &id, "customer", &form, sent, "saved").await
}

/// Reads the contacts, changes them, and writes them unless somebody else has changed them meanwhile.
async fn change(visit: &Visit, id: &str, change: impl FnOnce(&mut Contacts)) -> Result<Contacts, Failure> {
    let path = format!("{}/contacts", path_of(id));
    let (mut contacts, tag) = visit.api.get_tagged::<Contacts>(&path).await?;
    change(&mut contacts);
    let body = json!(contacts);
    let answer = visit.api.put(&path).json(&body).if_match(&tag).send().await?;
    let unread = |_| Failure::not_found("the contacts are saved, but can't be read");
    serde_json::from_value(answer).map_err(unread)
}

impl Contacts {
    fn without(&mut self, id: &str) {
        self.admins.retain(|person| person.id != id);
        self.users.retain(|person| person.id != id);
    }

    /// Puts a person last into a list, in place of the one of the same id.
    fn put(&mut self, list: &str, person: Person) {
        self.without(&person.id);
        if list == "users" { self.users.push(person) } else { self.admins.push(person) }
    }
}

/// Lets the errors of a person in a list name the fields of the form.
fn of_person(mut failure: Failure) -> Failure {
    for error in &mut failure.errors {
        let is_of_list = error.field.starts_with("admins.") || error.field.starts_with("users.");
        if let (true, Some((_, field))) = (is_of_list, error.field.rsplit_once('.')) {
            error.field = format!("person_{field}");
        }
    }
    failure
}

async fn put_person(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let given = |name: &str| form.filled(name).map(str::to_owned);
    let person = Person {
        id: form.get("person_id").to_owned(),
        name: given("person_name"),
        email: given("person_email"),
    };
    let list = form.get("person_list").to_owned();
    let sent = change(&visit, &id, |contacts| contacts.put(&list, person)).await;
    let sent = sent.map(|_| Value::Null).map_err(of_person);
    answer(&visit, &id, "people", &form, sent, "saved").await
}

async fn remove_person(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let sent = change(&visit, &id, |contacts| contacts.without(form.get("person_id"))).await;
    answer(&visit, &id, "people", &form, sent.map(|_| Value::Null), "removed").await
}

async fn erase_person(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/erase-person", path_of(&id));
    let sent = visit.api.post(&path).json(&json!({"id": form.get("person_id")})).send().await;
    answer(&visit, &id, "people", &form, sent.map(|_| Value::Null), "removed").await
}

async fn set_webhook(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let url = form.get("url").to_owned();
    let sent = change(&visit, &id, |contacts| contacts.webhook = Some(Webhook { url, secret: None })).await;
    match sent {
        // Shown in this answer and never again, so that the secret stands in no address.
        Ok(Contacts { webhook: Some(Webhook { secret: Some(secret), .. }), .. }) => {
            render(&visit, &id, Again::default(), Hook { secret: Some(secret), tested: None }).await
        }
        sent => answer(&visit, &id, "webhook", &form, sent.map(|_| Value::Null), "saved").await,
    }
}

async fn remove_webhook(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let sent = change(&visit, &id, |contacts| contacts.webhook = None).await;
    answer(&visit, &id, "webhook", &form, sent.map(|_| Value::Null), "removed").await
}

async fn new_secret(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/contacts/webhook-secret", path_of(&id));
    match visit.api.post(&path).send().await {
        Ok(answer) => {
            let secret = answer["webhook"]["secret"].as_str().map(str::to_owned);
            render(&visit, &id, Again::default(), Hook { secret, tested: None }).await
        }
        Err(failure) => answer(&visit, &id, "webhook", &form, Err(failure), "saved").await,
    }
}

async fn test_webhook(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/contacts/webhook-test", path_of(&id));
    match visit.api.post(&path).send().await {
        Ok(answer) => {
            let unread = |_| Failure::not_found("the webhook was called, but what it answered can't be read");
            let tested = serde_json::from_value(answer).map_err(unread)?;
            render(&visit, &id, Again::default(), Hook { secret: None, tested: Some(tested) }).await
        }
        // An account tests so many times in a minute.
        Err(failure) if failure.is_about_form() || failure.status == StatusCode::TOO_MANY_REQUESTS => {
            render(&visit, &id, Again::of("webhook-test", &form, failure), Hook::default()).await
        }
        Err(failure) => Err(failure),
    }
}

/// A form on a page of its own.
#[derive(Template)]
#[template(path = "settings_form.html")]
struct Sheet {
    frame: Frame,
    place: String,
    account: Account,
    is_plan: bool,
    typed: Typed,
    tag: String,
    cards: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Cards {
    items: Vec<Card>,
}

#[derive(Deserialize)]
struct Card {
    card: String,
}

async fn sheet(visit: &Visit, id: &str, is_plan: bool, typed: Typed, tag: &str) -> Result<Response, Failure> {
    // The form works without the list of cards.
    let (account, cards) =
        tokio::join!(visit.account(id), visit.api.get::<Cards>("/v1/rate-cards?limit=500"));
    let account = account?;
    let mut cards: Vec<String> = cards.unwrap_or_default().items.into_iter().map(|card| card.card).collect();
    if let Some(chosen) =
        typed.fields.filled("rate_card").filter(|chosen| !cards.iter().any(|card| card == chosen))
    {
        cards.push(chosen.to_owned());
    }
    let status = if typed.failure.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let title = if is_plan { "Change the plan" } else { "Close the account" };
    let frame = Frame::account(visit, &account, Tab::Settings, title);
    let tag = tag.to_owned();
    layout::page_with(status, &Sheet { frame, place: place(id), account, is_plan, typed, tag, cards })
}

fn require_operator(visit: &Visit, detail: &str) -> Result<(), Failure> {
    if visit.who.is_operator() {
        return Ok(());
    }
    Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", detail))
}

async fn ask_plan(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    require_operator(&visit, "only an operator changes the plan")?;
    let path = format!("{}/plan", path_of(&id));
    let (plans, tag) = visit.api.get_tagged::<Plans>(&path).await?;
    // What waits is what a change replaces.
    let plan = plans.next.unwrap_or(plans.plan);
    let typed = Typed::with([
        ("name", plan.name.unwrap_or_default()),
        ("cycle", plan.cycle),
        ("anchor", plan.anchor.to_string()),
        ("timezone", plan.timezone),
        ("allowance", plan.allowance.0.to_string()),
        ("rollover_mode", plan.rollover.mode),
        ("rollover_cap", text(plan.rollover.cap)),
        ("pack_expiry", plan.pack_expiry),
        ("on_exhausted", plan.on_exhausted),
        ("overage_limit", text(plan.overage_limit)),
        ("rate_card", plan.rate_card.unwrap_or_default()),
        ("at", "next_period".to_owned()),
    ]);
    sheet(&visit, &id, true, typed, &tag).await
}

fn plan_body(form: &Fields) -> Value {
    let mut plan: Map<String, Value> = filled(form, &PLAN);
    if let Some(mode) = form.filled("rollover_mode") {
        let cap = form.filled("rollover_cap").filter(|_| mode == "capped");
        let rollover = cap.map_or_else(|| json!({"mode": mode}), |cap| json!({"mode": mode, "cap": cap}));
        plan.insert("rollover".into(), rollover);
    }
    json!({"plan": plan, "at": form.get("at")})
}

async fn set_plan(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/plan", path_of(&id));
    let body = plan_body(&form);
    match visit.api.put(&path).json(&body).if_match(form.get("tag")).send().await {
        Ok(answer) => Ok(layout::done(&place(&id), layout::word_of(&answer, "saved"))),
        Err(failure) if failure.is_about_form() => {
            sheet(&visit, &id, true, Typed::refused(&form, failure), form.get("tag")).await
        }
        Err(failure) => Err(failure),
    }
}

async fn ask_close(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    require_operator(&visit, "only an operator closes an account")?;
    sheet(&visit, &id, false, Typed::default(), "").await
}

async fn close(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/close", path_of(&id));
    match visit.api.post(&path).json(&filled(&form, &["reason"]).into()).send().await {
        Ok(answer) => Ok(layout::done(&place(&id), layout::word_of(&answer, "closed"))),
        Err(failure) if failure.is_about_form() => {
            sheet(&visit, &id, false, Typed::refused(&form, failure), "").await
        }
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use crate::api::FieldError;

    use super::*;

    #[test]
    fn an_empty_threshold_is_removed_and_an_empty_name_stays() {
        let body = account_body(&Fields::read(b"name=&low_balance_threshold="));
        assert_eq!(body, json!({"low_balance_threshold": null}));
        let body = account_body(&Fields::read(b"name=Acme&low_balance_threshold=5&overdraft=carry"));
        assert_eq!(body, json!({"name": "Acme", "low_balance_threshold": "5", "overdraft": "carry"}));
    }

    #[test]
    fn a_person_stands_in_one_list_once() {
        let person = |id: &str| Person { id: id.into(), name: None, email: None };
        let mut contacts = Contacts { admins: vec![person("ana"), person("bo")], ..Contacts::default() };
        contacts.put("users", person("ana"));
        let ids = |people: &[Person]| people.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
        assert_eq!(
            (ids(&contacts.admins), ids(&contacts.users)),
            (vec!["bo".to_owned()], vec!["ana".to_owned()])
        );
        let found = shown_contacts(&contacts, "AN");
        assert_eq!((found.people.len(), found.total, found.people[0].list), (1, 2, "users"));
    }

    #[test]
    fn an_error_of_a_list_names_the_field_of_the_form() {
        let mut failure = Failure::not_found("no");
        failure.errors = vec![FieldError { field: "admins.3.email".into(), detail: "is no address".into() }];
        assert_eq!(of_person(failure).of_field("person_email"), Some("is no address"));
    }

    #[test]
    fn a_cap_is_sent_with_its_mode_alone() {
        let body = plan_body(&Fields::read(
            b"cycle=monthly&allowance=5&rollover_mode=none&rollover_cap=9&at=now&name=&overage_limit=",
        ));
        let expected = json!({"plan": {"cycle": "monthly", "allowance": "5", "rollover": {"mode": "none"}}, "at": "now"});
        assert_eq!(body, expected);
    }
}

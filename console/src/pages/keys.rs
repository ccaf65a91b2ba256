//! Keys: who may use the API. The operator's alone; a secret is shown in the answer that makes it, and never again.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::Value;

use crate::api::{Failure, List};
use crate::format::{self, When};
use crate::layout::{self, Frame, Tab};
use crate::typed::{Typed, add_times, filled};
use crate::visit::{Fields, Form, Visit, segment};

const ROWS: usize = 50;
/// Accounts that a row names; the others are counted.
const ACCOUNTS_SHOWN: usize = 3;
const ROLES: [(&str, &str); 5] = [
    ("admin", "Admin: reads its accounts and sets limits, alerts, contacts and auto top-up"),
    ("producer", "Producer: sends usage, checks and holds; reads nothing"),
    ("member", "Member: one user\u{2019}s own usage in one account"),
    ("auditor", "Auditor: reads everything, writes nothing"),
    ("operator", "Operator: everything"),
];

#[derive(Deserialize)]
struct Key {
    key_id: String,
    role: String,
    accounts: Vec<String>,
    user_id: Option<String>,
    name: String,
    created_at: Time,
    created_by: String,
    expires_at: Option<Time>,
    revoked_at: Option<Time>,
}

#[derive(Deserialize)]
struct Created {
    key_id: String,
    /// None: the form was sent twice.
    secret: Option<String>,
}

#[derive(Template)]
#[template(path = "keys.html")]
struct Keys {
    frame: Frame,
    rows: Vec<Row>,
    first: Option<String>,
    next: Option<String>,
    typed: Typed,
    made: Option<Created>,
}

impl Keys {
    fn roles(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        ROLES.into_iter()
    }
}

struct Row {
    id: String,
    name: String,
    role: String,
    over: String,
    made: When,
    by: String,
    expires: Option<When>,
    state: State,
    is_own: bool,
    end: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Expired,
    Ended,
}

pub fn routes() -> Router {
    Router::new().route("/keys", get(show).post(make)).route("/keys/{key}/end", post(end))
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    render(&visit, Typed::default(), None).await
}

async fn render(visit: &Visit, typed: Typed, made: Option<Created>) -> Result<Response, Failure> {
    let query = &visit.query;
    let asked = Fields::from_iter([("limit", ROWS.to_string())]).with("cursor", query.get("cursor"));
    let list: List<Key> = visit.api.get(&format!("/v1/keys{}", asked.link())).await?;
    let rows = list.items.into_iter().map(|key| row(visit, key)).collect();
    let status = if typed.failure.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let page = Keys {
        frame: Frame::of(visit, "Keys", Tab::Keys),
        rows,
        first: query.filled("cursor").map(|_| "/keys".to_owned()),
        next: list
            .next_cursor
            .map(|cursor| format!("/keys{}", Fields::default().with("cursor", &cursor).link())),
        typed,
        made,
    };
    layout::page_with(status, &page)
}

fn state(key: &Key, now: Time) -> State {
    if key.revoked_at.is_some() {
        State::Ended
    } else if key.expires_at.is_some_and(|end| end <= now) {
        State::Expired
    } else {
        State::Good
    }
}

fn over(accounts: &[String], user: Option<&str>) -> String {
    let shown = match accounts {
        [] => "No account of its own".to_owned(),
        [all] if all == "*" => "All accounts".to_owned(),
        few if few.len() <= ACCOUNTS_SHOWN => few.join(", "),
        many => {
            format!("{} and {} more", many[..ACCOUNTS_SHOWN].join(", "), many.len() - ACCOUNTS_SHOWN)
        }
    };
    user.map_or_else(|| shown.clone(), |user| format!("{user} in {shown}"))
}

fn row(visit: &Visit, key: Key) -> Row {
    Row {
        state: state(&key, visit.now),
        is_own: visit.who.key_id == key.key_id,
        over: match key.role.as_str() {
            "operator" | "auditor" => "All accounts".to_owned(),
            _ => over(&key.accounts, key.user_id.as_deref()),
        },
        made: format::when(&key.created_at),
        by: key.created_by,
        expires: key.expires_at.as_ref().map(format::when),
        end: format!("/keys/{}/end", segment(&key.key_id)),
        name: key.name,
        role: key.role,
        id: key.key_id,
    }
}

/// Returns a new key as the form has it; accounts stand in one line, between spaces or commas.
fn body(form: &Fields) -> Value {
    let mut body = filled(form, &["role", "name", "user_id"]);
    let accounts = form.get("accounts").split([',', ' ', '\n', '\r', '\t']);
    let accounts: Vec<&str> = accounts.filter(|account| !account.is_empty()).collect();
    if !accounts.is_empty() {
        body.insert("accounts".into(), accounts.into());
    }
    add_times(&mut body, form, &["expires_at"]);
    body.into()
}

async fn make(visit: Visit, form: Form) -> Result<Response, Failure> {
    match visit.api.post("/v1/keys").json(&body(&form)).once(form.get("once")).send().await {
        Ok(answer) => {
            let unread = |_| Failure::not_found("the key is made, but can't be read");
            let created: Created = serde_json::from_value(answer).map_err(unread)?;
            // Shown in this answer alone, so that the secret stands in no address.
            render(&visit, Typed::default(), Some(created)).await
        }
        Err(failure) if failure.is_about_form() => render(&visit, Typed::refused(&form, failure), None).await,
        Err(failure) => Err(failure),
    }
}

async fn end(visit: Visit, Path(key): Path<String>) -> Result<Response, Failure> {
    visit.api.delete(&format!("/v1/keys/{}", segment(&key))).send().await?;
    Ok(layout::done("/keys", "ended"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn accounts_stand_in_one_line() {
        let form =
            Fields::read(b"role=admin&accounts=acme%2C+beta%0Agamma&name=&expires_at=2026-03-03T10:00");
        let expected = json!({"role": "admin", "accounts": ["acme", "beta", "gamma"],
                              "expires_at": "2026-03-03T10:00:00Z"});
        assert_eq!(body(&form), expected);
        assert_eq!(body(&Fields::read(b"role=operator&accounts=")), json!({"role": "operator"}));
    }

    #[test]
    fn many_accounts_are_counted() {
        let accounts = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(over(&accounts("*"), None), "All accounts");
        assert_eq!(over(&accounts("a b c d e"), None), "a, b, c and 2 more");
        assert_eq!(over(&accounts("a"), Some("ana")), "ana in a");
    }
}

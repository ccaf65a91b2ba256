//! Free credits: an account invites others and gets credits for them, and redeems promo codes.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::account::path_of;
use crate::api::{Failure, FieldError};
use crate::format::{self, Amount, Sum};
use crate::layout::{self, Frame, Tab};
use crate::typed::{Again, filled};
use crate::visit::{Form, Visit, segment};

#[derive(Deserialize)]
struct Referrals {
    invited: u32,
    accepted: u32,
    rewarded: u32,
    credits_earned: Sum,
}

#[derive(Template)]
#[template(path = "free_credits.html")]
struct FreeCredits {
    frame: Frame,
    place: String,
    code: String,
    /// The product's sign-up page with the code; none where nobody has said where it is.
    link: Option<String>,
    referrals: Result<Shown, Failure>,
    again: Again,
    /// Whom an invitation went to, and its code.
    invited: Option<(String, String)>,
    may_set: bool,
    is_closed: bool,
}

struct Shown {
    invited: String,
    accepted: String,
    rewarded: String,
    earned: Amount,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/free-credits", get(show))
        .route("/accounts/{account}/free-credits/invite", get(show).post(invite))
        .route("/accounts/{account}/free-credits/redeem", get(show).post(redeem))
}

fn place(id: &str) -> String {
    format!("/accounts/{}/free-credits", segment(id))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    render(&visit, &id, Again::default(), None).await
}

async fn render(
    visit: &Visit,
    id: &str,
    again: Again,
    invited: Option<(String, String)>,
) -> Result<Response, Failure> {
    let path = format!("{}/referrals", path_of(id));
    let (account, referrals) = tokio::join!(visit.account(id), visit.api.get::<Referrals>(&path));
    let account = account?;
    let unit = account.unit;
    let status = again.status();
    let shown = |referrals: Referrals| Shown {
        invited: format::count(referrals.invited),
        accepted: format::count(referrals.accepted),
        rewarded: format::count(referrals.rewarded),
        earned: unit.show(referrals.credits_earned),
    };
    let page = FreeCredits {
        frame: Frame::account(visit, &account, Tab::FreeCredits, "Get free credits"),
        place: place(id),
        code: account.account_id.clone(),
        link: visit.referral_url.as_deref().map(|url| link(url, &account.account_id)),
        referrals: referrals.map(shown),
        again,
        invited,
        may_set: visit.who.may_set() && !account.is_closed(),
        is_closed: account.is_closed(),
    };
    layout::page_with(status, &page)
}

/// Returns the address of the sign-up page that names who has referred.
fn link(sign_up: &Url, code: &str) -> String {
    let mut link = sign_up.clone();
    link.query_pairs_mut().append_pair("referred_by", code);
    link.into()
}

async fn invite(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/referrals", path_of(&id));
    match visit.api.post(&path).json(&json!({"email": form.get("email")})).send().await {
        Ok(answer) => {
            let code = answer["code"].as_str().unwrap_or_default().to_owned();
            let invited = Some((form.get("email").to_owned(), code));
            render(&visit, &id, Again::default(), invited).await
        }
        // An account invites so many in a day: what was typed stays.
        Err(failure) if failure.is_about_form() || failure.status == StatusCode::TOO_MANY_REQUESTS => {
            render(&visit, &id, Again::of("invite", &form, failure), None).await
        }
        Err(failure) => Err(failure),
    }
}

/// Lets a refusal of the code as a whole stand at its field.
fn at_code(mut failure: Failure) -> Failure {
    if failure.errors.is_empty() && failure.code.starts_with("promo_code") {
        failure.errors.push(FieldError { field: "code".to_owned(), detail: failure.detail.clone() });
    }
    failure
}

async fn redeem(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/redemptions", path_of(&id));
    let body = Value::from(filled(&form, &["code"]));
    match visit.api.post(&path).json(&body).send().await {
        Ok(answer) => Ok(layout::done(&place(&id), layout::word_of(&answer, "redeemed"))),
        Err(failure) if failure.is_about_form() || failure.status == StatusCode::TOO_MANY_REQUESTS => {
            render(&visit, &id, Again::of("redeem", &form, at_code(failure)), None).await
        }
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_keeps_what_the_sign_up_page_has_and_adds_the_code() {
        let check = |sign_up: &str, expected: &str| {
            assert_eq!(link(&sign_up.parse().expect("an address"), "acme.eu"), expected);
        };
        check("https://example.test/join", "https://example.test/join?referred_by=acme.eu");
        check(
            "https://example.test/join?from=app#top",
            "https://example.test/join?from=app&referred_by=acme.eu#top",
        );
    }

    #[test]
    fn a_code_that_is_unknown_is_an_error_of_its_field() {
        let unknown = Failure::new(StatusCode::NOT_FOUND, "promo_code_unknown", "there is no promo code X");
        assert_eq!(at_code(unknown).of_field("code"), Some("there is no promo code X"));
        let closed = Failure::new(StatusCode::CONFLICT, "account_closed", "closed");
        assert_eq!(at_code(closed).of_field("code"), None);
    }
}

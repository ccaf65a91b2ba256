//! Errors: what a page says when the API refuses what it needs.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::api::Failure;
use crate::layout::{self, Frame, Tab};
use crate::visit::Visit;

#[derive(Template)]
#[template(path = "error.html")]
struct Error {
    frame: Frame,
    heading: String,
    failure: Failure,
    what_to_do: &'static str,
}

/// A problem leaves its handler as it is; [`shown`] makes the page, once it is known for whom.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Makes the page of a problem.
pub fn shown(visit: Option<&Visit>, theme: &'static str, failure: Failure) -> Response {
    let heading = heading_of(&failure);
    let frame = match visit {
        Some(visit) => Frame::of(visit, &heading, Tab::None),
        None => Frame::outside(&heading, theme),
    };
    let (status, what_to_do) = (failure.status, what_to_do(&failure));
    let page = layout::page_with(status, &Error { frame, heading, failure, what_to_do });
    page.unwrap_or_else(|_| status.into_response())
}

fn heading_of(failure: &Failure) -> String {
    match failure.status {
        StatusCode::FORBIDDEN => "Your key can\u{2019}t do that".to_owned(),
        StatusCode::NOT_FOUND => "There is nothing here".to_owned(),
        StatusCode::SERVICE_UNAVAILABLE => "Not just now".to_owned(),
        StatusCode::TOO_MANY_REQUESTS => "Too fast".to_owned(),
        _ => failure.title.to_string(),
    }
}

/// Returns the advice for a problem.
fn what_to_do(failure: &Failure) -> &'static str {
    match (failure.code.as_str(), failure.status) {
        ("account_halted", _) => {
            "An event of this account can\u{2019}t be folded. Usage is still recorded. The operator has been alerted."
        }
        ("reads_only", _) => {
            "Whoever runs the ledger sets LEDGER_COMMAND_URL for the process that serves this page."
        }
        ("form_expired", _) => "Go back, reload the page and send the form again.",
        ("changed_meanwhile", _) => {
            "Somebody else has changed this. Go back, reload the page and decide again."
        }
        (_, StatusCode::FORBIDDEN) => {
            "The key you signed in with does not allow it, or is for other accounts. Sign in with another key."
        }
        (_, StatusCode::NOT_FOUND) => "Check the address, or search for it.",
        (_, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => {
            "Wait a moment, then reload the page."
        }
        (_, status) if status.is_server_error() => {
            "Reload the page. If it stays, tell whoever runs the ledger."
        }
        _ => "Go back and correct it.",
    }
}

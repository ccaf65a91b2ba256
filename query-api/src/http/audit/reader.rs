//! Reader: who may read the transparency log: auditors and operators, and everybody where it is public.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use web::auth::{Action, Principal};
use web::http::Problem;
use web::openapi::{Operation, Reads};

use crate::app::App;

/// A caller who may read the log; no key is looked at where everybody may.
pub(super) struct Reader;

impl FromRequestParts<App> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if !app.audit_public {
            Principal::from_request_parts(parts, app).await?.require_role(Action::AuditRead)?;
        }
        Ok(Self)
    }
}

impl Reads for Reader {
    fn describe(operation: &mut Operation<'_>) {
        operation.needs_key();
    }
}

//! Reads a body strictly, and reports every bad field.
//!
//! `read` parses the body into the journal's struct. If that fails, it parses the body again with known good values in
//! place of the bad ones, and so finds every bad field.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::body::Body;
use super::limits::ERRORS_MAX;
use crate::event::field_error::{FieldError, refuse};
use crate::event::{OpenAccount, SetOrgAlert};
use crate::value::id::{AccountId, AlertId};

/// Reads a body. Errors: every bad field.
pub fn read<T: Body>(value: Value) -> Result<T, Vec<FieldError>> {
    let mut errors = Vec::new();
    match read_into(value, "", &mut errors) {
        Some(body) if errors.is_empty() => Ok(body),
        _ => Err(errors),
    }
}

/// Reads the part of a body at `prefix`; adds its faults to `errors`.
pub fn read_into<T: Body>(mut value: Value, prefix: &str, errors: &mut Vec<FieldError>) -> Option<T> {
    let good: Value = serde_json::from_str(T::GOOD).expect("a good body is JSON");
    if !value.is_object() {
        let field = if prefix.is_empty() { "body" } else { prefix };
        errors.push(FieldError::new(field, "wrong_type", "must be a JSON object"));
        return None;
    }
    let mut found = Vec::new();
    let mut body = None;
    while found.len() < ERRORS_MAX {
        match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(read) => {
                body = Some(read);
                break;
            }
            Err(error) => {
                let (path, code, detail) = explain(&error);
                if !replace(&mut value, &good, &path) {
                    found.push(FieldError::new(path.join("."), &code, detail));
                    break;
                }
                found.push(FieldError::new(path.join("."), &code, detail));
            }
        }
    }
    if let Some(body) = &body {
        let mut ruled = Vec::new();
        body.check(&mut ruled);
        // Report a fault of the whole body only for the body as sent, not for its good fields alone.
        ruled.retain(|rule| !found.iter().any(|bad| is_within(&bad.field, &rule.field)));
        found.append(&mut ruled);
    }
    for mut error in found {
        if !prefix.is_empty() {
            error.field =
                if error.field.is_empty() { prefix.into() } else { format!("{prefix}.{}", error.field) };
        }
        errors.push(error);
    }
    body
}

/// Returns whether a field is `whole` or a part of it.
fn is_within(field: &str, whole: &str) -> bool {
    whole == "body" || field.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Removes one field from a body and reads it; a missing or bad one adds to `errors`.
pub fn take<T: DeserializeOwned>(
    body: &mut Map<String, Value>,
    field: &str,
    required: bool,
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    match body.remove(field) {
        None | Some(Value::Null) => {
            if required {
                errors.push(FieldError::new(field, "required", "is required"));
            }
            None
        }
        Some(value) => match T::deserialize(&value) {
            Ok(value) => Some(value),
            Err(error) => {
                let (code, detail) = code_and_detail(&error.to_string());
                errors.push(FieldError::new(field, &code, detail));
                None
            }
        },
    }
}

/// Returns the path, the code and the detail of a reading error.
fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> (Vec<String>, String, String) {
    let mut path: Vec<String> = error
        .path()
        .iter()
        .filter_map(|segment| match segment {
            serde_path_to_error::Segment::Map { key } => Some(key.clone()),
            serde_path_to_error::Segment::Seq { index } => Some(index.to_string()),
            serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => None,
        })
        .collect();
    let message = error.inner().to_string();
    if let Some(field) = quoted(&message, "missing field ") {
        path.push(field);
        return (path, "required".into(), "is required".into());
    }
    if let Some(field) = quoted(&message, "unknown field ") {
        if path.last() != Some(&field) {
            path.push(field);
        }
        return (path, "unknown_field".into(), "is not a field of this body".into());
    }
    let (code, detail) = code_and_detail(&message);
    (path, code, detail)
}

/// Splits a reader's message into code and rule; serde's own messages get a code here.
fn code_and_detail(message: &str) -> (String, String) {
    if let Some((code, detail)) = message.split_once(": ")
        && !code.is_empty()
        && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    {
        return (code.into(), detail.into());
    }
    let code = if message.starts_with("unknown variant") {
        "not_one_of"
    } else if message.starts_with("invalid value") {
        "out_of_range"
    } else {
        "wrong_type"
    };
    (code.into(), message.into())
}

fn quoted(message: &str, before: &str) -> Option<String> {
    let rest = message.strip_prefix(before)?.strip_prefix('`')?;
    rest.split_once('`').map(|(name, _)| name.to_owned())
}

/// Puts the good value at `path`, or removes the field if the good body has none. Returns false if it changed nothing.
fn replace(value: &mut Value, good: &Value, path: &[String]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let (mut at, mut good_at) = (value, Some(good));
    for name in parents {
        good_at = good_at.and_then(|good| step(good, name));
        let next = match at {
            Value::Object(map) => map.get_mut(name),
            Value::Array(items) => name.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    let good_value = good_at.and_then(|good| step(good, last)).cloned();
    match at {
        Value::Object(map) => {
            let before = map.get(last).cloned();
            match good_value {
                Some(good) => map.insert(last.clone(), good),
                None => map.remove(last),
            };
            map.get(last).cloned() != before
        }
        Value::Array(items) => {
            let Some(index) = last.parse::<usize>().ok().filter(|index| *index < items.len()) else {
                return false;
            };
            items.remove(index);
            true
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn step<'a>(good: &'a Value, name: &str) -> Option<&'a Value> {
    match good {
        Value::Object(map) => map.get(name),
        Value::Array(items) => items.first(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// An account to open, for the documents.
#[derive(JsonSchema)]
#[schemars(rename = "NewAccount", deny_unknown_fields)]
#[allow(dead_code, reason = "stands for its schema")]
pub struct Opening {
    /// The id that the account has for good.
    account_id: AccountId,
    #[serde(flatten)]
    opening: OpenAccount,
}

/// Reads the opening of an account with its id. Errors: every bad field.
pub fn read_opening(value: Value) -> Result<(AccountId, OpenAccount), Vec<FieldError>> {
    let Value::Object(mut body) = value else {
        return Err(vec![FieldError::new("body", "wrong_type", "must be a JSON object")]);
    };
    let mut errors = Vec::new();
    let account = take(&mut body, "account_id", true, &mut errors);
    let opening = read_into(Value::Object(body), "", &mut errors);
    match (account, opening) {
        (Some(account), Some(opening)) if errors.is_empty() => Ok((account, opening)),
        _ => Err(errors),
    }
}

/// Reads an org alert, whose id is in the URL. Errors: every bad field.
pub fn read_org_alert(alert_id: &AlertId, value: Value) -> Result<SetOrgAlert, Vec<FieldError>> {
    let Value::Object(mut body) = value else {
        return Err(vec![FieldError::new("body", "wrong_type", "must be a JSON object")]);
    };
    let mut errors = Vec::new();
    let id_sent = body.insert("alert_id".into(), Value::from(alert_id.as_str())).is_some();
    refuse(&mut errors, id_sent, "alert_id", "unknown_field", "is not a field of this body");
    let alert = read_into(Value::Object(body), "", &mut errors);
    alert.filter(|_| errors.is_empty()).ok_or(errors)
}

#[cfg(test)]
mod tests {
    use super::super::limits::LIMITS;
    use super::*;
    use crate::event::{Adjust, ChangeAccount, Grant, Purchase, SetLimits, SetUserAlert, Usage};

    fn fields(errors: &[FieldError]) -> String {
        let mut fields: Vec<_> = errors.iter().map(|e| format!("{} {}", e.field, e.code)).collect();
        fields.sort();
        fields.join(", ")
    }

    fn check<T: Body + std::fmt::Debug>(body: &str, expected: &str) {
        let value = serde_json::from_str(body).expect("JSON");
        let actual = match read::<T>(value) {
            Ok(_) => "fine".into(),
            Err(errors) => fields(&errors),
        };
        assert_eq!(actual, expected, "{body}");
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        check::<OpenAccount>(
            r#"{"nam":"x","unit":"euro","plan":{"anchor":"soon","timezone":"Mars/One","allowance":5,"rollover":{"cap":"-1"}}}"#,
            "nam unknown_field, plan.allowance not_an_amount, plan.anchor not_a_time, plan.cycle required, \
             plan.rollover.cap negative, plan.rollover.cap not_allowed, plan.rollover.mode required, \
             plan.timezone unknown_time_zone, unit not_one_of",
        );
    }

    #[test]
    fn amounts_are_strings_within_their_places() {
        let cases = [
            ("5", "not_an_amount"),
            ("\"1e3\"", "not_an_amount"),
            ("\"-1\"", "not_positive"),
            ("\"0\"", "not_positive"),
        ];
        for (amount, code) in cases {
            check::<Purchase>(
                &format!(r#"{{"payment_id":"p","amount":{amount}}}"#),
                &format!("amount {code}"),
            );
        }
        check::<Purchase>(r#"{"payment_id":"p","amount":"0.0000000001"}"#, "amount too_many_places");
        check::<Purchase>(r#"{"payment_id":"p","amount":"1000000000000000000"}"#, "amount too_many_digits");
        check::<Purchase>(r#"{"payment_id":"p","amount":"999999999999999999.999999999"}"#, "fine");
    }

    #[test]
    fn a_body_that_is_no_object_is_named_as_a_whole() {
        check::<Adjust>("[]", "body wrong_type");
        check::<Adjust>("{}", "amount required, reason required");
    }

    #[test]
    fn usage_keeps_to_its_limits() {
        let many: Vec<_> = (0..17).map(|n| format!(r#""k{n}":"v""#)).collect();
        check::<Usage>(&format!(r#"{{"metadata":{{{}}}}}"#, many.join(",")), "metadata too_many");
        check::<Usage>(
            r#"{"credits":"-1","user_id":" no id","quantities":{"Bad":1,"x":-1,"y":1.5}}"#,
            "credits negative, quantities.Bad bad_slug, quantities.x negative, quantities.y not_an_amount, user_id bad_id",
        );
        check::<Usage>(r#"{"lines":[],"held":"1"}"#, "held unknown_field, lines unknown_field");
    }

    #[test]
    fn a_grant_may_not_take_the_ledgers_ids_or_end_before_it_starts() {
        check::<Grant>(
            r#"{"grant_id":"plan:1","source":"purchase","amount":"1","priority":5000,
                "effective_at":"2026-01-02T00:00:00Z","expires_at":"2026-01-01T00:00:00Z"}"#,
            "expires_at not_after, grant_id reserved_id, priority out_of_range, source not_one_of",
        );
    }

    #[test]
    fn null_removes_the_low_balance_line_and_absence_keeps_it() {
        let read =
            |body: &str| read::<ChangeAccount>(serde_json::from_str(body).expect("JSON")).expect("a change");
        assert_eq!(read(r#"{"low_balance_threshold":null}"#).low_balance_threshold, Some(None));
        assert_eq!(read(r#"{"name":"x"}"#).low_balance_threshold, None);
        check::<ChangeAccount>("{}", "body empty");
        check::<ChangeAccount>(r#"{"name":5}"#, "name wrong_type");
    }

    #[test]
    fn limits_keep_to_their_rules() {
        check::<SetLimits>("{}", "fine");
        check::<SetLimits>(
            r#"{"enabled":true,"default_limit":"1000","custom":{"ana":"500","bo":"unlimited"},
                "excluded_features":["workflow"],"notify":"all_admins"}"#,
            "fine",
        );
        check::<SetLimits>(
            r#"{"enabled":"yes","default_limit":"-1","custom":{"ana":"-1","bo":"never"," no id":"1","cy":5},
                "excluded_features":["a","a"],"notify":["a","a"]}"#,
            "custom. no id bad_id, custom.ana negative, custom.bo not_an_amount, custom.cy not_an_amount, \
             default_limit negative, enabled wrong_type, excluded_features duplicate, notify duplicate",
        );
        check::<SetLimits>(r#"{"notify":[]}"#, "fine");
        check::<SetLimits>(r#"{"notify":"everyone"}"#, "notify not_one_of");
        check::<SetLimits>(r#"{"notify":[" no id"]}"#, "notify.0 bad_id");
        check::<SetLimits>(r#"{"notify":["ana","ana"],"users":{}}"#, "notify duplicate, users unknown_field");
        let users = |count: usize| (0..count).map(|n| format!(r#""u{n}":"1""#)).collect::<Vec<_>>().join(",");
        let custom = |count: usize| format!(r#"{{"custom":{{{}}}}}"#, users(count));
        check::<SetLimits>(&custom(LIMITS.custom_limits_max), "fine");
        check::<SetLimits>(&custom(LIMITS.custom_limits_max + 1), "custom too_many");
        let list = |count: usize| (0..count).map(|n| format!(r#""x{n}""#)).collect::<Vec<_>>().join(",");
        let lists = |features, people| {
            format!(r#"{{"excluded_features":[{}],"notify":[{}]}}"#, list(features), list(people))
        };
        check::<SetLimits>(&lists(LIMITS.excluded_features_max, LIMITS.recipients_max), "fine");
        check::<SetLimits>(
            &lists(LIMITS.excluded_features_max + 1, LIMITS.recipients_max + 1),
            "excluded_features too_many, notify out_of_range",
        );
    }

    fn check_org_alert(body: &str, expected: &str) {
        let alert = AlertId::new("a75").expect("an id");
        let actual = match read_org_alert(&alert, serde_json::from_str(body).expect("JSON")) {
            Ok(read) => {
                assert_eq!(read.alert_id, alert);
                "fine".into()
            }
            Err(errors) => fields(&errors),
        };
        assert_eq!(actual, expected, "{body}");
    }

    #[test]
    fn a_threshold_keeps_to_the_range_of_its_basis() {
        for (basis, threshold, expected) in [
            ("percent_used", "1", "fine"),
            ("percent_used", "100", "fine"),
            ("percent_used", "0.999999999", "threshold out_of_range"),
            ("percent_used", "100.000000001", "threshold out_of_range"),
            ("percent_remaining", "0", "fine"),
            ("percent_remaining", "100", "fine"),
            ("percent_remaining", "-0.1", "threshold out_of_range"),
            ("percent_remaining", "101", "threshold out_of_range"),
            ("absolute_used", "0", "fine"),
            ("absolute_used", "1000000", "fine"),
            ("absolute_used", "-1", "threshold negative"),
            ("absolute_remaining", "0", "fine"),
            ("absolute_remaining", "-1", "threshold negative"),
        ] {
            check_org_alert(&format!(r#"{{"basis":"{basis}","threshold":"{threshold}"}}"#), expected);
        }
    }

    #[test]
    fn an_org_alert_says_whom_it_tells_and_how_without_repeating_itself() {
        let with = |fields: &str| format!(r#"{{"basis":"absolute_used","threshold":"5",{fields}}}"#);
        for (fields, expected) in [
            (r#""recipients":["carl","dora"],"channels":["email","webhook","in_app"]"#, "fine"),
            (r#""recipients":"all_admins","channels":null"#, "fine"),
            (r#""recipients":[]"#, "recipients out_of_range"),
            (r#""recipients":["carl","carl"]"#, "recipients duplicate"),
            (r#""recipients":["carl"," no id","carl"]"#, "recipients.1 bad_id"),
            (r#""recipients":{"carl":1}"#, "recipients wrong_type"),
            (r#""channels":[]"#, "channels required"),
            (r#""channels":["email","email"]"#, "channels duplicate"),
            (r#""channels":["fax"]"#, "channels.0 not_one_of"),
            (r#""channels":[{"email":null}]"#, "channels.0 wrong_type"),
            (r#""alert_id":"a75""#, "alert_id unknown_field"),
        ] {
            check_org_alert(&with(fields), expected);
        }
        check_org_alert("{}", "basis required, threshold required");
        check_org_alert("[]", "body wrong_type");
    }

    #[test]
    fn a_user_alert_needs_a_threshold_unless_it_is_off() {
        check::<SetUserAlert>(r#"{"threshold":"500"}"#, "fine");
        check::<SetUserAlert>(r#"{"enabled":false}"#, "fine");
        check::<SetUserAlert>("{}", "threshold required");
        check::<SetUserAlert>(r#"{"enabled":true,"threshold":null}"#, "threshold required");
        check::<SetUserAlert>(
            r#"{"threshold":"-1","notify_user":"yes","recipients":["a","a"],"channels":["email"]}"#,
            "channels unknown_field, notify_user wrong_type, recipients duplicate, threshold negative",
        );
    }

    #[test]
    fn a_user_alert_tells_somebody_and_may_tell_the_user_alone() {
        let with = |fields: &str| format!(r#"{{"threshold":"500",{fields}}}"#);
        for (fields, expected) in [
            (r#""notify_user":true,"recipients":[]"#, "fine"),
            (r#""notify_user":true,"recipients":["carl"]"#, "fine"),
            (r#""notify_user":false,"recipients":[]"#, "recipients out_of_range"),
            (r#""notify_user":null,"recipients":[]"#, "recipients out_of_range"),
            (r#""recipients":[]"#, "recipients out_of_range"),
        ] {
            check::<SetUserAlert>(&with(fields), expected);
        }
    }
}

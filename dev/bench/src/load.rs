//! Load: usage as an AI product sends it, and the records it becomes.

use ledger_core::value::id::AccountId;
use serde_json::{Value, json};

/// The rate card that prices the events' model; [`rate_card`] makes it.
pub const CARD: &str = "bench";
/// When every event of a generated journal happens and its accounts open.
pub const AT: &str = "2026-01-01T00:00:00Z";

pub fn account(number: usize) -> AccountId {
    AccountId::new(&format!("account-{number}")).expect("a well-formed id")
}

/// A plan whose allowance the benchmark never uses up.
pub fn opening(account: &str, clock: &str) -> Value {
    json!({
        "account_id": account, "name": account, "clock": clock,
        "plan": {"name": "bench", "cycle": "monthly", "allowance": "1000000000", "rate_card": CARD},
    })
}

/// The body of `PUT /v1/rate-cards/bench`.
pub fn rate_card() -> Value {
    let price = |credits: &str| json!({"credits": credits, "per": "1000000"});
    json!({"meters": [{
        "category": "ai_usage", "match": {"model": "gpt-4o"},
        "prices": {"input_tokens": price("250"), "output_tokens": price("1000")},
    }]})
}

/// An event as a producer sends it.
pub fn offered(account: usize, user: usize, number: usize, time: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"msg-{number}","source":"/bench","type":"ledger.usage.recorded.v1","subject":"account-{account}","time":"{time}","data":{{"user_id":"user-{user}","feature":"agent_chat","category":"ai_usage","provider":"openai","model":"gpt-4o","tier":"advanced","quantities":{{"input_tokens":"1200","output_tokens":"80"}},"message_id":"msg-{number}"}}}}"#
    )
}

/// The journal's record of such an event.
pub fn recorded(account: usize, user: usize, number: usize) -> Vec<u8> {
    let lines = r#"[{"quantity":"input_tokens","amount":"1200","unit_credits":"250","per":"1000000","credits":"0.3","rate_card":"bench","version":1},{"quantity":"output_tokens","amount":"80","unit_credits":"1000","per":"1000000","credits":"0.08","rate_card":"bench","version":1}]"#;
    format!(
        r#"{{"specversion":"1.0","id":"msg-{number}","source":"/bench","type":"ledger.usage.recorded.v1","subject":"account-{account}","time":"{AT}","recordedat":"{AT}","actor":"bench","datacontenttype":"application/json","dataschema":"schemas/usage.recorded.v1.json","data":{{"user_id":"user-{user}","feature":"agent_chat","category":"ai_usage","provider":"openai","model":"gpt-4o","tier":"advanced","quantities":{{"input_tokens":"1200","output_tokens":"80"}},"credits":"0.38","message_id":"msg-{number}","lines":{lines}}}}}"#
    )
    .into_bytes()
}

/// The journal's record of an account's opening.
pub fn opened(account: usize) -> Vec<u8> {
    format!(
        r#"{{"specversion":"1.0","id":"open-{account}","source":"urn:ledger:api","type":"ledger.account.opened.v1","subject":"account-{account}","time":"{AT}","recordedat":"{AT}","actor":"bench","datacontenttype":"application/json","dataschema":"schemas/account.opened.v1.json","data":{{"clock":"test","plan":{{"cycle":"monthly","allowance":"1000000000","rate_card":"{CARD}"}}}}}}"#
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger_core::event::wire;

    #[test]
    fn what_is_measured_is_what_the_journal_takes() {
        for record in [opened(1), recorded(1, 2, 3)] {
            let event = wire::decode(&record).expect("a well-formed record");
            assert_eq!(event.account, account(1));
        }
        ledger_core::request::read_offer(offered(1, 2, 3, AT).as_bytes()).expect("a well-formed event");
    }
}

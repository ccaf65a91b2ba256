//! A story that the tests of the console look at.

use anyhow::Result;
use e2e::Whole;
use serde_json::{Value, json};

/// Opens an account on a test clock, with usage of two users.
pub async fn tell(whole: &Whole, account: &str, allowance: &str) -> Result<()> {
    let operator = whole.operator().at("2026-01-01T00:00:00Z");
    let plan = json!({"cycle": "monthly", "anchor": "2026-01-01T00:00:00Z", "allowance": allowance});
    let body =
        json!({"account_id": account, "name": format!("{account} & sons"), "clock": "test", "plan": plan});
    operator.post("/v1/accounts", body).await?.expect(200)?;
    let used: [(&str, &str, Value); 2] = [
        (
            "u1",
            "ana",
            json!({"category": "chat", "tier": "premium", "model": "m1", "credits": "30.123456789"}),
        ),
        ("u2", "bo", json!({"category": "images", "credits": "10"})),
    ];
    for (id, user, mut body) in used {
        body["id"] = id.into();
        body["user_id"] = user.into();
        body["occurred_at"] = "2026-01-08T12:00:00Z".into();
        let path = format!("/v1/accounts/{account}/usage?wait=true");
        whole.operator().at("2026-01-11T00:00:00Z").post(&path, body).await?.expect(200)?;
    }
    Ok(())
}

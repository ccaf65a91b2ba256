//! User: the figures of one user, and how near the limit they are.

use serde::Deserialize;

use crate::chart::{self, Part, Svg};
use crate::format::{self, Sum, Unit};

/// From this part of the limit on, in millionths, a bar warns.
pub(super) const WARNS_FROM: u32 = 800_000;

#[derive(Deserialize)]
pub(super) struct User {
    pub(super) user_id: String,
    pub(super) used: Sum,
    pub(super) counted: Sum,
    pub(super) held: Sum,
    pub(super) limit: Option<Sum>,
    pub(super) blocked: bool,
}

/// Draws what counts as part of the limit; without a limit, the use as part of the largest.
pub(super) fn against_limit(unit: Unit, user: &User, most: Sum) -> (String, Svg) {
    let Some(limit) = user.limit else {
        let part = Part { class: "c6", sum: user.used, label: unit.show(user.used).text() };
        return (String::new(), chart::bar("Use; no limit", &[part], most));
    };
    let share = if limit.is_positive() { user.counted.share_of(limit) } else { 1_000_000 };
    let class = match share {
        _ if user.blocked => "depleted",
        WARNS_FROM.. => "low",
        _ => "allowance",
    };
    let counted =
        Part { class, sum: user.counted, label: format!("{} used", unit.show(user.counted).text()) };
    let held = Part { class: "held", sum: user.held, label: format!("{} held", unit.show(user.held).text()) };
    let title = format!("{} of {}", unit.show(user.counted).text(), unit.show(limit).text());
    // A limit of 0 is used up from the start.
    let whole = if limit.is_positive() { limit } else { user.counted };
    (format::percent(share), chart::bar(&title, &[counted, held], whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_how_near_the_limit_is() {
        let sum = |text: &str| -> Sum { serde_json::from_value(text.into()).expect("an amount") };
        for (counted, limit, blocked, share, class) in [
            ("10", Some("100"), false, "10 %", "of-allowance"),
            ("80", Some("100"), false, "80 %", "of-low"),
            ("100", Some("100"), true, "100 %", "of-depleted"),
            ("0", Some("0"), true, "100 %", "bar"),
            ("10", None, false, "", "of-c6"),
        ] {
            let user = User {
                user_id: "ada".to_owned(),
                used: sum(counted),
                counted: sum(counted),
                held: Sum::ZERO,
                limit: limit.map(sum),
                blocked,
            };
            let (said, bar) = against_limit(Unit::Credits, &user, sum("100"));
            assert_eq!(said, share, "{counted} of {limit:?}");
            assert!(bar.to_string().contains(class), "{bar}");
        }
    }
}

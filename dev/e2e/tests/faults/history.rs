//! History: the requests and answers of many clients about holds, each with its times, checked against every order in
//! which they can have happened.
//!
//! A decision was made at some instant between its call and its answer. Everything answered before the call had
//! happened by then, and everything called after the answer had not; so the sum of holds lies between two sums, and
//! each grant, refusal and figure must fit one state between them.

use anyhow::{Result, ensure};

/// Amounts in thousandths of a credit.
pub type Milli = i64;

/// An attempt to hold more credits.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub account: usize,
    pub user: usize,
    pub amount: Milli,
    pub called: u64,
    pub answered: u64,
    pub granted: bool,
    /// The available figure of the answer: after a grant the rest, in a refusal by balance the balance.
    pub available: Option<Milli>,
    /// In a refusal by the user's limit, what the user has used and holds.
    pub taken: Option<Milli>,
    /// When the hold was released: from the call to the answer.
    pub released: Option<(u64, u64)>,
}

/// The possible sums of holds at some instant of a window.
struct Bounds {
    granted_answered: Steps,
    granted_called: Steps,
    released_called: Steps,
    released_answered: Steps,
}

/// Sums by instant.
struct Steps(Vec<(u64, Milli)>);

impl Steps {
    fn of(items: impl Iterator<Item = (u64, Milli)>) -> Steps {
        let mut steps: Vec<(u64, Milli)> = items.collect();
        steps.sort_unstable();
        let mut sum = 0;
        for step in &mut steps {
            sum += step.1;
            step.1 = sum;
        }
        Steps(steps)
    }

    /// Returns the sum of everything before an instant.
    fn before(&self, instant: u64) -> Milli {
        let count = self.0.partition_point(|(at, _)| *at < instant);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

impl Bounds {
    fn of<'a>(attempts: impl Iterator<Item = &'a Attempt> + Clone) -> Bounds {
        let granted = attempts.filter(|attempt| attempt.granted);
        let released = granted.clone().filter_map(|attempt| Some((attempt.released?, attempt.amount)));
        Bounds {
            granted_answered: Steps::of(granted.clone().map(|attempt| (attempt.answered, attempt.amount))),
            granted_called: Steps::of(granted.map(|attempt| (attempt.called, attempt.amount))),
            released_called: Steps::of(released.clone().map(|((called, _), amount)| (called, amount))),
            released_answered: Steps::of(released.map(|((_, answered), amount)| (answered, amount))),
        }
    }

    /// Returns the least and the most that others can have held at some instant of an attempt's window.
    fn around(&self, attempt: &Attempt) -> (Milli, Milli) {
        let least =
            self.granted_answered.before(attempt.called) - self.released_called.before(attempt.answered + 1);
        let most =
            self.granted_called.before(attempt.answered) - self.released_answered.before(attempt.called);
        let own = if attempt.granted { attempt.amount } else { 0 };
        // An attempt's own release comes after its answer: it is in neither sum.
        (least, most - own)
    }
}

/// Fails unless every attempt on one account fits its balance and its users' limits.
pub fn check(attempts: &[Attempt], balance: Milli, limit: Option<Milli>) -> Result<()> {
    let of_account = Bounds::of(attempts.iter());
    for attempt in attempts {
        fits_balance(attempt, of_account.around(attempt), balance)?;
    }
    let Some(limit) = limit else {
        let by_limit = attempts.iter().filter(|attempt| attempt.taken.is_some()).count();
        ensure!(by_limit == 0, "{by_limit} attempts were refused by a limit that nobody set");
        return Ok(());
    };
    let users = attempts.iter().map(|attempt| attempt.user + 1).max().unwrap_or_default();
    for user in 0..users {
        let of_user = attempts.iter().filter(move |attempt| attempt.user == user);
        let bounds = Bounds::of(of_user.clone());
        for attempt in of_user {
            fits_limit(attempt, bounds.around(attempt), limit)?;
        }
    }
    Ok(())
}

fn fits_balance(attempt: &Attempt, (least, most): (Milli, Milli), balance: Milli) -> Result<()> {
    if attempt.granted {
        ensure!(
            least + attempt.amount <= balance,
            "granted too much: {attempt:?}, {least} were held at least"
        );
    }
    let Some(available) = attempt.available else { return Ok(()) };
    let own = if attempt.granted { attempt.amount } else { 0 };
    let (lowest, highest) = (balance - most - own, balance - least - own);
    ensure!((lowest..=highest).contains(&available), "{attempt:?} saw what never was: {lowest} to {highest}");
    if attempt.granted {
        ensure!(available >= 0, "granted below nothing: {attempt:?}");
    } else {
        ensure!(available < attempt.amount, "refused although it was covered: {attempt:?}");
    }
    Ok(())
}

fn fits_limit(attempt: &Attempt, (least, most): (Milli, Milli), limit: Milli) -> Result<()> {
    if attempt.granted {
        ensure!(
            least + attempt.amount <= limit,
            "granted past the limit: {attempt:?}, {least} were taken at least"
        );
    }
    let Some(taken) = attempt.taken else { return Ok(()) };
    ensure!((least..=most).contains(&taken), "{attempt:?} saw what never was: {least} to {most}");
    ensure!(taken + attempt.amount > limit, "refused although the limit covered it: {attempt:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(called: u64, answered: u64, amount: Milli, available: Milli) -> Attempt {
        let (account, user, granted, available) = (0, 0, true, Some(available));
        Attempt { account, user, amount, called, answered, granted, available, taken: None, released: None }
    }

    fn refused(called: u64, answered: u64, amount: Milli, available: Milli) -> Attempt {
        Attempt { granted: false, ..granted(called, answered, amount, available) }
    }

    fn fits(attempts: &[Attempt], limit: Option<Milli>) -> bool {
        check(attempts, 10, limit).is_ok()
    }

    #[test]
    fn what_can_have_happened_in_some_order_is_taken_and_everything_else_is_not() {
        assert!(fits(&[granted(0, 1, 6, 4), refused(2, 3, 5, 4)], None));
        // Overlapping: either may have been first.
        assert!(fits(&[granted(0, 5, 6, 4), granted(1, 4, 4, 0)], None));
        assert!(fits(&[granted(0, 5, 6, 4), refused(1, 4, 5, 4)], None));
        assert!(!fits(&[granted(0, 1, 6, 4), granted(2, 3, 5, -1)], None), "too much");
        assert!(!fits(&[granted(0, 1, 6, 4), granted(2, 3, 5, 5)], None), "too much, and another figure");
        assert!(!fits(&[granted(0, 1, 6, 4), refused(2, 3, 4, 4)], None), "covered");
        assert!(!fits(&[granted(0, 1, 6, 4), refused(2, 3, 5, 3)], None), "no such state");
        assert!(!fits(&[refused(0, 1, 5, 4), granted(2, 3, 6, 4)], None), "before anything was held");
        let given_back = Attempt { released: Some((2, 3)), ..granted(0, 1, 6, 4) };
        assert!(fits(&[given_back.clone(), granted(4, 5, 10, 0)], None));
        assert!(!fits(&[given_back, refused(4, 5, 5, 4)], None), "given back before");
    }

    #[test]
    fn limits_are_held_to_the_same() {
        let by_limit = |taken| Attempt { available: None, taken: Some(taken), ..refused(2, 3, 2, 0) };
        assert!(fits(&[granted(0, 1, 4, 6), by_limit(4)], Some(5)));
        assert!(!fits(&[granted(0, 1, 4, 6), by_limit(3)], Some(5)));
        assert!(!fits(&[granted(0, 1, 3, 7), by_limit(3)], Some(5)));
        assert!(!fits(&[granted(0, 1, 3, 7), granted(2, 3, 3, 4)], Some(5)));
    }
}

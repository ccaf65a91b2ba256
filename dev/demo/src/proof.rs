//! Proof: compares the ledger's answers with the demo's own arithmetic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use anyhow::Result;
use ledger_core::value::credits::Credits;

use crate::read_back::Said;
use crate::reference::Figures;

/// How many figures were compared, and which differ.
#[derive(Debug, Default)]
pub struct Findings {
    pub figures: usize,
    /// A sentence for each difference.
    pub differences: Vec<String>,
}

impl Findings {
    pub fn add(&mut self, other: Findings) {
        self.figures += other.figures;
        self.differences.extend(other.differences);
    }

    fn equal<T: PartialEq + Debug>(&mut self, what: &str, expected: &T, said: &T) {
        self.figures += 1;
        if expected != said {
            self.differences.push(format!("{what}: expected {expected:?}, the ledger says {said:?}"));
        }
    }

    fn maps<K: Ord + Debug, V: PartialEq + Debug>(
        &mut self,
        what: &str,
        expected: &BTreeMap<K, V>,
        said: &BTreeMap<K, V>,
    ) {
        let keys: BTreeSet<&K> = expected.keys().chain(said.keys()).collect();
        for key in keys {
            self.equal(&format!("{what} {key:?}"), &expected.get(key), &said.get(key));
        }
    }
}

/// Compares every figure of an account, and adds up its entries.
pub fn examine(account: &str, expected: &Figures, said: &Said) -> Result<Findings> {
    let mut findings = Findings::default();
    let figures = &said.figures;
    findings.equal(&format!("{account}: all usage"), &expected.total, &figures.total);
    findings.maps(&format!("{account}: user"), &expected.users, &figures.users);
    findings.maps(&format!("{account}: kind"), &expected.kinds, &figures.kinds);
    findings.maps(&format!("{account}: period"), &expected.periods, &figures.periods);
    findings.equal(&format!("{account}: balance"), &expected.settled, &figures.settled);
    findings.equal(&format!("{account}: bought credits"), &expected.bought, &figures.bought);
    let mut booked = Credits::ZERO;
    for sum in said.booked.values() {
        booked = booked.plus(*sum)?;
    }
    findings.equal(&format!("{account}: sum of all entries"), &figures.settled, &booked);
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Sum;

    fn said(settled: i64, entry: i64) -> Said {
        let mut figures = Figures { settled: Credits::whole(settled), ..Figures::default() };
        figures.users.insert("ana".into(), Sum { credits: Credits::whole(3), events: 1 });
        let booked = BTreeMap::from([("granted".to_string(), Credits::whole(entry))]);
        Said { figures, balance: serde_json::Value::Null, periods: Vec::new(), entries: 1, booked }
    }

    fn check(expected: &Said, found: &Said, differences: &[&str]) {
        let findings = examine("acme", &expected.figures, found).expect("small sums");
        assert_eq!(findings.differences, differences);
    }

    #[test]
    fn equal_figures_are_no_finding() {
        check(&said(10, 10), &said(10, 10), &[]);
    }

    #[test]
    fn another_balance_is_named_with_both_figures() {
        check(&said(10, 10), &said(9, 9), &["acme: balance: expected 10, the ledger says 9"]);
    }

    #[test]
    fn credits_that_no_entry_explains_are_found() {
        check(&said(10, 10), &said(10, 8), &["acme: sum of all entries: expected 10, the ledger says 8"]);
    }

    #[test]
    fn a_user_too_many_is_found() {
        let mut found = said(10, 10);
        found.figures.users.insert("bo".into(), Sum::default());
        let expected =
            r#"acme: user "bo": expected None, the ledger says Some(Sum { credits: 0, events: 0 })"#;
        check(&said(10, 10), &found, &[expected]);
    }
}

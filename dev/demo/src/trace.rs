//! The trace: one real hour of LLM calls, stretched over three months.
//!
//! The data and its attribution are in `ledger/data/azure-llm-2023/`.

use anyhow::{Context, Result, ensure};
use ledger_core::value::time::Time;

const CSV: &str = include_str!("../data/azure-llm-2023/code.csv");

/// One second of the trace is 36 minutes of the demo: the hour becomes 90 days.
pub const STRETCH: i64 = 2_160;

/// Rows after which the accounts take turns again.
pub const GROUP_ROWS: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its position in the file, from 0.
    pub row: usize,
    /// When it happened: the first call at its original time, the others stretched away from it.
    pub at: Time,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// Reads the embedded trace.
pub fn calls() -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    let mut first = None;
    for (row, line) in csv::Reader::from_reader(CSV.as_bytes()).records().enumerate() {
        let line = line?;
        let field = |at: usize| line.get(at).with_context(|| format!("trace row {row} has no column {at}"));
        let real = time(field(0)?).with_context(|| format!("trace row {row}"))?;
        let first = *first.get_or_insert(real);
        ensure!(real >= first, "trace row {row} goes back in time");
        let input_tokens = field(1)?.parse()?;
        let output_tokens = field(2)?.parse()?;
        let at = first.plus_micros(real.minus(first) * STRETCH);
        calls.push(Call { row, at, input_tokens, output_tokens });
    }
    Ok(calls)
}

/// Keeps about `most` calls, spread evenly over the whole time, in whole groups so that every account has some.
pub fn thin(calls: Vec<Call>, most: usize) -> Vec<Call> {
    let every = calls.len().div_ceil(most.max(1)).max(1);
    calls.into_iter().filter(|call| (call.row / GROUP_ROWS).is_multiple_of(every)).collect()
}

/// Parses `2023-11-16 18:17:03.9799600`; fractions below a microsecond are cut off.
fn time(text: &str) -> Result<Time> {
    let rfc3339 = format!("{}Z", text.replace(' ', "T"));
    rfc3339.parse().with_context(|| format!("{text} is no time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_hour_is_there() {
        let calls = calls().expect("the trace reads");
        assert_eq!(calls.len(), 8_819);
        assert_eq!(calls.iter().map(|call| call.input_tokens).sum::<u64>(), 18_059_974);
        assert_eq!(calls.iter().map(|call| call.output_tokens).sum::<u64>(), 245_896);
    }

    #[test]
    fn the_hour_becomes_three_months() {
        let calls = calls().expect("the trace reads");
        assert_eq!(calls[0].at.to_string(), "2023-11-16T18:17:03.979960Z");
        assert_eq!(calls[8_818].at.to_string(), "2024-02-10T15:51:11.780920Z");
    }
}

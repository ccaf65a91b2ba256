//! Progress of a benchmark, on standard error: the figures alone go to standard output.

use std::io::Write;

pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

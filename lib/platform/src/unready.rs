//! Unready: why a process may not take requests now, in a word for everybody and in detail for the log.

use std::fmt;

/// A failed readiness check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unready {
    /// Stable, such as `unreachable`; alarms may match it.
    pub word: &'static str,
    /// A sentence of our own for operators, without names and addresses of what is behind us.
    pub detail: String,
    /// What others have said, such as the text of a database's error: for the log alone.
    pub cause: String,
}

impl Unready {
    pub fn new(word: &'static str, detail: impl Into<String>) -> Unready {
        Unready { word, detail: detail.into(), cause: String::new() }
    }

    pub fn because(word: &'static str, cause: impl fmt::Display) -> Unready {
        Unready { word, detail: String::new(), cause: cause.to_string() }
    }
}

/// A sentence of others may name what is behind us.
impl From<String> for Unready {
    fn from(sentence: String) -> Unready {
        Unready::because("failing", sentence)
    }
}

/// As everybody may see it.
impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.as_str() {
            "" => f.write_str(self.word),
            detail => write!(f, "{}: {detail}", self.word),
        }
    }
}

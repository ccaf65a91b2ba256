//! Names of keys, and the origins of logs, which are such names.

use std::fmt;
use std::str::FromStr;

/// As long as the formats for signatures of other kinds can hold.
const NAME_BYTES_MAX: usize = 255;

/// Leaves room for the log id and the partition.
const BASE_BYTES_MAX: usize = 200;

/// The name of a key in a signed note; a log's key is named by the log's origin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key name has 1 to {NAME_BYTES_MAX} bytes, no space, no + and no control character")]
pub struct BadName;

impl KeyName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = BadName;

    fn from_str(name: &str) -> Result<KeyName, BadName> {
        let is_ok = |c: char| c >= ' ' && c != '+' && !c.is_whitespace();
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_ok);
        if is_name { Ok(KeyName(name.to_owned())) } else { Err(BadName) }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the origins of all partitions' logs begin with: a URL without its scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginBase(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin is a URL without scheme, such as ledger.example/v1/audit/log, of at most {BASE_BYTES_MAX} bytes, \
     without space, without + and without a slash at its end"
)]
pub struct BadOrigin;

impl OriginBase {
    /// Returns the origin of one partition's log.
    pub fn origin(&self, log_id: &str, partition: i32) -> Result<KeyName, BadName> {
        format!("{}/{log_id}/{partition}", self.0).parse()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OriginBase {
    type Err = BadOrigin;

    fn from_str(base: &str) -> Result<OriginBase, BadOrigin> {
        let is_base = base.len() <= BASE_BYTES_MAX
            && base.parse::<KeyName>().is_ok()
            && !base.contains("://")
            && !base.starts_with('/')
            && !base.ends_with('/');
        if is_base { Ok(OriginBase(base.to_owned())) } else { Err(BadOrigin) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_name_has_no_space_and_no_plus() {
        for name in ["PeterNeumann", "sum.golang.org", "example.com/log42", "oid/1.2.3", "ü"] {
            assert_eq!(name.parse::<KeyName>().unwrap().as_str(), name);
        }
        let long = "a".repeat(256);
        for name in ["", "a b", "a+b", "a\tb", "a\nb", "a\u{a0}b", "a\u{2003}b", "a\u{1}", &long] {
            assert_eq!(name.parse::<KeyName>(), Err(BadName), "{name:?}");
        }
    }

    #[test]
    fn an_origin_is_the_base_the_log_and_the_partition() {
        let base: OriginBase = "ledger.local/v1/audit/log".parse().unwrap();
        let origin = base.origin("6ba7b810-9dad-11d1-80b4-00c04fd430c8", 3).unwrap();
        assert_eq!(origin.as_str(), "ledger.local/v1/audit/log/6ba7b810-9dad-11d1-80b4-00c04fd430c8/3");
        for base in ["", "https://ledger.local", "ledger.local/", "/ledger", "a b", "a+b", &"a".repeat(201)] {
            assert_eq!(base.parse::<OriginBase>(), Err(BadOrigin), "{base}");
        }
    }
}

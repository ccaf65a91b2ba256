//! Findings: what is not as it should be, each with its place.

use std::collections::BTreeMap;
use std::fmt;

use platform::kafka::Position;
use serde::Serialize;
use transparency_log::comparison;

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Finding {
    Row(Row),
    Record(Record),
    Note(Note),
}

/// A column of a row that differs from what the journal says, or a row that is missing or too many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    pub kind: &'static str,
    /// With its generation, such as `read_model_1.period`.
    pub table: String,
    pub key: BTreeMap<String, Option<String>>,
    pub column: Option<String>,
    /// By the journal.
    pub expected: Option<String>,
    /// In Postgres.
    pub found: Option<String>,
    /// The record that the row is of, for rows of one record.
    pub position: Option<Position>,
}

/// A record that is not as it was when the log was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    pub kind: &'static str,
    pub partition: i32,
    /// As the log kept it; null where no entry is kept to tell.
    pub offset: Option<u64>,
    pub leaf: Option<u64>,
    /// Without kept entries: the sizes of the last checkpoint that fits and of the first that doesn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub between: Option<[u64; 2]>,
}

/// A checkpoint that is not to be trusted, or that the journal contradicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    pub kind: &'static str,
    /// Where the checkpoint is kept.
    pub file: String,
    pub origin: Option<String>,
    pub size: Option<u64>,
}

impl Record {
    /// Names a record that a comparison has found.
    pub fn of(partition: i32, found: comparison::Finding) -> Record {
        let kind = match found.kind {
            comparison::Kind::Altered => "record_altered",
            comparison::Kind::Missing => "record_missing",
            comparison::Kind::Added => "record_added",
            comparison::Kind::Reordered => "record_reordered",
        };
        Record { kind, partition, offset: Some(found.offset), leaf: Some(found.leaf), between: None }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Row(row) => row.fmt(f),
            Finding::Record(record) => record.fmt(f),
            Finding::Note(note) => note.fmt(f),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.iter().map(|(column, value)| format!("{column}={}", shown(value.as_deref())));
        let key = key.collect::<Vec<_>>().join(" ");
        let place = self.position.map_or_else(String::new, |position| format!(" (record {position})"));
        write!(f, "{} {key}{place}: ", self.table)?;
        match (self.kind, &self.column) {
            (_, Some(column)) => write!(
                f,
                "{column} is {}, by the journal {}",
                shown(self.found.as_deref()),
                shown(self.expected.as_deref())
            ),
            ("row_missing", None) => f.write_str("the row is missing"),
            (_, None) => f.write_str("the journal has no such row"),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { kind, partition, offset, leaf, between } = self;
        let what = match *kind {
            "record_missing" => "is missing in the journal",
            "record_added" => "stands in the journal and not in the log",
            "record_reordered" => "stands elsewhere in the journal",
            "topic_made_anew" => "begins another journal than this database belongs to",
            _ => "is not what the log has of it",
        };
        match (offset, leaf, between) {
            (Some(offset), Some(leaf), _) => write!(f, "record {partition}:{offset} (leaf {leaf}) {what}"),
            (_, _, Some([fits, differs])) => {
                write!(
                    f,
                    "a record of partition {partition} between the tree sizes {fits} and {differs} {what}"
                )
            }
            _ => write!(f, "a record of partition {partition} {what}"),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Note { kind, file, origin, size } = self;
        let what = match *kind {
            "checkpoint_of_another_log" => "is of another log",
            "checkpoint_fork" => {
                "is signed, and neither the journal nor the kept log has this root: two histories"
            }
            "log_shrunk" => "is signed, and the journal has fewer records",
            _ => "is not signed by a trusted key",
        };
        write!(f, "the checkpoint in {file}")?;
        if let (Some(origin), Some(size)) = (origin, size) {
            write!(f, ", {origin} of size {size},")?;
        }
        write!(f, " {what}")
    }
}

fn shown(value: Option<&str>) -> &str {
    value.unwrap_or("null")
}

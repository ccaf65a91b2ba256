//! Dead letters of the ingress: whole where they fit, cut where they don't, at worst the position alone.

use platform::kafka::{DeadLetter, Taken};
use platform::position::Position;

use crate::admission::Refusal;

/// Bytes of a letter that its topic takes, with room for what Kafka adds; the producer sends 1,000,000 at most.
const LETTER_BYTES_MAX: usize = 990_000;
/// Bytes that are kept of a value, of a key and of all headers, if a record does not fit whole.
const VALUE_BYTES_KEPT: usize = 512 * 1024;
const KEY_BYTES_KEPT: usize = 16 * 1024;
const HEADERS_BYTES_KEPT: usize = 64 * 1024;
/// Bytes of the reason.
const DETAIL_BYTES_MAX: usize = 4 * 1024;
/// What Kafka adds to a header at most.
const HEADER_OVERHEAD: usize = 20;

/// Header of a letter that is cut: `true`, or `position` if nothing of the record is left.
const CUT: &str = "cut";
/// What the names of the record's own headers begin with.
const OWN: &str = "source-header-";

/// A letter, and the reason by which it is counted.
pub struct Letter {
    pub code: &'static str,
    pub content: DeadLetter,
    /// Headers that say why and where from.
    says: usize,
}

impl Letter {
    /// Makes the letter of what was refused; `topic` is where it came from.
    pub fn new(topic: &str, taken: Taken, refusal: &Refusal) -> Letter {
        let mut headers = says(topic, &taken, refusal);
        let says = headers.len();
        let (key, value) = match taken {
            Taken::Record(record) => {
                headers
                    .extend(record.headers.into_iter().map(|(name, value)| (format!("{OWN}{name}"), value)));
                (record.key, record.value)
            }
            Taken::Unreadable(_) => (None, None),
        };
        let mut letter = Letter { code: refusal.code, content: DeadLetter { key, value, headers }, says };
        if letter.bytes() > LETTER_BYTES_MAX {
            letter.cut();
        }
        letter
    }

    fn bytes(&self) -> usize {
        let DeadLetter { key, value, headers } = &self.content;
        let lengths = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = headers.iter().map(header_bytes).sum();
        lengths(key) + lengths(value) + headers
    }

    fn is_cut(&self, how: &str) -> bool {
        self.content.headers.iter().any(|(name, value)| name == CUT && value == how.as_bytes())
    }

    fn cut(&mut self) {
        let DeadLetter { key, value, headers } = &mut self.content;
        if let Some(key) = key {
            key.truncate(KEY_BYTES_KEPT);
        }
        if let Some(value) = value {
            value.truncate(VALUE_BYTES_KEPT);
        }
        let mut kept = 0;
        let own = headers.split_off(self.says);
        headers.push((CUT.to_owned(), b"true".to_vec()));
        headers.extend(own.into_iter().take_while(|header| {
            kept += header_bytes(header);
            kept <= HEADERS_BYTES_KEPT
        }));
    }

    fn keep_the_position_alone(&mut self) {
        self.content.key = None;
        self.content.value = None;
        self.content.headers.truncate(self.says);
        self.content.headers.push((CUT.to_owned(), b"position".to_vec()));
    }

    /// Makes a letter smaller that its topic does not take; false if nothing is left to cut.
    pub fn shorten(&mut self) -> bool {
        if self.is_cut("position") {
            return false;
        }
        if self.is_cut("true") {
            self.keep_the_position_alone()
        } else {
            self.cut()
        }
        true
    }
}

fn header_bytes((name, value): &(String, Vec<u8>)) -> usize {
    name.len() + value.len() + HEADER_OVERHEAD
}

fn says(topic: &str, taken: &Taken, refusal: &Refusal) -> Vec<(String, Vec<u8>)> {
    let Position { partition, offset } = taken.first();
    let detail = &refusal.detail[..refusal.detail.floor_char_boundary(DETAIL_BYTES_MAX)];
    let mut says = vec![
        ("code", refusal.code.to_owned()),
        ("detail", detail.to_owned()),
        ("source-topic", topic.to_owned()),
        ("source-partition", partition.to_string()),
        ("source-offset", offset.to_string()),
    ];
    if let Taken::Unreadable(it) = taken {
        says.push(("source-last-offset", it.last.to_string()));
    }
    says.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use ledger_core::value::time::Time;
    use platform::kafka::{IngressRecord, Unreadable};

    use super::*;

    fn letter(key: usize, value: usize, headers: &[(&str, usize)]) -> Letter {
        let headers = headers.iter().map(|(name, bytes)| ((*name).to_owned(), vec![b'h'; *bytes]));
        let record = IngressRecord {
            position: Position { partition: 3, offset: 1041 },
            key: Some(vec![b'k'; key]),
            value: Some(vec![b'v'; value]),
            headers: headers.collect(),
            appended_at: Time::MIN,
        };
        Letter::new("ledger.usage", Taken::Record(record), &Refusal::new("invalid", "no"))
    }

    fn said(letter: &Letter) -> String {
        let text = |(name, value): &(String, Vec<u8>)| match value.len() {
            0..40 => format!("{name}={}", String::from_utf8_lossy(value)),
            bytes => format!("{name}: {bytes}"),
        };
        let DeadLetter { key, value, headers } = &letter.content;
        let lengths = [key, value].map(|bytes| bytes.as_ref().map(Vec::len));
        format!("{lengths:?} {}", headers[2..].iter().map(text).collect::<Vec<_>>().join(" "))
    }

    const FROM: &str = "source-topic=ledger.usage source-partition=3 source-offset=1041";

    #[test]
    fn a_letter_is_whole_and_says_why_and_where_from() {
        let letter = letter(4, 9, &[("ce_id", 2)]);
        assert_eq!(letter.content.headers[0], ("code".to_owned(), b"invalid".to_vec()));
        assert_eq!(letter.content.headers[1], ("detail".to_owned(), b"no".to_vec()));
        assert_eq!(said(&letter), format!("[Some(4), Some(9)] {FROM} source-header-ce_id=hh"));
    }

    #[test]
    fn whatever_is_too_large_is_cut() {
        let check = |letter: Letter, expected: &str| {
            assert!(letter.bytes() <= LETTER_BYTES_MAX);
            assert_eq!(said(&letter), expected);
        };
        check(letter(999_900, 9, &[]), &format!("[Some(16384), Some(9)] {FROM} cut=true"));
        check(letter(4, 2_000_000, &[]), &format!("[Some(4), Some(524288)] {FROM} cut=true"));
        let headers = [("a", 50), ("b", 2_000_000), ("c", 50)];
        check(letter(4, 9, &headers), &format!("[Some(4), Some(9)] {FROM} cut=true source-header-a: 50"));
    }

    #[test]
    fn a_letter_that_its_topic_does_not_take_is_cut_until_the_position_is_left() {
        let mut letter = letter(20_000, 900_000, &[("a", 5)]);
        assert!(letter.shorten());
        assert_eq!(
            said(&letter),
            format!("[Some(16384), Some(524288)] {FROM} cut=true source-header-a=hhhhh")
        );
        assert!(letter.shorten());
        assert_eq!(said(&letter), format!("[None, None] {FROM} cut=position"));
        assert!(!letter.shorten());
    }

    #[test]
    fn what_can_not_be_read_is_its_position() {
        let reason = "Bad compression".to_owned();
        let taken = Taken::Unreadable(Unreadable { partition: 3, first: 1041, last: 1060, reason });
        let letter = Letter::new("ledger.usage", taken, &Refusal::new("unreadable", "é".repeat(5_000)));
        assert_eq!(said(&letter), format!("[None, None] {FROM} source-last-offset=1060"));
        assert_eq!(letter.content.headers[1].1.len(), DETAIL_BYTES_MAX);
    }
}

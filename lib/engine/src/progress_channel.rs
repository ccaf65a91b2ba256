//! The channel on which a batch publishes its progress, and the payload's format.

use platform::pg::Schema;
use platform::position::Position;

/// Channel on which the projector publishes its next offsets.
pub const PROJECTED_CHANNEL: &str = "ledger_projected";
/// Postgres accepts payloads below 8,000 bytes; waiters find a batch with more partitions by polling.
const PAYLOAD_BYTES_MAX: usize = 7_900;

/// Returns the payload of one batch: the schema it wrote and each partition's next offset; `None` if that is too long.
///
/// Text: `read_model_1 3:1042,4:17`.
pub fn payload(schema: Schema, next_offsets: &[Position]) -> Option<String> {
    let offsets: Vec<String> = next_offsets.iter().map(Position::to_string).collect();
    let text = format!("{schema} {}", offsets.join(","));
    (text.len() <= PAYLOAD_BYTES_MAX).then_some(text)
}

/// Reads a payload; `None` if the text is not one.
pub fn read_payload(text: &str) -> Option<(Schema, Vec<Position>)> {
    let (schema, offsets) = text.split_once(' ')?;
    let next_offsets: Result<_, _> = offsets.split(',').map(str::parse).collect();
    Some((schema.parse().ok()?, next_offsets.ok()?))
}

#[cfg(test)]
mod tests {
    use platform::pg::Model;

    use super::*;

    const LIVE: Schema = Schema { model: Model::ReadModel, generation: 1 };

    fn at(text: &str) -> Position {
        text.parse().expect("a position")
    }

    #[test]
    fn a_payload_reads_back_as_written() {
        let offsets = [at("3:1042"), at("4:17")];
        let text = payload(LIVE, &offsets).expect("short");
        assert_eq!(text, "read_model_1 3:1042,4:17");
        assert_eq!(read_payload(&text), Some((LIVE, offsets.to_vec())));
    }

    #[test]
    fn a_payload_that_postgres_would_refuse_is_not_made_and_nonsense_is_not_read() {
        let many: Vec<_> = (0..1_000).map(|partition| Position { partition, offset: i64::MAX }).collect();
        assert_eq!(payload(LIVE, &many), None);
        for text in ["", "read_model_1", "read_model_1 ", "nobody_1 1:2", "read_model_1 1:2,"] {
            assert_eq!(read_payload(text), None, "{text}");
        }
    }
}

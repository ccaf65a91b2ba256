//! Decimals as the formats write them: ASCII digits, no sign, no leading zero.

/// The greatest tree size or index: readers in other languages keep them in signed 64 bits.
const GREATEST: u64 = i64::MAX as u64;

/// Reads a size or an index; `None` for any other spelling, or beyond what readers can keep.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let is_canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|number| is_canonical && *number <= GREATEST)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_number_has_one_spelling() {
        assert_eq!(parse("0"), Some(0));
        assert_eq!(parse("20852163"), Some(20_852_163));
        assert_eq!(parse("9223372036854775807"), Some(i64::MAX.unsigned_abs()));
        for other in
            ["", "+1", "-1", "01", "00", "1 ", "1_0", "٣", "9223372036854775808", "18446744073709551616"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}

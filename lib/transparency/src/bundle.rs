//! Entry bundle: up to 256 entries one after another, each behind its length in two bytes, big-endian.

/// How many bytes each length takes.
const LENGTH_BYTES: usize = 2;

/// The bytes are no bundle: one of its entries is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry bundle ends within an entry")]
pub struct CutShort;

/// Appends an entry to a bundle. The log's own entries are far shorter than two bytes can count.
///
/// # Panics
///
/// If the entry is longer than 65,535 bytes.
pub fn push(bundle: &mut Vec<u8>, entry: &[u8]) {
    let length = u16::try_from(entry.len()).expect("an entry is at most 65,535 bytes long");
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// Returns the entries of a bundle.
pub fn entries(bundle: &[u8]) -> Result<Vec<&[u8]>, CutShort> {
    let mut rest = bundle;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (entry, behind) = split(rest).ok_or(CutShort)?;
        entries.push(entry);
        rest = behind;
    }
    Ok(entries)
}

/// Returns the part of a bundle that holds its first entries; `None` where it has fewer.
pub fn first(bundle: &[u8], count: usize) -> Option<&[u8]> {
    let mut rest = bundle;
    for _ in 0..count {
        rest = split(rest)?.1;
    }
    Some(&bundle[..bundle.len() - rest.len()])
}

/// Splits the first entry from those behind it.
fn split(bundle: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bundle.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_stands_behind_its_length() {
        let mut bundle = Vec::new();
        let long = vec![7; 300];
        push(&mut bundle, b"ab");
        push(&mut bundle, b"");
        push(&mut bundle, &long);
        assert_eq!(bundle[..8], [0, 2, b'a', b'b', 0, 0, 1, 44]);
        assert_eq!(entries(&bundle), Ok(vec![&b"ab"[..], b"", &long]));
        assert_eq!(first(&bundle, 2), Some(&bundle[..6]));
        assert_eq!(first(&bundle, 3), Some(&bundle[..]));
        assert_eq!(first(&bundle, 4), None);
        for cut in [1, 3, 5, 7, bundle.len() - 1] {
            assert_eq!(entries(&bundle[..cut]), Err(CutShort), "{cut}");
        }
        assert_eq!(entries(b""), Ok(vec![]));
    }
}

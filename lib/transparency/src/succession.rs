//! Succession: what a log may sign after what it has signed. A log with two histories is worth nothing.

use crate::hash::Hash;
use crate::tree::{Head, MissingTile, Tiles, Tree};

/// Why a log must not sign any more until somebody has looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the log has signed size {signed}, and now has only {size}")]
    Shrunk { signed: u64, size: u64 },
    #[error("the log has signed root {signed} for size {size}, and now has {found} there")]
    Fork { size: u64, signed: Hash, found: Hash },
    #[error(transparent)]
    MissingTile(#[from] MissingTile),
}

/// Returns the head that a log of a size may sign next; `None` where there is nothing new.
///
/// `signed` is the greatest head that it has ever signed, wherever that is known from.
pub fn next(signed: Option<Head>, size: u64, tiles: &impl Tiles) -> Result<Option<Head>, Refused> {
    if let Some(signed) = signed {
        if size < signed.size {
            return Err(Refused::Shrunk { signed: signed.size, size });
        }
        let found = Tree::resume(signed.size, tiles)?.root();
        if found != signed.root {
            return Err(Refused::Fork { size: signed.size, signed: signed.root, found });
        }
    }
    let is_new = signed.is_none_or(|signed| size > signed.size);
    // For one size there is one text for ever, and none for a log without entries.
    let head = if is_new && size > 0 { Some(Tree::resume(size, tiles)?.head()) } else { None };
    Ok(head)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tile::{Kind, Tile};

    fn tiles(leaves: u8) -> BTreeMap<(u8, u64), Vec<u8>> {
        let leaves: Vec<u8> = (0..leaves).flat_map(|leaf| Hash::of_leaf(&[leaf]).0).collect();
        BTreeMap::from([((0, 0), leaves)])
    }

    fn head(size: u64) -> Head {
        Tree::resume(size, &tiles(9)).unwrap().head()
    }

    #[test]
    fn a_log_signs_what_continues_what_it_signed() {
        assert_eq!(next(None, 5, &tiles(5)), Ok(Some(head(5))));
        assert_eq!(next(Some(head(5)), 9, &tiles(9)), Ok(Some(head(9))));
    }

    #[test]
    fn a_log_signs_nothing_twice_and_nothing_empty() {
        assert_eq!(next(None, 0, &tiles(0)), Ok(None));
        assert_eq!(next(Some(head(5)), 5, &tiles(5)), Ok(None));
    }

    #[test]
    fn a_log_that_has_another_history_signs_no_more() {
        assert_eq!(next(Some(head(5)), 4, &tiles(4)), Err(Refused::Shrunk { signed: 5, size: 4 }));
        let mut other = tiles(9);
        other.get_mut(&(0, 0)).unwrap()[40] ^= 1;
        for size in [5, 9] {
            let refused = next(Some(head(5)), size, &other);
            assert!(matches!(refused, Err(Refused::Fork { size: 5, signed, .. }) if signed == head(5).root));
        }
        // What was changed behind the signed size is no fork.
        let mut later = tiles(9);
        later.get_mut(&(0, 0)).unwrap()[32 * 7] ^= 1;
        assert!(matches!(next(Some(head(5)), 9, &later), Ok(Some(found)) if found.root != head(9).root));
    }

    #[test]
    fn a_log_that_lost_a_tile_signs_no_more() {
        let missing = Tile { kind: Kind::Hashes { level: 0 }, index: 0, width: 5 };
        assert_eq!(next(Some(head(5)), 9, &tiles(4)), Err(Refused::MissingTile(MissingTile(missing))));
    }
}

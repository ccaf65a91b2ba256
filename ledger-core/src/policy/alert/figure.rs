//! The figure that an org alert watches.

use std::cmp::Ordering;

use crate::account::Core;
use crate::event::Basis;
use crate::value::credits::Credits;

/// Returns a basis's figure if it has reached a threshold, in the threshold's unit.
///
/// Percents are compared exactly and rounded only for display; they need a maximum above 0.
pub fn org_figure(core: &Core, basis: Basis, threshold: Credits) -> Option<Credits> {
    let (used, settled, maximum) = (core.figures.used, core.settled(), core.figures.maximum());
    let percent = |part: Credits, reached: fn(Ordering) -> bool| {
        let is_reached = part.cmp_percent(threshold, maximum).is_some_and(reached);
        is_reached.then(|| part.percent_of(maximum).unwrap_or(Credits::MAX_SUM).min(Credits::MAX_SUM))
    };
    match basis {
        Basis::PercentUsed => percent(used, Ordering::is_ge),
        Basis::AbsoluteUsed => (used >= threshold).then_some(used),
        Basis::PercentRemaining => percent(settled.max(Credits::ZERO), Ordering::is_le),
        Basis::AbsoluteRemaining => (settled <= threshold).then_some(settled),
    }
}

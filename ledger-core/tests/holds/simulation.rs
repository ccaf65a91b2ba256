//! Any interleaving: every grant is right at the position it was decided at, every usage is charged once, and nothing
//! stays held. The simulation notices each mistake that the design prevents.

use crate::world::{Mistake, Violation, Ways, World};

/// Worlds that are tried; a failure names its seed.
const SEEDS: u64 = 1_000;
/// Steps in each world.
const STEPS: usize = 250;

fn run(seed: u64, ways: Ways) -> Result<(usize, usize), Violation> {
    let mut world = World::new(seed, ways);
    for _ in 0..STEPS {
        world.step()?;
    }
    world.end()
}

fn holds(strict: bool) {
    let ways = Ways { strict, mistake: Mistake::None };
    let (mut granted, mut refused) = (0, 0);
    for seed in 0..SEEDS {
        let sums = run(seed, ways).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        granted += sums.0;
        refused += sums.1;
    }
    let worlds = usize::try_from(SEEDS).expect("few");
    assert!(
        granted > worlds && refused > worlds,
        "{granted} granted, {refused} refused: too little was tried"
    );
}

#[test]
fn every_decision_is_right_at_its_position_and_every_usage_is_charged_once() {
    holds(false);
}

#[test]
fn where_nothing_but_holds_takes_credits_no_cap_is_ever_passed() {
    holds(true);
}

/// Worlds until a mistake shows; most show in the first ten, the rarest here after some hundred.
const SEEDS_UNTIL_NOTICED: u64 = 4_000;

fn is_noticed(mistake: Mistake, strict: bool) -> bool {
    (0..SEEDS_UNTIL_NOTICED).any(|seed| run(seed, Ways { strict, mistake }).is_err())
}

#[test]
fn the_simulation_notices_what_the_design_is_made_against() {
    for (mistake, strict) in [
        (Mistake::NoGate, true),
        (Mistake::NoGate, false),
        (Mistake::TwoStatements, false),
        (Mistake::CountsWhatItHeld, false),
        (Mistake::FreedByGuess, true),
        (Mistake::NoOutbox, true),
        (Mistake::AcknowledgesAnother, false),
        (Mistake::NotSwept, false),
        // Shows in the journal alone, where a hold was decided just after a boundary.
        (Mistake::RecordedEarlier, true),
    ] {
        assert!(is_noticed(mistake, strict), "{mistake:?} was not noticed");
    }
}

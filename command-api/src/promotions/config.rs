//! Settings of promotions.

use ledger_core::value::credits::Credits;

const INVITATIONS_PER_DAY: u32 = 100;

/// What new accounts and their referrers get, and how many they may invite.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct PromotionsConfig {
    /// Credits that every new account gets besides its allowance, in its own unit; 0 = none
    #[arg(long, env = "LEDGER_WELCOME_BONUS", default_value_t = Credits::ZERO, value_parser = bonus)]
    pub welcome_bonus: Credits,
    /// Credits that both sides get when an account opens that another has referred; 0 = none
    #[arg(long, env = "LEDGER_REFERRAL_BONUS", default_value_t = Credits::ZERO, value_parser = bonus)]
    pub referral_bonus: Credits,
    /// Invitations that one account may send in 24 hours; 0 means no limit
    #[arg(long, env = "LEDGER_INVITATIONS_PER_DAY", default_value_t = INVITATIONS_PER_DAY)]
    pub invitations_per_day: u32,
}

impl Default for PromotionsConfig {
    fn default() -> Self {
        Self {
            welcome_bonus: Credits::ZERO,
            referral_bonus: Credits::ZERO,
            invitations_per_day: INVITATIONS_PER_DAY,
        }
    }
}

fn bonus(text: &str) -> Result<Credits, String> {
    match text.parse::<Credits>() {
        Ok(amount) if !amount.is_negative() => Ok(amount),
        _ => Err("must be an amount of 0 or above".to_owned()),
    }
}

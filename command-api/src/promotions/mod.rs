//! Promotions: welcome bonus, promo codes and referrals; each is granted once, whatever the number of retries.

pub mod bonus;
pub mod config;
pub mod promo_codes;
pub mod redemptions;
pub mod referrals;

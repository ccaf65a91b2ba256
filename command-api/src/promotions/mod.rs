//! Promotions: the grants that win users: welcome bonus, promo codes, referrals. Each is made once, whatever is retried.

pub mod bonus;
pub mod config;
pub mod promo_codes;
pub mod redemptions;
pub mod referrals;

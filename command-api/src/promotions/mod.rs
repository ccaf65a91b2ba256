//! Promotions: welcome bonus, promo codes and referrals, each granted once however often a request is retried.

pub mod bonus;
pub mod config;
pub mod promo_codes;
pub mod redemptions;
pub mod referrals;

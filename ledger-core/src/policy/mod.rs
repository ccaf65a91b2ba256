//! What services decide and show from an account's state. Nothing here changes a balance.

pub mod alert;
pub mod balance;
pub mod decide;
pub mod due;
pub mod hold;
pub mod rate_card;
pub mod top_up;
pub mod wording;

//! Admitted: usage that is ready to be appended, with the hold that it settles.

use ledger_core::value::id::{AccountId, EventId, Source};
use platform::position::Position;

use crate::app::App;
use crate::holds::request::{Ask, Landed, SettledHold};

#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    pub account: AccountId,
    pub id: EventId,
    pub source: Source,
    pub bytes: Vec<u8>,
    /// What happens to the hold that the usage names.
    pub hold: NamedHold,
    /// Where the first record of this id stands, if the projection has it with equal content: then there is nothing to
    /// append.
    pub first: Option<Position>,
}

/// What happens to the hold that usage names.
#[derive(Debug, Clone, PartialEq)]
pub enum NamedHold {
    None,
    /// The usage settles it.
    Settles(Box<SettledHold>),
    /// The journal has the usage's id already, and there is no such hold.
    Absent,
    /// The journal has the usage's id already, and that usage did not settle this hold.
    Other,
}

impl NamedHold {
    pub fn settled(&self) -> Option<&SettledHold> {
        match self {
            NamedHold::Settles(settled) => Some(settled),
            NamedHold::None | NamedHold::Absent | NamedHold::Other => None,
        }
    }
}

impl Admitted {
    /// Records the journal position of the usage in the hold, if it settles one.
    pub async fn landed(&self, app: &App, position: Position) {
        let Some(settled) = self.hold.settled() else { return };
        let landed = Landed {
            reservation: settled.reservation_id.clone(),
            event_id: self.id.clone(),
            source: settled.source.clone(),
            position,
        };
        app.holds.notify(&self.account, Ask::Landed(landed)).await;
    }
}

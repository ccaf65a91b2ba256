//! Admitted: usage that is ready to be appended, with the hold that it settles.

use ledger_core::value::id::{AccountId, EventId};
use platform::position::Position;

use crate::app::App;
use crate::holds::request::{Ask, Landed, SettledHold};

/// Usage ready to be appended.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    pub account: AccountId,
    pub id: EventId,
    pub bytes: Vec<u8>,
    /// What becomes of the hold that it names.
    pub hold: NamedHold,
}

/// What becomes of the hold that usage names.
#[derive(Debug, Clone, PartialEq)]
pub enum NamedHold {
    None,
    /// It settles it.
    Settles(Box<SettledHold>),
    /// Nothing: the journal has the usage's id already, and there is no such hold.
    Absent,
    /// Nothing: the journal has the usage's id already, and it did not settle this hold.
    Other,
}

impl NamedHold {
    /// Returns the hold, where it is settled.
    pub fn settled(&self) -> Option<&SettledHold> {
        match self {
            NamedHold::Settles(settled) => Some(settled),
            NamedHold::None | NamedHold::Absent | NamedHold::Other => None,
        }
    }
}

impl Admitted {
    /// Notes where the journal has it, if it settles a hold.
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

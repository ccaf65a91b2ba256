//! Rows: the table rows that a batch of requests writes, collected request by request.

use ledger_core::event::Event;
use ledger_core::policy::decide::Decision;
use ledger_core::policy::hold::{Gate, Hold};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, Label, ReservationId, UserId};
use ledger_core::value::time::Time;
use platform::pg::Rows;
use platform::position::Position;

use super::request::Landed;

#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    pub account: &'a AccountId,
    pub kind: &'static str,
    pub reservation: Option<&'a ReservationId>,
    pub user: Option<&'a UserId>,
    pub feature: Option<&'a Label>,
    pub decision: &'a Decision,
    pub now: Time,
    pub position: Position,
    pub actor: &'a Label,
}

#[derive(Debug, Default)]
pub struct Writes {
    pub holds: Rows,
    /// The growth of the open holds per account.
    pub gates: Rows,
    pub users: Rows,
    pub decisions: Rows,
    pub outbox: Rows,
    /// Holds whose usage is in the journal.
    pub landed: Rows,
    /// Accounts with expired holds, and the instant.
    pub due: Rows,
    /// Accounts with settling holds whose usage is projected.
    pub ended: Rows,
    /// Accounts whose settling holds may have been refused.
    pub undone: Rows,
}

impl Writes {
    pub fn gate(&mut self, account: &AccountId, gate: &Gate<'_>) {
        let changes = gate.changes();
        for hold in changes.holds.iter().filter_map(|id| gate.hold(id)) {
            self.hold(account, hold);
        }
        if !changes.held.is_zero() {
            self.gates.row().text(account.as_str()).amount(changes.held);
        }
        for ((user, feature), growth) in &changes.users {
            self.user(account, user, feature.as_ref(), *growth);
        }
    }

    fn user(&mut self, account: &AccountId, user: &UserId, feature: Option<&Label>, growth: Credits) {
        let feature = feature.map_or("", AsRef::as_ref);
        self.users.row().text(account.as_str()).text(user.as_str()).text(feature).amount(growth);
    }

    fn hold(&mut self, account: &AccountId, hold: &Hold) {
        let settlement = hold.settlement.as_ref();
        self.holds
            .row()
            .text(account.as_str())
            .text(hold.reservation_id.as_str())
            .bytes(&hold.content.0)
            .maybe_text(hold.user_id.as_ref().map(UserId::as_str))
            .maybe_text(hold.feature.as_ref().map(AsRef::as_ref))
            .amount(hold.amount)
            .amount(hold.counts)
            .text(hold.state.as_str())
            .time(hold.expires_at)
            .time(hold.decided_at)
            .maybe_text(settlement.map(|settlement| settlement.event_id.as_str()))
            .maybe_text(settlement.map(|settlement| settlement.source.as_str()))
            .maybe_bytes(settlement.map(|settlement| settlement.content.0.as_slice()));
    }

    pub fn decision(&mut self, decided: Decided<'_>) {
        let decision = decided.decision;
        let row = self.decisions.row();
        row.text(decided.account.as_str())
            .time(decided.now)
            .text(decided.kind)
            .maybe_text(decided.reservation.map(ReservationId::as_str))
            .maybe_text(decided.user.map(UserId::as_str))
            .maybe_text(decided.feature.map(AsRef::as_ref))
            .maybe_amount(decision.amount)
            .maybe_text(decision.refusal.map(|refusal| refusal.code()))
            .amount(decision.settled)
            .amount(decision.available)
            .maybe_amount(decision.floor)
            .maybe_amount(decision.limit)
            .amount(decision.used)
            .amount(decision.held);
        row.bigint(decision.period_index)
            .time(decision.resets_at)
            .int(decided.position.partition)
            .bigint(decided.position.offset)
            .text(decided.actor.as_ref());
    }

    /// Puts the record of usage that settles a hold into the outbox.
    pub fn settles(&mut self, reservation: &ReservationId, event: &Event, record: &[u8]) {
        self.outbox
            .row()
            .text(event.account.as_str())
            .text(event.id.as_str())
            .text(event.source.as_str())
            .bytes(record)
            .text(reservation.as_str());
    }

    /// Records the journal position of usage that settles a hold.
    pub fn landed(&mut self, account: &AccountId, landed: &Landed) {
        self.landed
            .row()
            .text(account.as_str())
            .text(landed.reservation.as_str())
            .text(landed.event_id.as_str())
            .text(landed.source.as_str())
            .int(landed.position.partition)
            .bigint(landed.position.offset);
    }
}

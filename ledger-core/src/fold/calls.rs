//! Calls: what the provider calls a call is charged once per account, whatever reports it.

use super::step::Step;
use crate::event::Data;
use crate::fold::pages::Missing;
use crate::value::id::{CallId, EventId, Source};

impl Step<'_> {
    /// Returns the applied usage of the call that this usage charges, if there is one.
    pub(super) fn first_of_call(&self) -> Result<Option<(Source, EventId)>, Missing> {
        let Data::UsageRecorded(usage) = &self.fact.event.data else { return Ok(None) };
        let Some(call) = &usage.call_id else { return Ok(None) };
        let first = self.pages.calls.get(call).ok_or_else(|| Missing::Call(call.clone()))?;
        Ok(first.clone())
    }

    /// Makes this usage the one that charges its call.
    pub(super) fn charge_call(&mut self, call: &CallId) {
        let event = &self.fact.event;
        self.pages.calls.insert(call.clone(), Some((event.source.clone(), event.id.clone())));
    }
}

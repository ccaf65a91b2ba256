-- The read side writes nothing. It reads no outbox, no address and no secret of a webhook; of keys it needs the hashes.
grant usage  on schema control, delivery to ledger_query_api;
grant select on control.migration, control.generation, control.log_identity, control.api_key, control.rate_card,
                control.gate, control.hold, control.user_hold, control.decision, control.referrer,
                control.payment_customer, control.log_origin, control.log_key, control.log_checkpoint
    to ledger_query_api;
grant select (account_id, notification_id, firing_id, kind, channel, recipient, subject, text, status, attempts,
              next_attempt_at, created_at, sent_at, last_error)
    on delivery.notification to ledger_query_api;

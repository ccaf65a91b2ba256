-- Reading services may not read outbox records, addresses or columns that only writers need; of holds, they may read
-- what they show.
grant usage  on schema control to ledger_reader;
grant select on control.generation, control.log_identity, control.api_key, control.rate_card, control.gate,
                control.hold, control.user_hold, control.decision, control.referrer,
                control.payment_customer
    to ledger_reader;
grant usage  on schema delivery to ledger_reader;
grant select (account_id, notification_id, firing_id, kind, channel, recipient, subject, text, status, attempts,
              next_attempt_at, created_at, sent_at, last_error)
    on delivery.notification to ledger_reader;

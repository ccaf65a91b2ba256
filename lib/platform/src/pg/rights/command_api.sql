-- The write side: what a request and its upkeep change. Of deliveries it adds some, makes one due again, and takes out a
-- person who is to be erased; it reads no text of them. Of top-ups it ends those that a person decides about.
grant usage  on schema control, delivery to ledger_command_api;
grant select on control.migration, control.generation to ledger_command_api;
grant select, insert
    on control.log_identity, control.rate_card, control.redemption, control.sandbox_charge
    to ledger_command_api;
grant select (account_id, attempt_id, amount, payment_method, payment_id, state, live, ledger_time, started_at, reply),
      update (state, reply)
    on control.top_up to ledger_command_api;
grant select, insert, update
    on control.api_key, control.contacts, control.promo_code, control.referrer, control.payment, control.checkout
    to ledger_command_api;
grant select, insert, update, delete
    on control.idempotency, control.gate, control.hold, control.user_hold, control.decision, control.outbox,
       control.invitation, control.payment_customer, control.payment_effect
    to ledger_command_api;
grant insert on delivery.notification to ledger_command_api;
grant select (account_id, notification_id, kind, channel, recipient, address, status, leased_until),
      update (address, subject, text, html, status, last_error, attempts, next_attempt_at, sent_at, lease, leased_until)
    on delivery.notification to ledger_command_api;

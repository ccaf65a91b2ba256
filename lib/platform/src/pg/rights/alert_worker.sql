-- The alert worker delivers, and tops up. It signs webhooks, so it reads their secrets; it reads no API key.
grant usage  on schema control, delivery to ledger_alert_worker;
grant select on control.migration, control.generation, control.contacts, control.payment_customer
    to ledger_alert_worker;
grant select, insert
    on control.log_identity, control.sandbox_charge, control.top_up_refusal
    to ledger_alert_worker;
grant select, insert, update on control.top_up, delivery.told_from to ledger_alert_worker;
grant select, insert, update, delete
    on control.outbox, delivery.outbox, delivery.notification
    to ledger_alert_worker;

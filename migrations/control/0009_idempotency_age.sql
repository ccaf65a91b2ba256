-- By age: a write's answer is repeated for LEDGER_IDEMPOTENCY_DAYS and then forgotten. The fold knows its id for good.
create index idempotency_created on control.idempotency (created_at);

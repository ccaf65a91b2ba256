-- When the account next needs a clock event: a boundary, the start or end of a lot, or another attempt at a top-up.
alter table account rename column next_crossing to next_due_at;
comment on column account.next_due_at is 'next instant at which the account is due for an event; null past the representable time';
comment on column account.core is 'ledger_core::account::Core without its lots';
comment on column account.rate_card is 'the plan''s rate card, for validation of usage';

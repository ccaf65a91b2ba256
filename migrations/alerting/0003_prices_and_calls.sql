-- The money paid for a lot, where that is known: {"amount","currency"}; paid lots only.
alter table lot add column price json;

-- What the provider calls the call that a usage charges; stands where the usage applied, and there once per account.
alter table event add column call_id text collate "C";
create unique index event_call on event (account_id, call_id) where call_id is not null;

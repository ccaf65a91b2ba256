-- A balance as of an instant begins at the last snapshot before it, found by time and not by walking backwards.
create index snapshot_time on snapshot (account_id, ledger_time, "offset");

-- A start that this database never proposed is from before it was restored or lost: the provider may know it.
insert into control.top_up
    (account_id, attempt_id, number, amount, usd, payment_method, live, ledger_time, state, look_up, asks,
     started_at, next_ask_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, 'started', true, 0, $9, clock_timestamp())
on conflict (account_id, attempt_id) do update
set state       = 'started',
    started_at  = excluded.started_at,
    next_ask_at = excluded.next_ask_at
where top_up.state = 'proposed'

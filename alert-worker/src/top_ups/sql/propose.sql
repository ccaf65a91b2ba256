insert into control.top_up
    (account_id, attempt_id, number, amount, usd, payment_method, live, ledger_time, state, look_up, asks)
values ($1, $2, $3, $4, $5, $6, $7, $8, 'proposed', false, 0)
on conflict (account_id, attempt_id) do nothing

-- Leases attempts that are due. The clock is read once, and so the index is used.
-- An attempt keeps the key that it was first asked about with: those from before keys named the journal, their id.
update control.top_up
set leased_until   = clock_timestamp() + $2::bigint * interval '1 millisecond',
    asks           = asks + 1,
    first_asked_at = coalesce(first_asked_at, clock_timestamp()),
    provider_key   = coalesce(provider_key, case when asks = 0 then $3 || attempt_id else attempt_id end)
where ctid = any(array(
    select ctid
    from control.top_up
    where state = 'started'
      and next_ask_at <= (select clock_timestamp())
      and (leased_until is null or leased_until < clock_timestamp())
    order by next_ask_at
    limit $1
    for update skip locked))
returning account_id, attempt_id, provider_key as "key!", amount::text as "amount!", usd::text as usd, payment_method, live,
          ledger_time, look_up as verify_first, coalesce(started_at, first_asked_at) as "since!", asks as attempts

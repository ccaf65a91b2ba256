-- Writes accounts as they are after the batch; the columns of the opening never change. Users' own limits are counted
-- with their rows.
insert into account (account_id, partition, "offset", events, ledger_time, next_due_at, clock, rate_card,
                     opened_at, core, closed_at, name_key, own_limits)
select account_id, partition, "offset", events, ledger_time, next_due_at, clock, rate_card, opened_at,
       core::jsonb, closed_at, name_key, 0
from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::timestamptz[],
            $7::text[], $8::text[], $9::timestamptz[], $10::text[], $11::timestamptz[],
            $12::text[])
     as new (account_id, partition, "offset", events, ledger_time, next_due_at, clock, rate_card,
             opened_at, core, closed_at, name_key)
on conflict (account_id) do update
set "offset"    = excluded."offset",
    events      = excluded.events,
    ledger_time = excluded.ledger_time,
    next_due_at = excluded.next_due_at,
    rate_card   = excluded.rate_card,
    core        = excluded.core,
    closed_at   = excluded.closed_at,
    name_key    = excluded.name_key

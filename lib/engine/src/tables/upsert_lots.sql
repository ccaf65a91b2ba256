-- Writes lots as they are after the batch; what identifies a lot and says where it came from never changes.
insert into lot (account_id, grant_id, source, amount, remaining, lapsed, refunded, priority, effective_at,
                 expires_at, granted_at, voided_at, event_id, payment_id, reason, "offset", seq, price, open)
select account_id, grant_id, source, amount, remaining, lapsed, refunded, priority, effective_at,
       expires_at, granted_at, voided_at, event_id, payment_id, reason, "offset", seq, price::json, remaining > 0
from unnest($1::text[], $2::text[], $3::text[], $4::numeric[], $5::numeric[], $6::numeric[],
            $7::numeric[], $8::int[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[],
            $12::timestamptz[], $13::text[], $14::text[], $15::text[], $16::bigint[], $17::int[],
            $18::text[])
     as new (account_id, grant_id, source, amount, remaining, lapsed, refunded, priority, effective_at,
             expires_at, granted_at, voided_at, event_id, payment_id, reason, "offset", seq, price)
on conflict (account_id, grant_id) do update
set amount    = excluded.amount,
    remaining = excluded.remaining,
    lapsed    = excluded.lapsed,
    refunded  = excluded.refunded,
    voided_at = excluded.voided_at,
    open      = excluded.open

-- Puts firings into the outbox in their order; a replay finds its rows and adds none.
insert into delivery.outbox (account_id, firing_id, firing, audience, about, is_from_before, created_at)
select account_id, firing_id, firing::json, audience::json, about::json, is_from_before, clock_timestamp()
from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::boolean[])
     with ordinality as rows (account_id, firing_id, firing, audience, about, is_from_before, number)
order by number
on conflict (firing_id) do nothing

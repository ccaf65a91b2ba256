-- Adds the batch's sums, not totals: any split of the log leaves the same rows. Counts the rows that are new.
--
-- Returns the periods that have totals, and whether they are without them still: those that have just become so large.
with written as (
    insert into user_usage (account_id, period_index, user_id, feature, used, events)
    select *
    from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::numeric[], $6::bigint[])
    on conflict (account_id, period_index, user_id, feature) do update
    set used   = user_usage.used   + excluded.used,
        events = user_usage.events + excluded.events
    -- Nobody has updated a row that was inserted just now.
    returning account_id, period_index, (xmax = 0)::int as is_new
),
touched as (
    select account_id, period_index, sum(is_new) as added
    from written
    group by account_id, period_index
),
counted as (
    insert into user_usage_count (account_id, period_index, counters)
    select account_id, period_index, added
    from touched
    where added > 0
    on conflict (account_id, period_index) do update
    set counters = user_usage_count.counters + excluded.counters
    returning account_id, period_index, counters
)
-- The table itself is here as it was before this statement.
select account_id, period_index, false as is_filled_now
from touched
join user_usage_count using (account_id, period_index)
where user_usage_count.counters > $7
union all
select account_id, period_index, true
from touched
join counted using (account_id, period_index)
where counters > $7
  and counters - added <= $7

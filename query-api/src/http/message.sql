-- Sums the usage of one message; `$3` is the only user whose rows are visible, null for all users.
select count(*) as records,
       count(*) filter (where $3::text is null or user_id = $3) as visible,
       coalesce(sum(credits) filter (where reversed_at is null), 0)::text as credits,
       count(*) filter (where outcome = 'applied' and reversed_at is null) as events,
       count(*) filter (where reversed_at is not null) as reversed,
       case when count(distinct coalesce(user_id, '')) = 1 then min(user_id) end as user_id,
       min(occurred_at) as occurred_at,
       coalesce(sum(line_end - line_start) filter (where reversed_at is null), 0)::text as overdraft,
       trim_scale(sum(hold.held) filter (where reversed_at is null))::text as held,
       trim_scale(sum(greatest(credits, hold.held) - hold.held) filter (where reversed_at is null))::text as over_hold
from event
cross join lateral (
    select case when outcome = 'applied' then (data->>'held')::numeric end as held
) as hold
where account_id = $1
  and message_id = $2

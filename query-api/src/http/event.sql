-- Reads an event with its changes of lots: usage has its draws in its own row, any other event has them in its entries.
select e."offset", e.event_id, e.source, e.type, e.outcome, e.reason, e.duplicate_of, e.duplicate_of_source,
       e.data->>'call_id' as call_id, e.credits::text, e.user_id, e.message_id,
       e.data->>'reservation_id' as reservation_id, e.data->>'held' as held, e.occurred_at,
       e.ledger_time as recorded_at, e.actor, e.reversed_at,
       coalesce(e.data->>'lines', '[]') as lines,
       coalesce(e.lots, entries.lots, '[]')::text as lots,
       coalesce(e.line_end - e.line_start, 0)::text as overdraft
from event as e
left join lateral (
    select json_agg(change order by en.seq) as lots
    from entry as en
    cross join lateral json_array_elements(en.lots) as change
    where en.account_id = e.account_id
      and en."offset"   = e."offset"
      and en.event_id   = e.event_id
) as entries on true
where e.account_id = $1
  and e.event_id   = $2
  and e.source     = $3

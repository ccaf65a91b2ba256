-- Reads the holds that requests name. A hold has ended once its usage is projected, even if its row is still open; the
-- outbox keeps the record of that usage until the journal certainly has it.
select wanted.account_id,
       wanted.reservation_id,
       ended.yes is not null as has_ended,
       hold.content,
       hold.user_id,
       hold.feature,
       hold.amount::text,
       hold.counts::text     as effective_amount,
       hold.state,
       hold.expires_at,
       hold.decided_at,
       hold.event_id,
       hold.source,
       hold.settlement,
       hold."partition",
       hold."offset",
       waiting.event
from unnest($1::text[], $2::text[]) as wanted (account_id, reservation_id)
left join lateral (
    select *
    from control.hold
    where hold.account_id = wanted.account_id and hold.reservation_id = wanted.reservation_id
    limit 1
) as hold on true
left join lateral (
    select true as yes
    from ended_hold
    where ended_hold.account_id = wanted.account_id and ended_hold.reservation_id = wanted.reservation_id
    limit 1
) as ended on true
left join lateral (
    select event
    from control.outbox
    where hold.state = 'settling'
      and outbox.account_id = wanted.account_id and outbox.reservation_id = wanted.reservation_id
      and outbox.event_id = hold.event_id and outbox.source = hold.source
    limit 1
) as waiting on true

-- Leases what is due on a channel, the longest due first, from the front of the line; of each account no more than its
-- share. The clock is read once, and so the index is used.
with line as (
    select notification_id, account_id, next_attempt_at
    from delivery.notification
    where status = 'pending'
      and channel = $1
      and next_attempt_at <= (select clock_timestamp())
      and (leased_until is null or leased_until <= clock_timestamp())
    order by next_attempt_at
    limit $8
    for update skip locked
),
numbered as (
    select line.notification_id, line.next_attempt_at,
           coalesce(held.sends, 0)
           + row_number() over (partition by line.account_id order by line.next_attempt_at) as sends
    from line
    left join unnest($5::text[], $6::int[]) as held (account_id, sends) using (account_id)
),
due as (
    select notification_id
    from numbered
    where sends <= $7::int
    order by next_attempt_at
    limit $2
)
update delivery.notification
set lease        = $3,
    leased_until = clock_timestamp() + $4::bigint * interval '1 ms',
    attempts     = attempts + 1
from due
where notification.notification_id = due.notification_id
returning notification.account_id, notification.notification_id, notification.address, notification.subject,
          notification.text, notification.html, notification.attempts

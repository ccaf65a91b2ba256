-- Leases what is due on a channel, the longest due first. The clock is read once, and so the index is used.
with due as (
    select notification_id
    from delivery.notification
    where status = 'pending'
      and channel = $1
      and next_attempt_at <= (select clock_timestamp())
      and (leased_until is null or leased_until <= clock_timestamp())
    order by next_attempt_at
    limit $2
    for update skip locked
)
update delivery.notification
set lease        = $3,
    leased_until = clock_timestamp() + $4::bigint * interval '1 ms',
    attempts     = attempts + 1
from due
where notification.notification_id = due.notification_id
returning notification.account_id, notification.notification_id, notification.address, notification.subject,
          notification.text, notification.html, notification.attempts

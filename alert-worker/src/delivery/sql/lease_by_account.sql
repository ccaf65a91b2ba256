-- Leases what is due on a channel, from account to account, so that the long line of one hides nobody; of each account no
-- more than its share.
with recursive waiting as (
    (select account_id
     from delivery.notification
     where status = 'pending' and channel = $1
     order by account_id
     limit 1)
    union all
    select (select next.account_id
            from delivery.notification as next
            where next.status = 'pending' and next.channel = $1 and next.account_id > waiting.account_id
            order by next.account_id
            limit 1)
    from waiting
    where waiting.account_id is not null
),
shared as (
    select first.notification_id, first.next_attempt_at
    from waiting
    left join unnest($5::text[], $6::int[]) as held (account_id, sends) using (account_id)
    cross join lateral (
        select notification_id, next_attempt_at
        from delivery.notification
        where status = 'pending'
          and channel = $1
          and account_id = waiting.account_id
          and next_attempt_at <= (select clock_timestamp())
          and (leased_until is null or leased_until <= clock_timestamp())
        order by next_attempt_at
        limit greatest($7::int - coalesce(held.sends, 0), 0)
    ) as first
    order by first.next_attempt_at
    limit $2
),
due as (
    select notification_id
    from delivery.notification
    join shared using (notification_id)
    where status = 'pending' and (leased_until is null or leased_until <= clock_timestamp())
    for update of notification skip locked
)
update delivery.notification
set lease        = $3,
    leased_until = clock_timestamp() + $4::bigint * interval '1 ms',
    attempts     = attempts + 1
from due
where notification.notification_id = due.notification_id
returning notification.account_id, notification.notification_id, notification.address, notification.subject,
          notification.text, notification.html, notification.attempts

-- Locks a page of what may be redelivered: what is parked, or the one notification that is named.
select account_id, notification_id, kind, channel, recipient, address, status = 'parked' as "is_parked!",
       coalesce(leased_until > clock_timestamp(), false) as "is_leased!"
from delivery.notification
where (status = 'parked' or notification_id = $2)
  and ($1::text is null or account_id = $1)
  and ($2::text is null or notification_id = $2)
  and notification_id > $3
order by notification_id
limit $4
for update

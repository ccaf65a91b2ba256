-- What a request has locked this moment is left for the next time. The clock is read once, and so the index is used.
-- With a hold goes the sum of its user where that is 0; the user's next hold makes a new one.
with dropped as (
    delete from control.hold
    where ctid = any(array(
        select ctid
        from control.hold
        where state in ('settled', 'released', 'expired')
          and created_at < (select clock_timestamp()) - make_interval(days => $1)
        limit $2
        for update skip locked))
    returning account_id, user_id, coalesce(feature, '') as feature
),
emptied as (
    delete from control.user_hold
    using (select distinct account_id, user_id, feature from dropped where user_id is not null) as user_of
    where user_hold.account_id = user_of.account_id
      and user_hold.user_id    = user_of.user_id
      and user_hold.feature    = user_of.feature
      and user_hold.held       = 0
)
select count(*) as "dropped!"
from dropped

-- Accounts with open holds, those after $1, and whether the time of a hold is over: from one account to the next by the
-- index, and the first hold to end of each, however many it has.
with recursive holding as (
    (select account_id
     from control.hold
     where state = 'held' and account_id > $1
     order by account_id
     limit 1)
    union all
    select next.account_id
    from holding
    cross join lateral (
        select hold.account_id
        from control.hold
        where hold.state = 'held' and hold.account_id > holding.account_id
        order by hold.account_id
        limit 1
    ) as next
)
select account_id as "account_id!",
       coalesce((select hold.expires_at <= clock_timestamp()
                 from control.hold
                 where hold.account_id = holding.account_id and hold.state = 'held'
                 order by hold.account_id, hold.expires_at
                 limit 1), false) as "is_due!"
from holding
limit $2

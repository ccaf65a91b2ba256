-- The halted accounts after one, each with the record that halts it.
-- Recursive, so that it costs one look-up an account however many records of it are parked.
with recursive head as (
    (select account_id, partition, value
     from parked
     where account_id > $2
     order by account_id, "offset"
     limit 1)
    union all
    select next.*
    from head
    cross join lateral (
        select account_id, partition, value
        from parked
        where parked.account_id > head.account_id
        order by account_id, "offset"
        limit 1
    ) as next
)
select account_id, value
from head
where partition = any($1)
limit $3

-- Takes one producer's records, due or not.
-- The clock is read once, and so the index is used.
with taken as (
    update control.outbox
    set taken_until = clock_timestamp() + interval '10 seconds'
    where outbox_id = any(array(
        select outbox_id
        from control.outbox as waiting
        where source = $2
          and (taken_until is null or taken_until <= (select clock_timestamp()))
          and (reservation_id is not null
               or not exists (select from control.outbox as older
                              where older.account_id = waiting.account_id
                                and older.outbox_id  < waiting.outbox_id
                                and older.reservation_id is null))
        order by outbox_id
        limit $1
        for update skip locked))
    returning outbox_id, account_id, event_id, source, event, reservation_id
)
select outbox_id      as "outbox_id!",
       account_id     as "account_id!",
       event_id       as "event_id!",
       source         as "source!",
       event          as "event!",
       reservation_id
from taken
order by outbox_id

-- As `drop_holds.sql`: skips what is locked, and reads the clock once, so that the index is used.
with dropped as (
    delete from control.decision
    where ctid = any(array(
        select ctid
        from control.decision
        where logged_at < (select clock_timestamp()) - make_interval(days => $1)
        limit $2
        for update skip locked))
    returning 1
)
select count(*) as "dropped!"
from dropped

-- As `drop_holds.sql`. A write of that age is known to the fold, which lets its id count once for good; what the journal
-- has not acknowledged stays, for a repeat appends it.
with dropped as (
    delete from control.idempotency
    where ctid = any(array(
        select ctid
        from control.idempotency
        where created_at < (select clock_timestamp()) - make_interval(days => $1)
          and answered_at is not null
          -- An account opens once, and with it its bonuses, its promo code and its referral.
          and kind <> 'account.open'
        limit $2
        for update skip locked))
    returning 1
)
select count(*) as "dropped!"
from dropped

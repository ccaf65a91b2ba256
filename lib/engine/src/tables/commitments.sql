-- Sums the open holds of accounts and of some of their users, with the position of the generation.
--
-- One statement, so that all figures are of one moment also in a transaction whose statements each see the newest rows.
-- Laterals, so that each account and user costs look-ups by index whatever the sizes of the tables. The instant is made
-- once a row: a clock in a list of columns keeps its subquery apart.
-- $1, $2, $3: accounts, the periods whose usage is read, and the instants to read at; $4, $5: users, each with the account.
with standing as materialized (
    select wanted.account_id, wanted.period_index, account."offset", account.partition, checkpoint.next_offset,
           halted.account_id is not null as halted, instant.now, due.n as due, ended.n as ended,
           coalesce(gate.held, 0) - due.held - ended.held as held
    from unnest($1::text[], $2::bigint[], $3::timestamptz[]) as wanted (account_id, period_index, at)
    join account    on account.account_id   = wanted.account_id
    join checkpoint on checkpoint.partition = account.partition
    left join control.gate on gate.account_id = wanted.account_id
    left join halted on halted.account_id = wanted.account_id
    cross join lateral (
        select case account.clock
                   when 'test' then greatest(account.ledger_time, wanted.at)
                   else clock_timestamp()
               end as now
    ) as instant
    cross join lateral (
        select count(*) as n, coalesce(sum(hold.counts), 0) as held
        from control.hold
        where hold.account_id = wanted.account_id and hold.state = 'held' and hold.expires_at <= instant.now
    ) as due
    cross join lateral (
        select count(*) as n, coalesce(sum(hold.counts), 0) as held
        from control.hold
        where hold.account_id = wanted.account_id and hold.state = 'settling'
          and exists (select from ended_hold
                      where ended_hold.account_id     = hold.account_id
                        and ended_hold.reservation_id = hold.reservation_id)
    ) as ended
)
select (select live from control.generation where model = 'read_model') as live,
       standing.account_id, standing."offset", standing.partition, standing.next_offset, standing.halted,
       standing.now, standing.held::text, standing.due, standing.ended,
       asker.user_id, usage.features as used_features, usage.used as used_credits,
       holds.features as held_features, holds.held as held_credits,
       own.series as own_series, own.amount::text as own_amount
from standing
-- The users' part: their own limit, and what each has used in the period and their open holds take, by feature.
left join unnest($4::text[], $5::text[]) as asker (account_id, user_id)
     on asker.account_id = standing.account_id
left join lateral (
    select own_limit.series, own_limit.amount
    from own_limit
    where own_limit.account_id = standing.account_id and own_limit.user_id = asker.user_id
    limit 1
) as own on true
left join lateral (
    select array_agg(user_usage.feature) as features, array_agg(user_usage.used::text) as used
    from user_usage
    where user_usage.account_id   = standing.account_id
      and user_usage.period_index = standing.period_index
      and user_usage.user_id      = asker.user_id
) as usage on true
left join lateral (
    select array_agg(sums.feature) as features, array_agg(sums.held::text) as held
    from (
        select parts.feature, sum(parts.held) as held
        from (
            select user_hold.feature, user_hold.held
            from control.user_hold
            where user_hold.account_id = standing.account_id and user_hold.user_id = asker.user_id
            union all
            select coalesce(hold.feature, ''), -hold.counts
            from control.hold
            where standing.due > 0
              and hold.account_id = standing.account_id and hold.user_id = asker.user_id
              and hold.state = 'held' and hold.expires_at <= standing.now
            union all
            select coalesce(hold.feature, ''), -hold.counts
            from control.hold
            where standing.ended > 0
              and hold.account_id = standing.account_id and hold.user_id = asker.user_id
              and hold.state = 'settling'
              and exists (select from ended_hold
                          where ended_hold.account_id     = hold.account_id
                            and ended_hold.reservation_id = hold.reservation_id)
        ) as parts
        group by parts.feature
    ) as sums
) as holds on true

-- Users of a period by their usage, the largest first.
--
-- An account of up to 5,000 counters in a period is read whole and sorted, so that most accounts cost nothing here. Past
-- that its users have a row each in user_total (engine::tables::user_total). An index by `used` would change with every
-- batch. So it has a bound: `used` itself for the first ten events of a user, each of which adds a tenth or more, and
-- later the end of a bucket that is a hundredth to a tenth of it wide. Nobody has used more than their bound, which
-- makes pages by it exact (query-api, http/ranking.rs).

-- How many rows user_usage has of a period. They are never deleted.
create table user_usage_count (
    account_id    text    collate "C" not null,
    period_index  bigint  not null,
    counters      bigint  not null,
    primary key (account_id, period_index)
) with (fillfactor = 70);

-- An amount as a whole number of the same order: how many digits it has in units, then the leading 16. Row security lets
-- no condition on numeric reach an index. Without a from clause, so that it is computed in place.
create function magnitude(amount numeric) returns bigint
language sql immutable parallel safe as $$
    select length(trunc(amount * 1000000000)::text) * 10000000000000000
         + rpad(left(trunc(amount * 1000000000)::text, 16), 16, '0')::bigint
$$;

-- A user's usage in a period over all features, where the period has more than 5,000 counters.
create table user_total (
    account_id    text           collate "C" not null,
    period_index  bigint         not null,
    user_id       text           collate "C" not null,
    used          numeric(38,9)  not null,
    events        bigint         not null,
    -- Minus the bound: the most usage has the lowest rank.
    rank          bigint         not null
                  generated always as (case when events <= 10 then -magnitude(used)
                                            else -(magnitude(used) / 100000000000000 * 100000000000000 + 99999999999999)
                                       end) stored,
    primary key (account_id, period_index, user_id)
) with (fillfactor = 70);

-- Nobody adds to what is being summed up.
lock table user_usage in share mode;

insert into user_usage_count (account_id, period_index, counters)
select account_id, period_index, count(*)
from user_usage
group by account_id, period_index;

insert into user_total (account_id, period_index, user_id, used, events)
select account_id, period_index, user_id, sum(used), sum(events)
from user_usage
join user_usage_count using (account_id, period_index)
where counters > 5000
group by account_id, period_index, user_id;

create index user_total_rank on user_total (account_id, period_index, rank, user_id);

-- Sums of usage by day and every dimension but the user: what is asked of an account as a whole, however many users it
-- has. '' = absent. Batches add their sums, so any split leaves the same rows.
create table daily_usage (
    account_id    text           collate "C" not null,
    period_index  bigint         not null,
    day           date           not null,  -- as in usage_rollup
    category      text           collate "C" not null,
    tier          text           collate "C" not null,
    model         text           collate "C" not null,
    feature       text           collate "C" not null,
    org_id        text           collate "C" not null,
    credits       numeric(38,9)  not null,
    events        bigint         not null,
    quantities    jsonb          not null,  -- name -> amount as text; no zeros
    primary key (account_id, period_index, day, category, tier, model, feature, org_id)
) with (fillfactor = 70);

-- Nobody adds to what is being summed up.
lock table usage_rollup in share mode;

insert into daily_usage
select account_id, period_index, day, category, tier, model, feature, org_id, sum(credits), sum(events), '{}'
from usage_rollup
group by account_id, period_index, day, category, tier, model, feature, org_id;

update daily_usage
set quantities = summed.quantities
from (
    select account_id, period_index, day, category, tier, model, feature, org_id,
           jsonb_object_agg(name, trim_scale(amount)::text) as quantities
    from (
        select account_id, period_index, day, category, tier, model, feature, org_id, name,
               sum(amount::numeric) as amount
        from usage_rollup
        cross join lateral jsonb_each_text(quantities) as quantity (name, amount)
        group by account_id, period_index, day, category, tier, model, feature, org_id, name
    ) as named
    where amount <> 0
    group by account_id, period_index, day, category, tier, model, feature, org_id
) as summed
where (daily_usage.account_id, daily_usage.period_index, daily_usage.day, daily_usage.category, daily_usage.tier,
       daily_usage.model, daily_usage.feature, daily_usage.org_id)
    = (summed.account_id, summed.period_index, summed.day, summed.category, summed.tier, summed.model,
       summed.feature, summed.org_id);

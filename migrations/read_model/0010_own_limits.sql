-- Users' own limits, one row each: an account may have a million. A row is void once the limits of its account are of a
-- later series (core -> 'limits' -> 'series'): all were replaced since.
create table own_limit (
    account_id  text           collate "C" not null,
    user_id     text           collate "C" not null,
    series      bigint         not null,
    amount      numeric(38,9),           -- null = unlimited
    primary key (account_id, user_id)
) with (fillfactor = 70);
create index own_limit_listed on own_limit (account_id, series, user_id);
create index own_limit_lowest on own_limit (account_id, series, amount) where amount is not null;

-- How many users' own limits are in force. The default is for a projector of an older fold version, which does not know
-- the column and writes its generation until the new one is live.
alter table account add column own_limits bigint not null default 0;

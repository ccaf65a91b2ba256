-- The version of the limit of each user who has a limit of their own, or had one. Unlike a user's page it outlasts the
-- period.
create table limit_page (
    account_id  text           collate "C" not null,
    user_id     text           collate "C" not null,
    series      bigint,                  -- in which their own limit was set; null once it is removed
    amount      numeric(38,9),           -- their own limit; null = unlimited or removed
    page        jsonb          not null, -- ledger_core::policy::alert::LimitPage
    primary key (account_id, user_id)
) with (fillfactor = 70);

-- Credits held for work in progress. Operational and short-lived, and no ledger history: the journal knows only the usage
-- that a hold ended with. Every change of an account's holds happens under its gate row.

-- The gate: locked by whoever decides on the account's holds, so that any number of processes decide one after another.
create table control.gate (
    account_id text           collate "C" primary key,
    held       numeric(38,9)  not null default 0  -- sum of counts over its holds noted as held or settling
) with (fillfactor = 50);

-- One row a hold, for some weeks after it has ended, so that late usage finds it.
create table control.hold (
    account_id     text           collate "C" not null,
    reservation_id text           collate "C" not null,
    content        bytea          not null,  -- hash of the request that made it: tells a repeat from another request
    user_id        text           collate "C",
    feature        text           collate "C",
    amount         numeric(38,9)  not null check (amount > 0),
    counts         numeric(38,9)  not null,  -- what it takes while open: the amount, or what its usage charges where that is more
    state          text           not null check (state in ('held', 'settling', 'settled', 'released', 'expired')),
    expires_at     timestamptz    not null,  -- by the database's clock; on test accounts by ledger time
    decided_at     timestamptz    not null,  -- last grant; its usage is recorded no earlier
    created_at     timestamptz    not null,
    event_id       text           collate "C",  -- the usage that settles it
    source         text           collate "C",
    settlement     bytea,                    -- that usage's content hash
    "partition"    integer,                  -- where the journal has it; null until that is known
    "offset"       bigint,
    primary key (account_id, reservation_id),
    check ((event_id is null) = (source is null) and (event_id is null) = (settlement is null))
) with (fillfactor = 70);
create index hold_due      on control.hold (account_id, expires_at) where state = 'held';
create index hold_settling on control.hold (account_id) where state = 'settling';
create index hold_created  on control.hold using brin (created_at);

-- Sum of counts over a user's holds noted as held or settling, by feature. '' = no feature.
create table control.user_hold (
    account_id text           collate "C" not null,
    user_id    text           collate "C" not null,
    feature    text           collate "C" not null,
    held       numeric(38,9)  not null,
    primary key (account_id, user_id, feature)
) with (fillfactor = 50);

-- Why somebody was blocked, or was not: each decision that is kept, with the figures it was made from.
create table control.decision (
    account_id     text           collate "C" not null,
    decided_at     timestamptz    not null,  -- by the database's clock; on test accounts ledger time
    seq            bigint         generated always as identity,
    logged_at      timestamptz    not null,
    kind           text           not null,  -- check | reserve | extend
    reservation_id text           collate "C",
    user_id        text           collate "C",
    feature        text           collate "C",
    amount         numeric(38,9),            -- asked for; of an extension the growth; null is the smallest work
    code           text,                     -- why refused; null is granted
    settled        numeric(38,9)  not null,
    available      numeric(38,9)  not null,  -- settled less all open holds
    floor          numeric(38,9),            -- how far available may sink; null is any depth
    user_limit     numeric(38,9),
    used           numeric(38,9)  not null,  -- what counts of the user's usage
    held           numeric(38,9)  not null,  -- what counts of the user's open holds
    period_index   bigint         not null,
    resets_at      timestamptz    not null,
    "partition"    integer        not null,  -- the position of the journal that it was decided at
    "offset"       bigint         not null,
    actor          text           not null,  -- key id
    primary key (account_id, decided_at, seq)
);
create index decision_user   on control.decision (account_id, user_id, decided_at, seq) where user_id is not null;
create index decision_logged on control.decision using brin (logged_at);

-- Events that follow a decision in this database: stored in its transaction, appended until the journal acknowledges.
create table control.outbox (
    outbox_id      bigint       generated always as identity primary key,
    account_id     text         collate "C" not null,  -- the record's key
    event_id       text         collate "C" not null,
    source         text         collate "C" not null,
    event          bytea        not null,              -- the record
    reservation_id text         collate "C",           -- the hold that it settles
    created_at     timestamptz  not null,
    due_at         timestamptz  not null               -- not appended before: somebody is at it
);
create index outbox_due     on control.outbox (due_at);
create index outbox_settles on control.outbox (account_id, reservation_id) where reservation_id is not null;

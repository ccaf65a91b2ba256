-- Alerting: one generation, applied with search_path set to its schema (alerting_<n>).
--
-- The alert worker's own fold of the journal: what it needs of each account to tell what is to be told, and what it has
-- told so far. Every row follows from the journal alone: no defaults, no serials, no clock. What became of telling it
-- stands in schema delivery, which no rebuild touches. Amounts are credits; times are ledger time unless named
-- otherwise. Columns are as in the read model.

-- How far each journal partition has been evaluated.
create table checkpoint (
    partition     int     primary key,
    next_offset   bigint  not null,
    epoch         uuid,                -- claim of the process that folds this partition; operational
    last_leaf     bytea,               -- hash of the record before next_offset, to notice a log that lost its tail
    fold_version  int     not null,
    log_id        uuid    not null
);

-- One row per account: its core without lots, and what its rules have told.
create table account (
    account_id   text         collate "C" primary key,
    partition    int          not null,
    "offset"     bigint       not null,  -- last event folded, whatever its outcome
    ledger_time  timestamptz  not null,
    core         jsonb        not null,  -- ledger_core::account::Core without lots
    watch        jsonb        not null   -- ledger_core::alert::Watch
) with (fillfactor = 70);

-- Every lot that ever was; lots at 0 are not in the core.
create table lot (
    account_id    text           collate "C" not null,
    grant_id      text           collate "C" not null,
    source        text           not null,
    amount        numeric(38,9)  not null,
    remaining     numeric(38,9)  not null,
    lapsed        numeric(38,9)  not null,
    refunded      numeric(38,9)  not null,
    priority      int            not null,
    effective_at  timestamptz    not null,
    expires_at    timestamptz,
    granted_at    timestamptz    not null,
    voided_at     timestamptz,
    event_id      text           collate "C" not null,
    payment_id    text           collate "C",
    reason        text,
    "offset"      bigint         not null,
    seq           int            not null,
    open          boolean        not null,
    primary key (account_id, grant_id)
) with (fillfactor = 70);
create index lot_open    on lot (account_id) where open;
create index lot_payment on lot (account_id, payment_id) where payment_id is not null;

-- Which lot repaid which stretch of the account's overdraft line.
create table repayment (
    account_id  text           collate "C" not null,
    line_start  numeric(38,9)  not null,
    line_end    numeric(38,9)  not null,
    grant_id    text           collate "C" not null,
    primary key (account_id, line_start)
);

-- The first event of each (account, source, id): no more of it than tells a repetition and undoes a usage.
create table event (
    account_id    text         collate "C" not null,
    event_id      text         collate "C" not null,
    source        text         collate "C" not null,
    type          text         not null,
    outcome       text         not null,  -- applied | rejected
    content       bytea        not null,  -- hash that tells a duplicate from a conflict
    occurred_at   timestamptz  not null,
    recordedat    timestamptz  not null,
    actor         text         not null,
    data          json         not null,  -- usage: user, feature and credits; else {}
    period_index  bigint       not null,
    credits       numeric(38,9),
    lots          json,
    line_start    numeric(38,9),
    line_end      numeric(38,9),
    reversed_at   timestamptz,
    primary key (account_id, event_id, source)
);

-- A user's usage in a period, and which rules have told of it there.
create table user_page (
    account_id    text           collate "C" not null,
    period_index  bigint         not null,
    user_id       text           collate "C" not null,
    used          numeric(38,9)  not null,
    page          jsonb          not null,  -- ledger_core::alert::UserPage
    primary key (account_id, period_index, user_id)
) with (fillfactor = 70);

-- What fired, once for each rule, threshold version, subject and period.
create table firing (
    account_id         text           collate "C" not null,
    "offset"           bigint         not null,  -- the event being folded when it fired
    seq                int            not null,
    firing_id          uuid           not null,
    kind               text           not null,
    alert_id           text           collate "C",  -- org alerts only
    subject            text           collate "C" not null,
    threshold          numeric(38,9)  not null,
    threshold_version  int            not null,
    period_index       bigint         not null,
    figure             numeric(38,9)  not null,  -- in the threshold's unit
    fired_at           timestamptz    not null,  -- of a crossing: the instant crossed
    event_id           text           collate "C" not null,
    primary key (account_id, "offset", seq)
);
create unique index firing_id    on firing (firing_id);
create index        firing_alert on firing (account_id, alert_id, "offset") where alert_id is not null;

-- Records of accounts that are halted by an event this fold version does not know, in order.
create table parked (
    account_id   text         collate "C" not null,
    partition    int          not null,
    "offset"     bigint       not null,
    appended_at  timestamptz  not null,
    reason       text         not null,
    key          bytea        not null,
    value        bytea        not null,
    primary key (account_id, "offset")
);

-- The read model: one generation, applied with search_path set to its schema (read_model_<n>).
--
-- Every row follows from the journal alone: no defaults, no serials, no clock. Two generations of the same fold
-- version over the same log are equal row for row. Every table starts with account_id, so that the model can be
-- spread by partition. Amounts are credits; times are ledger time unless named otherwise.
--
-- Rows that each batch updates leave room on their pages (fillfactor), and no index has a column of theirs that
-- changes: the new version of a row then lies beside the old one, and no index is touched.

-- How far each journal partition has been folded. The compare-and-set on (epoch, next_offset) is what makes every
-- other row of a batch exactly-once.
create table checkpoint (
    partition     int     primary key,
    next_offset   bigint  not null,
    epoch         uuid,                -- claim of the process that folds this partition; operational, not compared on rebuild
    last_leaf     bytea,               -- hash of the record before next_offset, to notice a log that lost its tail
    fold_version  int     not null,
    log_id        uuid    not null
);

-- One row per account: what the fold keeps between events, without its open lots (table lot).
create table account (
    account_id     text         collate "C" primary key,
    partition      int          not null,
    "offset"       bigint       not null,  -- last event folded, whatever its outcome
    events         bigint       not null,  -- events folded so far; every 1,000th leaves a snapshot
    ledger_time    timestamptz  not null,
    next_crossing  timestamptz,            -- next boundary, lot start or lot end; null past the representable time
    clock          text         not null,  -- live | test
    rate_card      text,                   -- the plan's, for the door
    opened_at      timestamptz  not null,
    core           jsonb        not null   -- ledger_core::fold::Core without lots
) with (fillfactor = 70);
create index account_due on account (next_crossing) where clock = 'live';

-- Every lot that ever was. Closing sets remaining to 0. Lots at 0 are not in the core.
create table lot (
    account_id    text           collate "C" not null,
    grant_id      text           collate "C" not null,
    source        text           not null,
    amount        numeric(38,9)  not null,
    remaining     numeric(38,9)  not null,
    lapsed        numeric(38,9)  not null,  -- what expired or was voided of it, less what a refund has counted
    refunded      numeric(38,9)  not null,  -- what was paid back of its payment (paid lots)
    priority      int            not null,
    effective_at  timestamptz    not null,
    expires_at    timestamptz,              -- exclusive; null = never
    granted_at    timestamptz    not null,  -- ledger time of the event that made it
    voided_at     timestamptz,
    event_id      text           collate "C" not null,
    payment_id    text           collate "C",  -- paid lots: what refunds name
    reason        text,
    "offset"      bigint         not null,  -- position of the event that made it
    seq           int            not null,  -- order within that event
    open          boolean        not null,  -- remaining > 0, which changes too often to stand in an index
    primary key (account_id, grant_id)
) with (fillfactor = 70);
create index lot_open    on lot (account_id) where open;
create index lot_payment on lot (account_id, payment_id) where payment_id is not null;
create index lot_listed  on lot (account_id, "offset", seq);

-- Which lot repaid which stretch of the account's overdraft line.
create table repayment (
    account_id  text           collate "C" not null,
    line_start  numeric(38,9)  not null,
    line_end    numeric(38,9)  not null,
    grant_id    text           collate "C" not null,
    primary key (account_id, line_start)
);

-- The first event of each (account, source, id) with its outcome; a usage's entry is in its event row.
create table event (
    account_id            text         collate "C" not null,
    "offset"              bigint       not null,
    event_id              text         collate "C" not null,
    source                text         collate "C" not null,
    type                  text         not null,
    outcome               text         not null,  -- applied | rejected
    reason                text,
    content               bytea        not null,  -- hash that tells a duplicate from a conflict
    occurred_at           timestamptz  not null,
    recordedat            timestamptz  not null,  -- as stamped by the service that appended it
    appended_at           timestamptz  not null,  -- the broker's append time
    ledger_time           timestamptz  not null,
    actor                 text         not null,
    data                  json         not null,  -- as in the journal
    period_index          bigint       not null,
    user_id               text         collate "C",
    message_id            text         collate "C",
    credits               numeric(38,9),          -- usage: what was charged
    lots                  json,                   -- usage: draws [{grant_id, source, amount}], amounts negative
    line_start            numeric(38,9),          -- usage and other takings: stretch of the overdraft line
    line_end              numeric(38,9),
    balance_after         numeric(38,9),          -- usage: its entry's balances
    credit_balance_after  numeric(38,9),
    entry_seq             int,                    -- usage: its entry's place after the crossings' entries
    reversed_at           timestamptz,
    primary key (account_id, "offset")
);
create unique index event_id      on event (account_id, event_id, source);
create index        event_message on event (account_id, message_id) where message_id is not null;

-- Records that had no effect and are not the first of their id: duplicates, conflicts, events before the opening.
create table refused (
    account_id   text         collate "C" not null,
    "offset"     bigint       not null,
    event_id     text         collate "C" not null,
    source       text         collate "C" not null,
    type         text         not null,
    outcome      text         not null,  -- duplicate | conflict | rejected
    reason       text,
    recorded_at  timestamptz  not null,
    data         json         not null,
    primary key (account_id, "offset")
);
create index refused_id on refused (account_id, event_id);

-- Entries of everything but usage, and of crossings (boundaries, lot starts and ends).
create table entry (
    account_id            text           collate "C" not null,
    "offset"              bigint         not null,  -- the event being folded when it was booked
    seq                   int            not null,
    type                  text           not null,
    amount                numeric(38,9)  not null,
    balance_after         numeric(38,9)  not null,
    credit_balance_after  numeric(38,9)  not null,
    event_id              text           collate "C" not null,
    recorded_at           timestamptz    not null,  -- of a crossing: the instant crossed
    occurred_at           timestamptz    not null,
    lots                  json           not null,
    overdraft             numeric(38,9)  not null,  -- change of the overdraft, signed
    primary key (account_id, "offset", seq)
);
create index entry_type on entry (account_id, type, "offset", seq);

-- Closed periods; the open one is in the core.
create table period (
    account_id   text           collate "C" not null,
    index        bigint         not null,
    starts_at    timestamptz    not null,
    ends_at      timestamptz    not null,
    used         numeric(38,9)  not null,
    granted      numeric(38,9)  not null,
    expired      numeric(38,9)  not null,
    rolled_over  numeric(38,9)  not null,
    maximum      numeric(38,9)  not null,
    primary key (account_id, index)
);

-- A user's usage in a period by feature: the counters limits and user alerts read. '' = no feature.
create table user_usage (
    account_id    text           collate "C" not null,
    period_index  bigint         not null,
    user_id       text           collate "C" not null,
    feature       text           collate "C" not null,
    used          numeric(38,9)  not null,
    events        bigint         not null,
    primary key (account_id, period_index, user_id, feature)
) with (fillfactor = 70);

-- Sums of usage by every dimension. '' = absent. Batches add their sums, so any split leaves the same rows.
create table usage_rollup (
    account_id    text           collate "C" not null,
    period_index  bigint         not null,
    day           date           not null,  -- of occurred_at, in the plan's time zone
    user_id       text           collate "C" not null,
    category      text           collate "C" not null,
    tier          text           collate "C" not null,
    model         text           collate "C" not null,
    feature       text           collate "C" not null,
    org_id        text           collate "C" not null,
    credits       numeric(38,9)  not null,
    events        bigint         not null,
    quantities    jsonb          not null,  -- name -> amount as text; no zeros
    primary key (account_id, period_index, user_id, day, category, tier, model, feature, org_id)
) with (fillfactor = 70);

-- Sums of usage by category alone: what a page of periods shows, however many users an account has. '' = absent.
create table category_usage (
    account_id    text           collate "C" not null,
    period_index  bigint         not null,
    category      text           collate "C" not null,
    credits       numeric(38,9)  not null,
    events        bigint         not null,
    primary key (account_id, period_index, category)
) with (fillfactor = 70);

-- Adds two maps of quantities and leaves out what comes to zero. A loop, because there are few names and a query
-- over them takes half as long again.
create function add_quantities(a jsonb, b jsonb) returns jsonb
language plpgsql immutable parallel safe as $$
declare
    name   text;
    amount text;
    total  numeric;
begin
    for name, amount in select * from jsonb_each_text(b) loop
        total := coalesce((a ->> name)::numeric, 0) + amount::numeric;
        a := case when total = 0 then a - name
                  else a || jsonb_build_object(name, trim_scale(total)::text) end;
    end loop;
    return a;
end
$$;

-- The whole state as it stood after an event: base for as_of.
create table snapshot (
    account_id   text         collate "C" not null,
    "offset"     bigint       not null,
    ledger_time  timestamptz  not null,
    core         jsonb        not null,  -- with its lots
    primary key (account_id, "offset")
);

-- Records that could not be understood, whole.
create table dead_letter (
    partition    int          not null,
    "offset"     bigint       not null,
    appended_at  timestamptz  not null,
    reason       text         not null,
    key          bytea,
    value        bytea        not null,
    primary key (partition, "offset")
);

-- Records of accounts that are halted by an event this fold version does not know, in order.
create table parked (
    account_id   text         collate "C" not null,
    partition    int          not null,
    "offset"     bigint       not null,
    appended_at  timestamptz  not null,
    reason       text         not null,  -- the unknown type, on the first; 'behind' on the others
    key          bytea        not null,
    value        bytea        not null,
    primary key (account_id, "offset")
);

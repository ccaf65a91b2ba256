-- Auto top-up: what was decided and what the payment provider said. Operational: the journal has what came of it, and no
-- rebuild touches it.

-- One row an attempt. Proposed with its start in the outbox; started once the fold has applied that; told once an outcome
-- is in the outbox; ended once the fold has an outcome, or has refused the start; parked where a person has to decide.
create table control.top_up (
    account_id     text           collate "C" not null,
    attempt_id     text           collate "C" not null,  -- the provider's idempotency key
    number         int            not null,
    amount         numeric(38,9)  not null,
    usd            numeric(38,9),                        -- its price; null where the account's unit has none
    payment_method text           collate "C" not null,
    live           boolean        not null,              -- outcomes are stamped by the clock; else by ledger_time
    ledger_time    timestamptz    not null,              -- of the account, as it was decided
    state          text           not null check (state in ('proposed', 'started', 'told', 'ended', 'parked')),
    look_up        boolean        not null,              -- the provider may know it: it is looked up before it is charged
    started_at     timestamptz,                          -- when the journal had its start
    next_ask_at    timestamptz,
    leased_until   timestamptz,                          -- a worker is asking the provider
    asks           int            not null,
    first_asked_at timestamptz,
    payment_id     text           collate "C",
    reply          text,                                 -- what the provider said last
    primary key (account_id, attempt_id)
);
create index top_up_due    on control.top_up (next_ask_at) where state = 'started';
create index top_up_parked on control.top_up (account_id) where state = 'parked';

-- Refusals that are in the outbox or have been.
create table control.top_up_refusal (
    account_id text  collate "C" not null,
    event_id   text  collate "C" not null,
    primary key (account_id, event_id)
);

-- The sandbox's own book, as a real provider keeps one: what became of each idempotency key. No money moves there.
create table control.sandbox_charge (
    idempotency_key text         collate "C" primary key,
    account_id      text         collate "C" not null,
    payment_id      text         collate "C",  -- null: declined
    reason          text,                      -- why it was declined
    charged_at      timestamptz  not null
);

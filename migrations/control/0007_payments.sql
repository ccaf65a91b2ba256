-- Whose money moves, what was ordered, and what became of what the payment provider has told.

-- The provider's customer whose payment methods may be charged for an account; beside its contacts, never in the journal.
create table control.payment_customer (
    account_id  text         collate "C" primary key,
    customer_id text         collate "C" not null,
    set_by      text         not null,  -- key id, or provider:<name> for the first checkout
    set_at      timestamptz  not null
);

-- What was ordered at the provider: its webhook has to tell the same money.
create table control.checkout (
    reference     text           collate "C" primary key,  -- derived of account and Idempotency-Key, else random
    account_id    text           collate "C" not null,
    amount        numeric(38,9)  not null,  -- in the account's unit
    charged       bigint         not null,  -- its price in the currency's smallest unit
    currency      text           not null,
    customer_id   text           collate "C",  -- as the provider was asked
    checkout_id   text           collate "C",  -- the provider's; null until it has answered
    url           text,
    client_secret text,
    created_at    timestamptz    not null
);
create index checkout_id on control.checkout (checkout_id);

alter table control.payment
    add column currency    text,              -- of what was charged, as the provider told it
    add column credited_as text collate "C";  -- the payment id in the journal, where a person gave it another

-- What a webhook led to, until the fold has spoken; then a row is deleted, or waits for a person and is kept.
create table control.payment_effect (
    payment_id  text           collate "C" not null,
    event_id    text           collate "C" not null,  -- '': nothing was appended, for the money told was not the price
    account_id  text           collate "C" not null,
    kind        text           not null,
    amount      numeric(38,9)  not null,     -- in the account's unit
    charged     bigint,                      -- what the provider told, in the currency's smallest unit
    currency    text,
    source      text           collate "C",  -- with the account and event_id, the record's identity
    content     bytea,                       -- its content hash
    state       text           not null check (state in ('sent', 'parked', 'decided')),
    reason      text,                        -- why it is parked
    created_at  timestamptz    not null,
    parked_at   timestamptz,
    decided_at  timestamptz,
    decided_by  text,
    decision    text,
    note        text,                        -- why it was decided so
    primary key (payment_id, event_id)
);
create index payment_effect_sent   on control.payment_effect (created_at) where state = 'sent';
create index payment_effect_parked on control.payment_effect (created_at) where state = 'parked';

-- The key under which the provider was first asked to charge. Attempts that were asked about before have their id alone.
alter table control.top_up add column provider_key text collate "C";

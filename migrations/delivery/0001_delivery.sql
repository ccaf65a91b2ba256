-- delivery: what was told to whom. No generation of the alerts follows from it and none is rebuilt into it: what was
-- sent stays sent when the journal is folded anew. Backed up like control. Times are the database's clock.
create schema delivery;

-- One row per firing, inserted in the transaction that records the firing. Its id is derived, so a replay finds its
-- row here and sends nothing again.
create table delivery.outbox (
    account_id   text        collate "C" not null,
    firing_id    uuid        primary key,
    firing       json        not null,  -- as everybody may see it: the record of ledger.alerts carries it
    audience     json        not null,  -- {"recipients","channels","notify_user"}
    about        json        not null,  -- what its words need: name, unit, time zone, period, the alert's basis
    seq          bigint      not null generated always as identity,  -- order of the firings of one account
    created_at   timestamptz not null,
    published_at timestamptz,           -- ledger.alerts has it
    expanded_at  timestamptz            -- its notifications stand
);
create index outbox_unpublished on delivery.outbox (seq) where published_at is null;
create index outbox_unexpanded  on delivery.outbox (seq) where expanded_at is null;

-- One row per firing, channel and recipient, with its words as they are sent.
create table delivery.notification (
    account_id      text        collate "C" not null,
    notification_id text        collate "C" primary key,  -- derived; Message-ID and webhook-id of every attempt
    firing_id       uuid        not null,
    kind            text        collate "C" not null,
    channel         text        collate "C" not null check (channel in ('email', 'webhook', 'in_app')),
    recipient       text        collate "C" not null,     -- id of the admin or user; 'webhook'
    address         text,                                 -- e-mail only, as the contacts had it
    subject         text        not null,
    text            text        not null,                 -- webhook: the body, byte for byte
    html            text,                                 -- e-mail only
    status          text        collate "C" not null check (status in ('pending', 'delivered', 'parked')),
    attempts        integer     not null,                 -- begun since the last redelivery, or since ever
    next_attempt_at timestamptz not null,
    lease           uuid,                                 -- of the attempt under way
    leased_until    timestamptz,                          -- from then on others may take it: the worker is gone
    created_at      timestamptz not null,
    sent_at         timestamptz,                          -- when it was delivered
    last_error      text,                                 -- why the last attempt failed, or why it is parked
    unique (firing_id, channel, recipient)
);
create index notification_due    on delivery.notification (channel, next_attempt_at) where status = 'pending';
create index notification_parked on delivery.notification (account_id) where status = 'parked';
create index notification_listed on delivery.notification (account_id, created_at, notification_id);

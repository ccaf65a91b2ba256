-- What wins users, and what the payment provider has told. Operational: the journal has the credits that came of it.

-- A code that gives credits, once to each account.
create table control.promo_code (
    code            text           collate "C" primary key,
    amount          numeric(38,9)  not null check (amount > 0),
    valid_from      timestamptz,
    valid_until     timestamptz,             -- exclusive
    max_redemptions int,                     -- null: any number
    expires_at      timestamptz,             -- when the credits end
    redemptions     int            not null, -- so far
    created_at      timestamptz    not null
);

-- Which accounts have redeemed which.
create table control.redemption (
    account_id  text         collate "C" not null,
    code        text         collate "C" not null references control.promo_code,
    redeemed_at timestamptz  not null,
    primary key (account_id, code)
);

-- An account's invitations by e-mail; people's addresses stand here and never in the journal.
create table control.invitation (
    code       text         collate "C" primary key,
    account_id text         collate "C" not null,
    email      text         not null,
    created_at timestamptz  not null,
    accepted_by text        collate "C"     -- the account that opened by it first
);
create unique index invitation_email on control.invitation (account_id, lower(email));

-- What inviting has brought an account. Its row is locked by who opens an account that it has referred.
create table control.referrer (
    account_id     text           collate "C" primary key,
    invited        int            not null,
    accepted       int            not null,
    rewarded       int            not null,
    credits_earned numeric(38,9)  not null
);

-- What the provider's webhooks have told of one payment, in whatever order, and how much of it the journal has been told.
create table control.payment (
    payment_id     text           collate "C" primary key,
    account_id     text           collate "C",  -- null until the webhook of its being paid has come
    attempt_id     text           collate "C",  -- of a top-up
    amount         numeric(38,9),               -- credits
    charged        bigint,                      -- the same in the provider's smallest unit
    refunded       bigint         not null,     -- all refunds together, in that unit
    disputes       jsonb          not null,     -- dispute id -> {amount, won}
    told           jsonb          not null      -- what the journal has been told of it
);

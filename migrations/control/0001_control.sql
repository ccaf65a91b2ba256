-- control: what the services need besides the log. Backed up, for no replay brings it back.
-- Every table but these few starts with account_id; ids compare by bytes (collate "C").

-- Which generation of a model is live; a flip updates one row.
create table control.generation (
    model      text        collate "C" primary key,  -- 'read_model' | 'alerting'
    live       integer     not null,                 -- schema <model>_<live>
    flipped_at timestamptz not null
);

-- The journal that this database belongs to: one row, written with the genesis records.
create table control.log_identity (
    single     boolean     primary key check (single),  -- at most one row
    log_id     uuid        not null,
    partitions integer     not null,
    created_at timestamptz not null
);

-- API keys. Only the SHA-256 of a secret is kept: a copy of this table opens nothing.
create table control.api_key (
    key_id     text        collate "C" primary key,
    hash       bytea       not null check (octet_length(hash) = 32),
    role       text        collate "C" not null,     -- operator | admin | producer | member | auditor
    accounts   text[]      collate "C" not null,     -- {*} = all; empty for operator and auditor
    user_id    text        collate "C",              -- the member
    name       text        not null,
    created_at timestamptz not null,
    created_by text        collate "C" not null,     -- key id, or 'cli'
    expires_at timestamptz,
    revoked_at timestamptz
);

-- Rate cards: a version never changes once published, for usage in the log was charged by it.
create table control.rate_card (
    card         text        collate "C" not null,
    version      integer     not null check (version > 0),
    body         json        not null,               -- as published
    content      bytea       not null,               -- hash of the body's meaning: equal content publishes nothing
    published_at timestamptz not null,
    published_by text        collate "C" not null,
    primary key (card, version)
);

create function control.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'a published rate card never changes';
end
$$;

create trigger rate_card_never_changes
    before update or delete on control.rate_card
    for each row execute function control.refuse_change();

-- Writes with an id of their own: kept before the append, so that a repeat gets the first answer
-- and a crash between here and the log is made good by appending the same bytes again.
create table control.idempotency (
    account_id  text        collate "C" not null,    -- '' where no account is concerned
    kind        text        collate "C" not null,    -- one id space per kind: 'grant', 'adjustment' …
    key         text        collate "C" not null,    -- the body's own id, or the Idempotency-Key
    content     bytea       not null,                -- content hash; another one under the same key is 409
    event_id    text        collate "C",             -- null where no event is written (keys)
    event       bytea,                               -- the record as appended, to append again
    "partition" integer,                             -- position; null until the log acknowledged
    "offset"    bigint,
    answer      json,                                -- first answer, where it is more than id and position
    created_at  timestamptz not null,
    answered_at timestamptz,
    primary key (account_id, kind, key)
);

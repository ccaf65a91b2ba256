-- What the audit log has signed, by which keys. None of it follows from the journal: a read model that is older than it
-- must not sign another history.

-- What the origins of all partitions' logs begin with; pinned at the first start.
create table control.log_origin (
    single      bool           primary key default true check (single),
    base        text           collate "C" not null
);

-- Public keys that have signed, those of before too.
create table control.log_key (
    vkey        text           collate "C" primary key,
    partition   int            not null,
    origin      text           collate "C" not null,
    since       timestamptz    not null,
    until       timestamptz              -- null = signs now
);
create index log_key_listed on control.log_key (partition, since, vkey);

-- The greatest head that a log has signed or was about to; written before the checkpoint goes out.
create table control.log_head (
    origin      text           collate "C" primary key,
    size        bigint         not null,
    root        bytea          not null
);

-- Checkpoints that stand in their topic: what may be served. For one size there is one text; cosignatures are added to
-- the note.
create table control.log_checkpoint (
    partition    int           not null,
    size         bigint        not null,
    note         text          not null,
    published_at timestamptz   not null,
    primary key (partition, size)
);

-- The greatest size that each witness has cosigned.
create table control.log_witness (
    origin      text           collate "C" not null,
    vkey        text           collate "C" not null,
    size        bigint         not null,
    primary key (origin, vkey)
);

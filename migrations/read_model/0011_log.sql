-- The transparency log of each partition, written in the transaction of the fold's checkpoint: what the tree commits to is
-- what was folded.

-- How far a partition's log has come. `salt` is that of the genesis record; key hashes are made with it.
create table log_size (
    partition   int            primary key,
    size        bigint         not null,
    next_offset bigint         not null, -- every record before it is in the log
    salt        bytea          not null
) with (fillfactor = 50);

-- Full tiles, and the unfinished ones above level 0; level -1 has the entry bundles. What is unfinished of the levels -1
-- and 0 follows from log_tail.
create table log_tile (
    partition   int            not null,
    level       smallint       not null,
    index       bigint         not null,
    bytes       bytea          not null,
    primary key (partition, level, index)
);
-- Hashes don't compress.
alter table log_tile alter column bytes set storage external;

-- The entries of the unfinished bundle, 88 bytes each, one row a batch: to write the bundle anew with each batch would be
-- 15 KB on average. The rows go when the bundle is full.
create table log_tail (
    partition   int            not null,
    leaf        bigint         not null, -- index of the first entry
    entries     bytea          not null,
    primary key (partition, leaf)
);
alter table log_tail alter column entries set storage external;

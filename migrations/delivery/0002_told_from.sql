-- Where the journal ended when alerts were first evaluated over it. What fires by records before it is recorded and told
-- to nobody: a database that was lost, and is folded anew, sends nothing of the past again.
create table delivery.told_from (
    partition    int         primary key,
    next_offset  bigint      not null,
    noted_at     timestamptz not null
);

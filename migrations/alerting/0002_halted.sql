-- Accounts that can't be folded on in this generation; their records are in parked, from the one that halts them.
-- Operational: an operator sets resume, and the reason is for people.
create table halted (
    account_id   text     collate "C" primary key,
    partition    int      not null,
    kind         text     not null check (kind in ('unknown_type', 'failed')),
    reason       text     not null,  -- the unknown type, or how folding the record fails
    resume       boolean  not null   -- to be folded on: the worker tries once
);
create index halted_resume on halted (partition) where resume;

insert into halted (account_id, partition, kind, reason, resume)
select distinct on (account_id) account_id, partition, 'unknown_type', reason, false
from parked
order by account_id, "offset";

comment on table parked is 'records of halted accounts, in order; table halted says why';
comment on column parked.reason is 'the unknown type or "failed" on the first; "behind" on the others';

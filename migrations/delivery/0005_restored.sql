-- Where the alerts had been folded to when a database from a backup was first started. What fires by records before it has
-- fired already in the database that is gone, and may have been sent: it is parked, not sent.
alter table delivery.told_from add column restored_to bigint not null default 0;
alter table delivery.outbox add column is_from_before boolean not null default false;

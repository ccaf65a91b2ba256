-- Records of an account go into the journal in the order in which they were put in: one waits while an older one does.
-- Those that settle holds wait for nobody.
create index outbox_order on control.outbox (account_id, outbox_id) where reservation_id is null;

-- A relay is at it until then; null: nobody has taken it yet.
alter table control.outbox add column taken_until timestamptz;

-- By age, for what is kept for a while only.
create index outbox_created       on delivery.outbox       using brin (created_at) with (autosummarize = on);
create index notification_created on delivery.notification using brin (created_at) with (autosummarize = on);

-- By age, for what is kept for a while only.
create index outbox_created       on delivery.outbox       (created_at);
create index notification_created on delivery.notification (created_at);

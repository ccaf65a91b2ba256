-- A member sees what was sent to one recipient: of an account with many, it is found by the recipient.
create index notification_recipient on delivery.notification (account_id, recipient, created_at, notification_id);

-- By account, for leasing from accounts that wait behind the long line of another.
create index notification_shares on delivery.notification (channel, account_id, next_attempt_at) where status = 'pending';

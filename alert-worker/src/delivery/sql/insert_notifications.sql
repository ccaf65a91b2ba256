-- Adds the notifications of firings; a repeated expansion finds its rows and adds none.
insert into delivery.notification
    (account_id, notification_id, firing_id, kind, channel, recipient, address, subject, text, html, status,
     last_error, attempts, next_attempt_at, created_at, sent_at)
select rows.*, case status when 'delivered' then 1 else 0 end, now, now,
       case status when 'delivered' then now end
from unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::text[], $12::text[])
     as rows (account_id, notification_id, firing_id, kind, channel, recipient, address, subject, text, html,
              status, last_error),
     clock_timestamp() as now
on conflict (firing_id, channel, recipient) do nothing

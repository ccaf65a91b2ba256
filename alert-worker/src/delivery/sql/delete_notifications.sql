-- Deletes old notifications. What is being sent this moment is pending. The clock is read once, and so the index is used.
delete from delivery.notification
where ctid = any(array(
    select ctid
    from delivery.notification
    where status in ('delivered', 'parked')
      and created_at < (select clock_timestamp()) - make_interval(days => $1)
    limit $2
    for update skip locked))

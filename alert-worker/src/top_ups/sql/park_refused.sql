-- Also where the worker does not know of the payment yet, or has parked the attempt before it knew.
update control.top_up
set state        = 'parked',
    leased_until = null,
    payment_id   = $3,
    reply        = 'paid by ' || $3 || ', and the credit refused: ' || $4
where account_id = $1
  and attempt_id = $2
  and (state in ('started', 'told') or state = 'parked' and payment_id is null)

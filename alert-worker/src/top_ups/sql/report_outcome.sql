update control.top_up
set state        = 'told',
    leased_until = null,
    payment_id   = $3,
    reply        = $4
where account_id = $1
  and attempt_id = $2
  and state      = 'started'

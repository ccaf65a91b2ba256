-- A refund or a dispute at the payment provider names its payment, and not always the account.
drop index lot_payment;
create index lot_payment on lot (payment_id, account_id) where payment_id is not null;

-- When an operator has ended a promo code: it redeems no more.
alter table control.promo_code add column ended_at timestamptz;
-- How many invitations an account has sent of late.
create index invitation_made on control.invitation (account_id, created_at);

-- A member sees the firings about one user: of an account with many, they are found by the user.
create index firing_subject on firing (account_id, subject, "offset", seq);

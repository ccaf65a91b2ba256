-- Roles belong to the whole server: another database's migration may be creating this one at the same time,
-- and the user may not be allowed to make roles at all.
do $$
begin
    if not exists (select from pg_roles where rolname = 'ledger_reader') then
        create role ledger_reader nologin;
    end if;
    if not pg_has_role('ledger_reader', 'member') then
        execute format('grant ledger_reader to %I', current_user);
    end if;
exception
    when duplicate_object or unique_violation then null;
end
$$

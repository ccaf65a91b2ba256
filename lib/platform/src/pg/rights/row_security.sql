-- Of each table of accounts in one schema that the reading service may read, it sees the rows of the accounts that the
-- transaction names in ledger.account: ids with spaces between them, or * for all. A transaction that names none sees
-- none. Everybody else with a right to the table sees all of it, so that no plan of a writer has another condition.
-- A setting is read once a statement, as a sub-select. Runs again and again; changes what is not so yet.
do $$
declare
    found     record;
    everybody text;
    policy    text;
    unchanged boolean;
begin
    if not exists (select from pg_roles where rolname = 'ledger_query_api') then
        return;
    end if;
    for found in
        select format('%I.%I', n.nspname, c.relname) as name, c.oid, c.relowner, c.relforcerowsecurity
          from pg_class as c
          join pg_namespace as n on n.oid = c.relnamespace
         where n.nspname = '{schema}'
           and c.relkind in ('r', 'p')
           and exists (select from pg_attribute as a
                       where a.attrelid = c.oid and a.attname = 'account_id' and not a.attisdropped)
           and has_any_column_privilege('ledger_query_api', c.oid, 'select')
    loop
        select string_agg(quote_ident(rolname), ', ' order by rolname)
          into everybody
          from pg_roles
         where oid = found.relowner
            or rolname in ('ledger_command_api', 'ledger_projector', 'ledger_alert_worker');
        select count(*) = 1
          into unchanged
          from pg_policy as p
         where p.polrelid = found.oid
           and p.polname = 'every_account'
           and everybody = (select string_agg(quote_ident(rolname), ', ' order by rolname)
                              from pg_roles where oid = any (p.polroles));
        if unchanged and found.relforcerowsecurity then
            continue;
        end if;
        execute format('alter table %s enable row level security, force row level security', found.name);
        for policy in
            select polname from pg_policy
             where polrelid = found.oid and polname in ('every_account', 'named_accounts')
        loop
            execute format('drop policy %I on %s', policy, found.name);
        end loop;
        execute format('create policy every_account on %s to %s using (true) with check (true)',
                       found.name, everybody);
        execute format($policy$
            create policy named_accounts on %s for select to ledger_query_api
                using ((select current_setting('ledger.account', true)) = '*'
                       or account_id = any ((select string_to_array(current_setting('ledger.account', true), ' '))::text[]))
        $policy$, found.name);
    end loop;
end
$$

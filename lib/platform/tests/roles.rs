//! Roles: what each service's login can and can't do, as attempts in SQL by that login itself.

use anyhow::{Context, Result, ensure};
use ledger_core::value::id::AccountId;
use local_stack::TestSpace;
use platform::pg::{self, Login, Model, Password, PgConnection, PgPool, Purpose, Role, Schema, Scope};
use sqlx::{AssertSqlSafe, Row};

local_stack::shared_test_stack!();

const PASSWORD: &str = "a-password-of-tests";
const BALANCES: Schema = Schema { model: Model::ReadModel, generation: 1 };
/// SQLSTATE of a statement that the login has no right to.
const NO_RIGHT: &str = "42501";

/// SQLSTATE of a statement that would write in a transaction that only reads.
const READ_ONLY: &str = "25006";

/// A migrated database with both models, and rows of two accounts; dropped with the space.
struct Database {
    owner: PgPool,
    space: TestSpace,
}

impl Database {
    async fn new() -> Result<Database> {
        let space = TestSpace::new().await?;
        let owner = pg::connect(&space.database_url, "test", 2).await?;
        let password = Password::new(PASSWORD).map_err(anyhow::Error::msg)?;
        for role in Role::ALL {
            // Tests run side by side and roles belong to the server: one of two that make it at once tries again.
            while pg::make_login(&owner, role, &password).await.is_err() {}
        }
        pg::migrate(&owner).await?;
        for model in [Model::ReadModel, Model::Alerting] {
            pg::ensure_generation(&owner, model).await?;
        }
        sqlx::raw_sql(ROWS).execute(&owner).await?;
        Ok(Database { owner, space })
    }

    /// Returns the owner's address with another login.
    fn url(&self, role: Role) -> Result<String> {
        let (_, rest) = self.space.database_url.split_once('@').context("a login")?;
        Ok(format!("postgres://{}:{PASSWORD}@{rest}", role.name()))
    }

    async fn login(&self, purpose: Purpose, role: Role) -> Result<PgPool> {
        // One connection, so that what a session sets stays for what it tries next.
        Ok(pg::connect_for(purpose, &self.url(role)?, "test", 1).await?)
    }
}

const ROWS: &str = "
insert into control.api_key (key_id, hash, role, accounts, name, created_at, created_by)
values ('k', sha256('secret'), 'operator', '{}', '', now(), 'cli');
insert into control.contacts (account_id, admins, users, updated_at)
values ('acme', '[]', '[]', now()), ('other', '[]', '[]', now());
insert into control.gate (account_id) values ('acme'), ('other');
insert into control.payment_customer
values ('acme', 'cus_1', 'op', now()), ('other', 'cus_2', 'op', now());
insert into control.checkout (reference, account_id, amount, charged, currency, created_at)
select account, account, 1, 1, 'usd', now() from unnest(array['acme', 'other']) as account;
insert into control.payment_effect (payment_id, event_id, account_id, kind, amount, state, created_at)
select account, '', account, 'paid', 1, 'parked', now() from unnest(array['acme', 'other']) as account;
insert into control.referrer values ('acme', 1, 1, 1, 1), ('other', 1, 1, 1, 1);
insert into delivery.notification (account_id, notification_id, firing_id, kind, channel, recipient, subject, text,
                                   status, attempts, next_attempt_at, created_at)
select account, account, gen_random_uuid(), 'k', 'email', 'ana', 's', 't', 'pending', 0, now(), now()
  from unnest(array['acme', 'other']) as account;
insert into read_model_1.checkpoint (partition, next_offset, fold_version, log_id)
values (0, 9, 1, gen_random_uuid());
insert into read_model_1.account (account_id, partition, \"offset\", events, ledger_time, clock, opened_at, core)
values ('acme', 0, 1, 1, now(), 'live', now(), '{}'), ('other', 0, 1, 1, now(), 'live', now(), '{}');
insert into read_model_1.period
select account, 0, now(), now(), 1, 1, 1, 1, 1 from unnest(array['acme', 'other']) as account;
insert into read_model_1.dead_letter (partition, \"offset\", appended_at, reason, value)
values (0, 8, now(), 'r', 'of acme');
insert into read_model_1.halted values ('acme', 0, 'failed', 'r', false), ('other', 0, 'failed', 'r', false);
insert into alerting_1.halted values ('acme', 0, 'failed', 'r', false), ('other', 0, 'failed', 'r', false);
insert into read_model_1.parked
select account, 0, 3, now(), 'r', 'k', 'v' from unnest(array['acme', 'other']) as account;
insert into alerting_1.account (account_id, partition, \"offset\", ledger_time, core, watch)
values ('acme', 0, 1, now(), '{}', '{}'), ('other', 0, 1, now(), '{}', '{}');
";

/// What no service may do.
const NOBODYS: [&str; 17] = [
    "drop table read_model_1.account",
    "drop schema control cascade",
    "truncate read_model_1.account",
    "alter table read_model_1.account disable row level security",
    "alter table read_model_1.account no force row level security",
    "drop policy named_accounts on read_model_1.account",
    "create schema mine",
    "create table control.mine ()",
    "create role mine",
    "alter table control.api_key owner to current_user",
    "alter role ledger_query_api superuser",
    "alter system set fsync = off",
    "copy (select 1) to program 'true'",
    "select pg_read_file('/etc/passwd')",
    "select rolpassword from pg_authid",
    "update control.generation set live = 2",
    "delete from control.migration",
];

/// What one service may not do, besides.
const fn forbidden(role: Role) -> &'static [&'static str] {
    match role {
        Role::CommandApi => &[
            "update read_model_1.account set core = '{\"settled\":\"1000000\"}'",
            "insert into read_model_1.period select * from read_model_1.period",
            "update read_model_1.checkpoint set next_offset = 0",
            "select * from alerting_1.account",
            "delete from control.api_key",
            "update control.rate_card set body = '{}'",
            "select * from control.top_up",
            "update control.top_up set amount = 1000000",
            "insert into control.top_up_refusal select * from control.top_up_refusal",
            "update read_model_1.halted set resume = true",
            "select * from read_model_1.dead_letter",
            "select text from delivery.notification",
            "update delivery.notification set notification_id = 'mine'",
            "delete from delivery.notification",
            "update delivery.notification set account_id = 'mine'",
            "select * from delivery.outbox",
        ],
        Role::Projector => &[
            "select hash from control.api_key",
            "select * from control.contacts",
            "select * from control.outbox",
            "update control.gate set held = 0",
            "select * from alerting_1.account",
            "insert into control.api_key select * from control.api_key",
            "update control.payment_customer set customer_id = 'cus_mine'",
            "select * from control.payment_effect",
            "select * from delivery.notification",
        ],
        Role::AlertWorker => &[
            "select hash from control.api_key",
            "update read_model_1.account set core = '{}'",
            "delete from read_model_1.period",
            "update control.contacts set webhook_url = null",
            "select * from control.idempotency",
            "update control.gate set held = 0",
            "select * from control.promo_code",
            "update control.payment_customer set customer_id = 'cus_mine'",
            "update control.payment_effect set state = 'decided'",
            "update read_model_1.halted set resume = true",
            "select * from read_model_1.dead_letter",
        ],
        Role::QueryApi => &[
            "update read_model_1.account set core = '{}'",
            "delete from alerting_1.account",
            "insert into control.gate (account_id) values ('mine')",
            "update control.api_key set role = 'operator'",
            "select webhook_secret from control.contacts",
            "select address from delivery.notification",
            "select * from control.outbox",
            "select * from control.idempotency",
            "select * from control.invitation",
            "select * from control.checkout",
            "select * from control.payment_effect",
            "update control.payment_customer set customer_id = 'cus_mine'",
            "update read_model_1.halted set resume = true",
            "select * from read_model_1.dead_letter",
        ],
    }
}

/// What each service does all the time.
const fn allowed(role: Role) -> &'static [&'static str] {
    match role {
        Role::CommandApi => &[
            "select hash from control.api_key",
            "update control.gate set held = 1 where account_id = 'acme'",
            "select core from read_model_1.account",
            "delete from control.payment_customer where account_id = 'other'",
            "delete from control.payment_effect where account_id = 'other'",
            "update delivery.notification set address = null, text = '' where account_id = 'other' and recipient = 'ana'",
        ],
        Role::Projector => &[
            "update read_model_1.account set events = 2",
            "delete from read_model_1.period where account_id = 'other'",
            "select live from control.generation",
        ],
        Role::AlertWorker => &[
            "update alerting_1.account set \"offset\" = 2",
            "select webhook_secret from control.contacts",
            "delete from delivery.notification where account_id = 'other'",
            "select core from read_model_1.account",
        ],
        Role::QueryApi => &["select hash from control.api_key", "select text from delivery.notification"],
    }
}

#[tokio::test]
async fn what_a_service_may_not_postgres_refuses() -> Result<()> {
    let database = Database::new().await?;
    let owner = Login::of(&database.owner).await?;
    ensure!(owner.owns && owner.role().is_none(), "{owner:?}");
    for role in Role::ALL {
        let pool = database.login(Purpose::Requests, role).await?;
        let login = Login::of(&pool).await?;
        ensure!(!login.owns && login.role() == Some(role), "{login:?}");
        let become_owner =
            [format!("set role {}", owner.name), format!("set session authorization {}", owner.name)];
        let others = NOBODYS.iter().chain(forbidden(role)).map(|attempt| (*attempt).to_owned());
        for attempt in others.chain(become_owner) {
            let error = sqlx::raw_sql(AssertSqlSafe(attempt.clone())).execute(&pool).await.err();
            let code = error.as_ref().and_then(|error| error.as_database_error()?.code());
            ensure!(code.as_deref() == Some(NO_RIGHT), "{}: {attempt}: {error:?}", role.name());
        }
        // Nobody else lies beneath: a reset leads back to the same login.
        sqlx::raw_sql("reset role; reset session authorization").execute(&pool).await?;
        ensure!(Login::of(&pool).await? == login);
        for work in allowed(role) {
            let done = sqlx::raw_sql(*work).execute(&pool).await;
            done.with_context(|| format!("{}: {work}", role.name()))?;
        }
        pool.close().await;
    }
    Ok(())
}

/// The tables that the reading service sees and that have rows of two accounts here.
const OF_ACCOUNTS: [&str; 10] = [
    "read_model_1.account",
    "read_model_1.period",
    "read_model_1.halted",
    "read_model_1.parked",
    "alerting_1.account",
    "alerting_1.halted",
    "control.gate",
    "control.referrer",
    "control.payment_customer",
    "delivery.notification",
];

#[tokio::test]
async fn a_read_sees_the_rows_of_its_own_accounts_whatever_it_asks_for() -> Result<()> {
    let database = Database::new().await?;
    let pool = database.login(Purpose::Reads, Role::QueryApi).await?;
    let acme = AccountId::new("acme")?;
    let other = AccountId::new("other")?;
    let cases = [
        (Some(Scope::Account(acme.clone())), vec!["acme"]),
        (Some(Scope::Accounts(vec![other.clone(), acme])), vec!["acme", "other"]),
        (Some(Scope::Accounts(Vec::new())), vec![]),
        (Some(Scope::All), vec!["acme", "other"]),
        // A read that nobody has thought about, also after others on the same connection.
        (None, vec![]),
    ];
    for (scope, expected) in cases {
        for table in OF_ACCOUNTS {
            let seen = match &scope {
                Some(scope) => {
                    pg::read_of(&pool, BALANCES, scope, |connection| Box::pin(accounts(connection, table)))
                        .await?
                }
                None => pg::read(&pool, BALANCES, |connection| Box::pin(accounts(connection, table))).await?,
            };
            ensure!(seen == expected, "{table} for {scope:?}: {seen:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_table_of_accounts_that_the_reading_service_sees_is_secured() -> Result<()> {
    let database = Database::new().await?;
    let seen: Vec<(String, bool, bool)> = sqlx::query_as(
        "select format('%s.%s', nspname, relname), relrowsecurity and relforcerowsecurity,
                exists (select from pg_attribute where attrelid = c.oid and attname = 'account_id')
           from pg_class as c join pg_namespace as n on n.oid = relnamespace
          where nspname in ('control', 'delivery', 'read_model_1', 'alerting_1')
            and relkind not in ('i', 'S', 't')
            and has_any_column_privilege('ledger_query_api', c.oid, 'select')
          order by 1",
    )
    .fetch_all(&database.owner)
    .await?;
    ensure!(seen.len() > 25, "{seen:?}");
    let of_nobody: Vec<&str> =
        seen.iter().filter(|(.., of_accounts)| !of_accounts).map(|(table, ..)| table.as_str()).collect();
    // What everybody may know, the audit log, which names no account, and keys, which are found by their ids.
    let expected = [
        "alerting_1.checkpoint",
        "control.api_key",
        "control.generation",
        "control.log_checkpoint",
        "control.log_identity",
        "control.log_key",
        "control.log_origin",
        "control.migration",
        "control.rate_card",
        "read_model_1.checkpoint",
        "read_model_1.log_size",
        "read_model_1.log_tail",
        "read_model_1.log_tile",
    ];
    ensure!(of_nobody == expected, "whose rows are in {of_nobody:?}? say so by a column account_id");
    for (table, secured, of_accounts) in &seen {
        ensure!(secured == of_accounts, "{table}: secured {secured}, of accounts {of_accounts}");
    }
    Ok(())
}

/// What somebody would try who can put SQL of his own into a read of acme: each asks for others' rows.
const ATTACKS: [&str; 7] = [
    "select account_id from account where account_id = 'other'",
    "select account_id from account where account_id = 'acme' or true",
    "select account_id from period where account_id = 'acme' union all select account_id from alerting_1.account",
    "select account_id from (select * from control.payment_customer for share) as c where false
     union all select account_id from control.gate",
    "with recursive all_of as (select min(account_id) as account_id from account
                               union all
                               select (select min(account_id) from account as a where a.account_id > all_of.account_id)
                                 from all_of where all_of.account_id is not null)
     select account_id from all_of where account_id is not null",
    "select c from unnest((select array_agg(account_id) from delivery.notification)) as c",
    "select unnest(most_common_vals::text::text[]) from pg_stats where attname = 'account_id'",
];

#[tokio::test]
async fn sql_slipped_into_one_accounts_read_finds_nothing_of_others() -> Result<()> {
    let database = Database::new().await?;
    sqlx::raw_sql("analyze").execute(&database.owner).await?;
    let pool = database.login(Purpose::Reads, Role::QueryApi).await?;
    let acme = Scope::Account(AccountId::new("acme")?);
    for attack in ATTACKS {
        let found: Result<Vec<String>, sqlx::Error> =
            pg::read_of(&pool, BALANCES, &acme, move |connection| {
                Box::pin(async move { sqlx::query_scalar(attack).fetch_all(connection).await })
            })
            .await;
        match found {
            Ok(found) => ensure!(found.iter().all(|account| account == "acme"), "{attack}: {found:?}"),
            Err(error) => {
                let code = error.as_database_error().and_then(|error| error.code());
                ensure!(matches!(code.as_deref(), Some(NO_RIGHT | READ_ONLY)), "{attack}: {error}");
            }
        }
    }
    Ok(())
}

/// Asks for everybody's rows.
async fn accounts(connection: &mut PgConnection, table: &str) -> Result<Vec<String>, sqlx::Error> {
    let all = format!("select account_id from {table} order by 1");
    sqlx::query_scalar(AssertSqlSafe(all)).fetch_all(connection).await
}

#[tokio::test]
async fn a_page_is_found_by_its_key_as_without_row_security() -> Result<()> {
    let database = Database::new().await?;
    sqlx::raw_sql(
        "insert into read_model_1.user_usage
         select account, 0, 'u' || n, '', 1, 1
           from unnest(array['acme', 'other']) as account, generate_series(1, 20000) as n;
         insert into read_model_1.user_total
         select account_id, period_index, user_id, used, events from read_model_1.user_usage;
         analyze read_model_1.user_usage, read_model_1.user_total",
    )
    .execute(&database.owner)
    .await?;
    let pool = database.login(Purpose::Reads, Role::QueryApi).await?;
    for (page, range) in [
        (
            "select * from user_usage
              where account_id = 'acme' and period_index = 0 and user_id > 'u5'
              order by account_id, period_index, user_id
              limit 10",
            "user_id > 'u5'",
        ),
        (
            "select user_id, used from user_total
              where account_id = 'acme' and period_index = 0 and (rank, user_id) > (-101000000000000000, 'u5')
              order by account_id, period_index, rank, user_id
              limit 10",
            "ROW(rank, user_id) > ROW",
        ),
    ] {
        let plan = plan_of(&pool, page).await?;
        let by_key = plan.lines().find(|line| line.contains("Index Cond")).context(plan.clone())?;
        ensure!(by_key.contains(range), "{plan}");
        ensure!(!plan.contains("Sort"), "{plan}");
        // The setting is read once, and not for each row.
        ensure!(plan.contains("InitPlan"), "{plan}");
    }
    Ok(())
}

/// Returns the plan of a query on acme.
async fn plan_of(pool: &PgPool, query: &'static str) -> Result<String> {
    pg::read_of(pool, BALANCES, &Scope::Account(AccountId::new("acme")?), move |connection| {
        Box::pin(async move {
            let explain = format!("explain (analyze, costs off) {query}");
            let lines = sqlx::query(AssertSqlSafe(explain)).fetch_all(connection).await?;
            let lines: Result<Vec<String>, sqlx::Error> = lines.iter().map(|line| line.try_get(0)).collect();
            Ok::<_, sqlx::Error>(lines?.join("\n"))
        })
    })
    .await
    .map_err(anyhow::Error::from)
}

#[tokio::test]
async fn a_later_generation_has_the_same_rights() -> Result<()> {
    let database = Database::new().await?;
    for model in [Model::ReadModel, Model::Alerting] {
        pg::create_generation(&database.owner, Schema { model, generation: 2 }).await?;
    }
    let rights =
        "select string_agg(format('%s %s %s', relname, relacl, relforcerowsecurity), e'\\n' order by relname)
                    from pg_class join pg_namespace as n on n.oid = relnamespace
                   where nspname = $1 and relkind = 'r'";
    let of = async |schema: &str| -> Result<String> {
        Ok(sqlx::query_scalar(rights).bind(schema).fetch_one(&database.owner).await?)
    };
    for model in ["read_model", "alerting"] {
        let (first, second) = (of(&format!("{model}_1")).await?, of(&format!("{model}_2")).await?);
        ensure!(first == second, "{first}\n{second}");
        ensure!(first.contains("ledger_query_api"), "{first}");
    }
    Ok(())
}

/// Tables that are for the owner's commands alone.
const OWNERS_ALONE: [&str; 0] = [];

#[tokio::test]
async fn every_table_is_somebodys() -> Result<()> {
    let database = Database::new().await?;
    let granted: Vec<(String, bool)> = sqlx::query_as(
        "select format('%s.%s', nspname, relname),
                exists (select from unnest($1::text[]) as role
                        where has_table_privilege(role, c.oid, 'insert, update, delete')
                           or nspname || relname in ('controlgeneration', 'controlmigration'))
           from pg_class as c join pg_namespace as n on n.oid = relnamespace
          where nspname in ('control', 'delivery') and relkind in ('r', 'p')",
    )
    .bind(Role::ALL.map(|role| role.name().to_owned()).to_vec())
    .fetch_all(&database.owner)
    .await?;
    ensure!(granted.len() > 15, "{granted:?}");
    for (table, written) in granted {
        ensure!(
            written || OWNERS_ALONE.contains(&table.as_str()),
            "no service may write {table}: say in lib/platform/src/pg/rights who does, or here that nobody does"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_service_with_its_own_login_checks_what_its_owner_has_migrated() -> Result<()> {
    let database = Database::new().await?;
    let pool = database.login(Purpose::Consume, Role::Projector).await?;
    pg::migrate_or_check(&pool).await?;
    ensure!(pg::ensure_generation(&pool, Model::ReadModel).await? == BALANCES);
    let newest = "delete from control.migration
                  where schema = 'read_model_1'
                    and name = (select max(name) from control.migration where schema = 'read_model_1')
                  returning name";
    let name: String = sqlx::query_scalar(newest).fetch_one(&database.owner).await?;
    let error = pg::migrate_or_check(&pool).await.expect_err("one is missing").to_string();
    ensure!(error.contains(&format!("lacks migration read_model_1/{name}")), "{error}");
    ensure!(error.contains("ledger migrate"), "{error}");
    sqlx::raw_sql("drop schema control cascade").execute(&database.owner).await?;
    let error = pg::migrate_or_check(&pool).await.expect_err("no tables").to_string();
    ensure!(error.contains("no tables yet"), "{error}");
    Ok(())
}

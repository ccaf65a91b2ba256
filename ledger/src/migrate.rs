//! Migrate: makes the tables as their owner, and the rights of the services' logins.
//!
//! A service with a login of its own never migrates: it checks at its start that this command has run.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use clap::Args;
use platform::pg::{self, Login, Model, Password, PgPool, Role};
use tokio::time::{Duration, sleep};

use crate::connection::Connection;

/// Two servers' worth of migrations may make the same roles at the same time; one of them has to try again.
const ATTEMPTS_MAX: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// What to migrate.
#[derive(Debug, Clone, Args)]
pub struct Migrate {
    /// The owner's address of the ledger's Postgres, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The local stack, where no Postgres is named.
    #[command(flatten)]
    pub connection: Connection,
    /// Makes the logins of the services too, or sets their passwords; the owner must be allowed to make roles
    #[arg(long)]
    pub roles: bool,
    #[command(flatten)]
    pub passwords: Passwords,
}

/// The passwords of the services' logins: 16 or more printable ASCII characters each.
#[derive(Debug, Clone, Default, Args)]
pub struct Passwords {
    /// Password of ledger_command_api, for --roles
    #[arg(long, env = "LEDGER_COMMAND_API_PASSWORD", hide_env_values = true)]
    pub command_api_password: Option<String>,
    /// Password of ledger_projector, for --roles
    #[arg(long, env = "LEDGER_PROJECTOR_PASSWORD", hide_env_values = true)]
    pub projector_password: Option<String>,
    /// Password of ledger_alert_worker, for --roles
    #[arg(long, env = "LEDGER_ALERT_WORKER_PASSWORD", hide_env_values = true)]
    pub alert_worker_password: Option<String>,
    /// Password of ledger_query_api, for --roles
    #[arg(long, env = "LEDGER_QUERY_API_PASSWORD", hide_env_values = true)]
    pub query_api_password: Option<String>,
}

impl Passwords {
    /// Returns the password of a login. Errors: a sentence with the name of its variable.
    fn of(&self, role: Role) -> Result<Password> {
        let (given, variable) = match role {
            Role::CommandApi => (&self.command_api_password, "LEDGER_COMMAND_API_PASSWORD"),
            Role::Projector => (&self.projector_password, "LEDGER_PROJECTOR_PASSWORD"),
            Role::AlertWorker => (&self.alert_worker_password, "LEDGER_ALERT_WORKER_PASSWORD"),
            Role::QueryApi => (&self.query_api_password, "LEDGER_QUERY_API_PASSWORD"),
        };
        let text = given.as_deref().filter(|text| !text.is_empty());
        let text = text.with_context(|| format!("--roles needs {variable}"))?;
        Password::new(text).map_err(|why| anyhow::anyhow!("{variable} {why}"))
    }
}

/// Migrates, and reports what holds then.
pub async fn run(arguments: &Migrate, out: &mut impl Write) -> Result<()> {
    let passwords = match arguments.roles {
        true => Role::ALL.map(|role| arguments.passwords.of(role).map(|password| (role, password))).into(),
        false => Vec::new(),
    };
    let passwords = passwords.into_iter().collect::<Result<Vec<_>>>()?;
    let url = arguments.connection.database_url(arguments.database_url.as_deref())?;
    let pool = pg::connect(&url, "ledger migrate", 1).await.context("the database can't be reached")?;
    let login = Login::of(&pool).await?;
    ensure!(login.owns, "{} does not own the tables: migrate with the owner's DATABASE_URL", login.name);
    for (role, password) in &passwords {
        make_login(&pool, *role, password).await?;
    }
    pg::migrate(&pool).await?;
    for model in [Model::ReadModel, Model::Alerting] {
        let live = pg::ensure_generation(&pool, model).await?;
        writeln!(out, "{live} is live, and all tables are as new as this program")?;
    }
    for role in pg::existing_roles(&pool).await? {
        writeln!(out, "{} has the rights of {}", role.name(), role.service())?;
    }
    pool.close().await;
    Ok(())
}

/// Roles belong to the whole server, and no lock of one database keeps another one's migration away.
async fn make_login(pool: &PgPool, role: Role, password: &Password) -> Result<()> {
    for _ in 1..ATTEMPTS_MAX {
        match pg::make_login(pool, role, password).await {
            Err(pg::Error::Database(_)) => sleep(TRY_AGAIN).await,
            made => return Ok(made?),
        }
    }
    pg::make_login(pool, role, password).await.with_context(|| format!("{} can't be made", role.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_is_missing_or_weak_is_named_by_its_variable() {
        let weak = Passwords { projector_password: Some("short".to_owned()), ..Passwords::default() };
        let check = |role, word: &str| {
            let sentence = weak.of(role).expect_err(word).to_string();
            assert!(sentence.contains(word), "{sentence}");
        };
        check(Role::QueryApi, "needs LEDGER_QUERY_API_PASSWORD");
        check(Role::Projector, "LEDGER_PROJECTOR_PASSWORD must be 16");
    }
}

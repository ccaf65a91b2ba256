//! Logins: one a service, as production has them.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use ledger::connection::Connection;
use ledger::migrate::{self, Migrate, Passwords};
use platform::pg::Role;
use tokio::sync::OnceCell;
use url::Url;

/// Roles belong to the whole server and tests share it, so all of them set the same.
const PASSWORD: &str = "a-password-of-tests";

/// Migrates an owner's database as `ledger migrate` does; the first call of a process makes the logins too.
pub async fn make(owner_url: &str) -> Result<()> {
    static MADE: OnceCell<()> = OnceCell::const_new();
    MADE.get_or_try_init(|| run(owner_url, true)).await?;
    run(owner_url, false).await
}

async fn run(owner_url: &str, roles: bool) -> Result<()> {
    let password = Some(PASSWORD.to_owned());
    let arguments = Migrate {
        database_url: Some(owner_url.to_owned()),
        connection: Connection { data_dir: PathBuf::new() },
        roles,
        passwords: Passwords {
            command_api_password: password.clone(),
            projector_password: password.clone(),
            alert_worker_password: password.clone(),
            query_api_password: password,
        },
    };
    migrate::run(&arguments, &mut std::io::sink()).await
}

/// Returns the owner's URL with a service's login in it.
pub fn url(owner_url: &str, role: Role) -> Result<String> {
    let mut url = Url::parse(owner_url)?;
    let refused = |()| anyhow!("{owner_url} takes no login");
    url.set_username(role.name()).map_err(refused)?;
    url.set_password(Some(PASSWORD)).map_err(refused)?;
    Ok(url.into())
}

//! Login: whether this process came as the owner of the tables or by a login that only uses them.

use sqlx::PgPool;

use super::role::Role;

/// By whom a pool's connections are logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub name: String,
    /// It may make and change tables.
    pub owns: bool,
}

impl Login {
    /// Asks the database who it takes this process for.
    pub async fn of(pool: &PgPool) -> Result<Login, sqlx::Error> {
        let (name, owns) = sqlx::query_as(
            "select current_user::text,
                    coalesce((select pg_has_role(nspowner, 'usage') from pg_namespace where nspname = 'control'),
                             has_database_privilege(current_database(), 'create'))",
        )
        .fetch_one(pool)
        .await?;
        Ok(Login { name, owns })
    }

    /// Returns the service whose own login it is.
    pub fn role(&self) -> Option<Role> {
        Role::by_name(&self.name)
    }
}

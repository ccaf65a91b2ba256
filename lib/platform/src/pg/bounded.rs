//! Single statements on a pool with an end on this side of the line.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryFutureExt, TryStreamExt, stream};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, PgPool, Postgres, SqlStr};
use tokio::time::timeout;

use super::error::silence;

/// Longer than the server lets a statement of a request that writes take.
const STATEMENT_MAX: Duration = Duration::from_secs(20);

/// Runs each statement on a connection of the pool; see [`bounded`].
#[derive(Debug, Clone, Copy)]
pub struct Bounded<'p>(&'p PgPool);

/// Runs single statements as the pool itself does, and gives up on a server that does not answer: the connection is
/// closed then, for nobody knows what is still to come on it.
pub fn bounded(pool: &PgPool) -> Bounded<'_> {
    Bounded(pool)
}

impl<'p> Executor<'p> for Bounded<'p> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.0.clone();
        let all = async move {
            let mut connection = pool.acquire().await?;
            let answering = (&mut *connection).fetch_many(query).try_collect::<Vec<_>>();
            if let Ok(answered) = timeout(STATEMENT_MAX, answering).await {
                return answered;
            }
            drop(connection.detach());
            Err(silence(STATEMENT_MAX))
        };
        all.map_ok(|rows| stream::iter(rows.into_iter().map(Ok))).try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.0.clone();
        Box::pin(async move {
            let mut connection = pool.acquire().await?;
            if let Ok(answered) = timeout(STATEMENT_MAX, (&mut *connection).fetch_optional(query)).await {
                return answered;
            }
            drop(connection.detach());
            Err(silence(STATEMENT_MAX))
        })
    }

    // No statement of ours is prepared or described apart from being run: these two are the pool's own.

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'p: 'e,
    {
        self.0.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'p: 'e,
    {
        self.0.describe(sql)
    }
}

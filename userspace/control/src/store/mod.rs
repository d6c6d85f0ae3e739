//! Where the state is kept: one trait, so that SQLite now and PostgreSQL later are the same to everything above.
//!
//! A store loads everything once and then only commits: each call is one transaction, durable when it returns. What to
//! write was decided on the state in memory; a store shared by several servers notices when that was stale
//! ([`StoreError::Conflict`]), and the caller decides again.

mod row;
mod sqlite;

use std::path::PathBuf;

use control_core::record::{Record, Records};

pub(crate) use sqlite::SqliteStore;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database was written by a newer server.
    #[error(
        "the state {path} was written by a newer underpass (schema {version}); \
         start that version again, or restore a backup made before it"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// The newest schema in it.
        version: i64,
    },
    /// What was decided on is no longer so: another server changed it first.
    #[error("the state has changed meanwhile")]
    Conflict,
    /// A row cannot be read.
    #[error("the state is damaged: {table} {id}: {reason}; restore a backup")]
    Damaged {
        /// Which table.
        table: &'static str,
        /// Which row.
        id: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// The database itself failed.
    #[error("the state {path} cannot be used: {source}")]
    Database {
        /// The database.
        path: PathBuf,
        /// What it said.
        source: sqlx::Error,
    },
}

/// Keeps users, keys and nodes.
pub(crate) trait Store: Send + 'static {
    /// Everything there is.
    fn load(&mut self) -> impl Future<Output = Result<Records, StoreError>> + Send;

    /// Writes all records or none; durable when it returns.
    fn commit(&mut self, records: &[Record]) -> impl Future<Output = Result<(), StoreError>> + Send;
}

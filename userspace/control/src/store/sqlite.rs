//! The store in one SQLite file beside the server: write-ahead log, every commit synced, so that it survives SIGKILL and
//! a power cut at any moment.
//!
//! One connection, owned by the coordinator. Before a migration changes an existing file, a copy is made beside it.

use std::path::{Path, PathBuf};

use control_core::model::{AuthKey, KeyId, Node, User};
use control_core::record::{Record, Records};
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor, Row as _, SqliteConnection};
use types::NodeId;

use super::row::Row;
use super::{Store, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Where sqlx notes which migrations were applied.
const APPLIED: &str = "_sqlx_migrations";

/// The open file.
pub(crate) struct SqliteStore {
    path: PathBuf,
    connection: SqliteConnection,
}

impl SqliteStore {
    /// Opens the file, makes it when absent, and brings its schema up to date.
    ///
    /// # Errors
    /// When it cannot be opened, is no database, or was written by a newer server.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .disable_statement_logging();
        let database = |source| StoreError::Database { path: path.to_owned(), source };
        let connection = options.connect().await.map_err(database)?;
        let mut store = Self { path: path.to_owned(), connection };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&mut self) -> Result<(), StoreError> {
        let wrong = |path: &Path, error| match error {
            MigrateError::VersionMissing(version) => StoreError::Newer { path: path.to_owned(), version },
            MigrateError::Execute(source) => StoreError::Database { path: path.to_owned(), source },
            other => {
                StoreError::Database { path: path.to_owned(), source: sqlx::Error::Migrate(Box::new(other)) }
            }
        };
        self.connection.ensure_migrations_table(APPLIED).await.map_err(|error| wrong(&self.path, error))?;
        let applied = self
            .connection
            .list_applied_migrations(APPLIED)
            .await
            .map_err(|error| wrong(&self.path, error))?;
        let newest = applied.iter().map(|migration| migration.version).max();
        if let Some(version) = newest.filter(|version| !MIGRATIONS.version_exists(*version)) {
            return Err(StoreError::Newer { path: self.path.clone(), version });
        }
        let pending = MIGRATIONS.iter().any(|migration| Some(migration.version) > newest);
        if let Some(version) = newest.filter(|_| pending) {
            self.back_up(version).await?;
        }
        // `run` would do, but its future is not `Send` for every lifetime (rust-lang/rust#100013).
        MIGRATIONS
            .run_direct(None, &mut self.connection, false)
            .await
            .map_err(|error| wrong(&self.path, error))
    }

    /// A whole copy of the file as it is, beside it; an older copy of the same schema is kept.
    async fn back_up(&mut self, version: i64) -> Result<(), StoreError> {
        let copy = self.path.with_extension(format!("schema-{version}.backup"));
        if !copy.exists() {
            let copy = copy.to_string_lossy().into_owned();
            let done = sqlx::query("VACUUM INTO ?").bind(copy).execute(&mut self.connection).await;
            done.map_err(|source| StoreError::Database { path: self.path.clone(), source })?;
        }
        Ok(())
    }

    async fn rows(&mut self, table: &'static str, query: &'static str) -> Result<Vec<Row>, StoreError> {
        let rows = sqlx::query(query).fetch_all(&mut self.connection).await;
        let rows = rows.map_err(|source| StoreError::Database { path: self.path.clone(), source })?;
        Ok(rows.into_iter().map(|row| Row::new(table, row)).collect())
    }

    /// The highest numbers ever given, in the order of [`Records::highest`].
    async fn highest(&mut self) -> Result<[i64; 3], sqlx::Error> {
        let rows =
            sqlx::query("SELECT name, seq FROM sqlite_sequence").fetch_all(&mut self.connection).await?;
        let mut highest = [0; 3];
        for row in rows {
            let place = match row.try_get("name")? {
                "users" => 0,
                "auth_keys" => 1,
                "nodes" => 2,
                _ => continue,
            };
            highest[place] = row.try_get("seq")?;
        }
        Ok(highest)
    }
}

impl Store for SqliteStore {
    async fn load(&mut self) -> Result<Records, StoreError> {
        let users = self.rows("users", "SELECT * FROM users ORDER BY id").await?;
        let keys = self.rows("auth_keys", "SELECT * FROM auth_keys ORDER BY id").await?;
        let nodes = self.rows("nodes", "SELECT * FROM nodes ORDER BY id").await?;
        let path = self.path.clone();
        let highest = self.highest().await.map_err(|source| StoreError::Database { path, source })?;
        Ok(Records {
            users: users.iter().map(Row::user).collect::<Result<_, _>>()?,
            keys: keys.iter().map(Row::auth_key).collect::<Result<_, _>>()?,
            nodes: nodes.iter().map(Row::node).collect::<Result<_, _>>()?,
            highest,
        })
    }

    async fn commit(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let path = &self.path;
        let database = |source| StoreError::Database { path: path.clone(), source };
        let mut transaction = self.connection.begin().await.map_err(database)?;
        for record in records {
            let done = match record {
                Record::User(user) => write_user(&mut transaction, user).await,
                Record::Key(key) => write_key(&mut transaction, key).await,
                Record::SpendKey { id, uses } => match spend(&mut transaction, *id, *uses).await {
                    Ok(true) => Ok(()),
                    Ok(false) => return Err(StoreError::Conflict),
                    Err(error) => Err(error),
                },
                Record::Node(node) => write_node(&mut transaction, node).await,
                Record::DeleteNode(id) => delete_node(&mut transaction, *id).await,
            };
            done.map_err(database)?;
        }
        transaction.commit().await.map_err(database)
    }
}

async fn write_user(connection: &mut SqliteConnection, user: &User) -> Result<(), sqlx::Error> {
    let query = sqlx::query("INSERT INTO users (id, name, created) VALUES (?, ?, ?)")
        .bind(user.id.0)
        .bind(&user.name)
        .bind(user.created.to_string());
    connection.execute(query).await.map(drop)
}

async fn write_key(connection: &mut SqliteConnection, key: &AuthKey) -> Result<(), sqlx::Error> {
    let query = sqlx::query(
        "INSERT INTO auth_keys (id, hash, user_id, tags, ephemeral, uses_limit, uses, created, expires, revoked)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET revoked = excluded.revoked",
    )
    .bind(key.id.0)
    .bind(key.hash.to_vec())
    .bind(key.user.0)
    .bind(json(&key.tags)?)
    .bind(key.ephemeral)
    .bind(key.uses_limit)
    .bind(key.uses)
    .bind(key.created.to_string())
    .bind(key.expires.map(|at| at.to_string()))
    .bind(key.revoked);
    connection.execute(query).await.map(drop)
}

/// Whether the key had the expected number of uses.
async fn spend(connection: &mut SqliteConnection, id: KeyId, uses: u32) -> Result<bool, sqlx::Error> {
    let query =
        sqlx::query("UPDATE auth_keys SET uses = uses + 1 WHERE id = ? AND uses = ?").bind(id.0).bind(uses);
    Ok(connection.execute(query).await?.rows_affected() == 1)
}

async fn write_node(connection: &mut SqliteConnection, node: &Node) -> Result<(), sqlx::Error> {
    let query = sqlx::query(
        "INSERT INTO nodes (id, machine_key, node_key, disco_key, user_id, tags, auth_key, name, named_by_admin,
             ipv4, ipv6, hostinfo, endpoints, cap, created, expires, last_seen, ephemeral, approved_routes)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET
             machine_key = excluded.machine_key, node_key = excluded.node_key, disco_key = excluded.disco_key,
             user_id = excluded.user_id, tags = excluded.tags, auth_key = excluded.auth_key, name = excluded.name,
             named_by_admin = excluded.named_by_admin, ipv4 = excluded.ipv4, ipv6 = excluded.ipv6,
             hostinfo = excluded.hostinfo, endpoints = excluded.endpoints, cap = excluded.cap,
             created = excluded.created, expires = excluded.expires, last_seen = excluded.last_seen,
             ephemeral = excluded.ephemeral, approved_routes = excluded.approved_routes",
    )
    .bind(node.id.0)
    .bind(node.machine_key.to_string())
    .bind(node.node_key.to_string())
    .bind(node.disco_key.to_string())
    .bind(node.user.0)
    .bind(json(&node.tags)?)
    .bind(node.auth_key.map(|key| key.0))
    .bind(&node.name)
    .bind(node.named_by_admin)
    .bind(node.addresses.v4.to_string())
    .bind(node.addresses.v6.to_string())
    .bind(json(&node.hostinfo)?)
    .bind(json(&node.endpoints)?)
    .bind(node.cap.0)
    .bind(node.created.to_string())
    .bind(node.expires.map(|at| at.to_string()))
    .bind(node.last_seen.map(|at| at.to_string()))
    .bind(node.ephemeral)
    .bind(json(&node.approved_routes)?);
    connection.execute(query).await.map(drop)
}

async fn delete_node(connection: &mut SqliteConnection, id: NodeId) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::query("DELETE FROM nodes WHERE id = ?").bind(id.0)).await.map(drop)
}

fn json(value: &impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

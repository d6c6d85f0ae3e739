//! Rows to values: a row that cannot be read is named with its table and number.

use std::str::FromStr;

use control_core::addresses::Addresses;
use control_core::model::{AuthKey, KeyId, Node, User};
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, Row as _, Sqlite, Type};
use types::{CapabilityVersion, NodeId, UserId};

use super::StoreError;

/// A row of one table.
pub(super) struct Row {
    table: &'static str,
    row: SqliteRow,
}

impl Row {
    pub(super) fn new(table: &'static str, row: SqliteRow) -> Self {
        Self { table, row }
    }

    pub(super) fn user(&self) -> Result<User, StoreError> {
        Ok(User { id: UserId(self.get("id")?), name: self.get("name")?, created: self.parse("created")? })
    }

    pub(super) fn auth_key(&self) -> Result<AuthKey, StoreError> {
        let hash: Vec<u8> = self.get("hash")?;
        Ok(AuthKey {
            id: KeyId(self.get("id")?),
            hash: hash.try_into().map_err(|_| self.damaged("hash is not 32 bytes"))?,
            user: UserId(self.get("user_id")?),
            tags: self.json("tags")?,
            ephemeral: self.get("ephemeral")?,
            uses_limit: self.get("uses_limit")?,
            uses: self.get("uses")?,
            created: self.parse("created")?,
            expires: self.parse_optional("expires")?,
            revoked: self.get("revoked")?,
        })
    }

    pub(super) fn node(&self) -> Result<Node, StoreError> {
        Ok(Node {
            id: NodeId(self.get("id")?),
            machine_key: self.parse("machine_key")?,
            node_key: self.parse("node_key")?,
            disco_key: self.parse("disco_key")?,
            user: UserId(self.get("user_id")?),
            tags: self.json("tags")?,
            auth_key: self.get::<Option<i64>>("auth_key")?.map(KeyId),
            name: self.get("name")?,
            named_by_admin: self.get("named_by_admin")?,
            addresses: Addresses { v4: self.parse("ipv4")?, v6: self.parse("ipv6")? },
            hostinfo: self.json("hostinfo")?,
            endpoints: self.json("endpoints")?,
            cap: CapabilityVersion(self.get("cap")?),
            created: self.parse("created")?,
            expires: self.parse_optional("expires")?,
            last_seen: self.parse_optional("last_seen")?,
            ephemeral: self.get("ephemeral")?,
            approved_routes: self.json("approved_routes")?,
        })
    }

    fn get<'r, T>(&'r self, column: &'static str) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite>,
        &'static str: ColumnIndex<SqliteRow>,
    {
        self.row.try_get(column).map_err(|error| self.damaged(error))
    }

    fn parse<T: FromStr<Err: std::fmt::Display>>(&self, column: &'static str) -> Result<T, StoreError> {
        self.get::<&str>(column)?.parse().map_err(|error| self.damaged(format!("{column}: {error}")))
    }

    fn parse_optional<T: FromStr<Err: std::fmt::Display>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let text = self.get::<Option<&str>>(column)?;
        text.map(str::parse).transpose().map_err(|error| self.damaged(format!("{column}: {error}")))
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(self.get(column)?).map_err(|error| self.damaged(format!("{column}: {error}")))
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> StoreError {
        let id = self.row.try_get("id").unwrap_or_default();
        StoreError::Damaged { table: self.table, id, reason: reason.to_string() }
    }
}

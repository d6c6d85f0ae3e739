//! The administrator's verbs, carried out.

use std::time::Duration;

use control_core::admin::{self, KeyWish, Refusal};
use control_core::model::{self, AuthKey, KeyId, Node, User};
use control_core::record::Record;
use control_core::register::{self, Admission, Attempt, Decision};
use jiff::Timestamp;
use serde::Serialize;

use super::{Coordinator, now};
use crate::admin::{
    ApproveNode, ApproveRoutes, CreateKey, CreateUser, CreatedKey, KeyInfo, KeyState, NodeInfo, PendingInfo,
    RenameNode, ServerInfo, UserInfo,
};
use crate::store::Store;

/// What an administrator asks. A node goes by number, name or overlay address.
pub(crate) enum Verb {
    Server,
    Users,
    CreateUser(CreateUser),
    Keys,
    CreateKey(CreateKey),
    RevokeKey(i64),
    Nodes,
    Node(String),
    Pending,
    Approve(String, ApproveNode),
    ApproveRoutes(String, ApproveRoutes),
    Rename(String, RenameNode),
    Expire(String),
    Delete(String),
}

/// What a verb answers. No `Debug`: a new key is a secret.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    Server(ServerInfo),
    Users(Vec<UserInfo>),
    User(UserInfo),
    Keys(Vec<KeyInfo>),
    Key(KeyInfo),
    CreatedKey(CreatedKey),
    Nodes(Vec<NodeInfo>),
    Node(Box<NodeInfo>),
    Pending(Vec<PendingInfo>),
}

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Verb(#[from] Refusal),
    #[error(transparent)]
    Registration(#[from] register::Refusal),
    #[error("the change was not kept: {0}")]
    Store(#[from] crate::store::StoreError),
}

impl<S: Store> Coordinator<S> {
    pub(super) async fn admin(&mut self, verb: Verb) -> Result<Answer, Refused> {
        let now = now().wall;
        let registry = self.network.registry();
        match verb {
            Verb::Server => Ok(Answer::Server(ServerInfo {
                nodes: registry.nodes().count(),
                online: self.network.online_count(),
                ..self.info.clone()
            })),
            Verb::Users => Ok(Answer::Users(registry.users().map(user_info).collect())),
            Verb::CreateUser(wish) => {
                let user = admin::create_user(registry, &wish.name, now)?;
                let info = user_info(&user);
                self.commit(vec![Record::User(user)]).await?;
                Ok(Answer::User(info))
            }
            Verb::Keys => Ok(Answer::Keys(registry.keys().map(|key| self.key_info(key, now)).collect())),
            Verb::CreateKey(wish) => self.create_key(wish, now).await,
            Verb::RevokeKey(id) => {
                let key = admin::revoke_key(registry, KeyId(id))?;
                let info = self.key_info(&key, now);
                self.commit(vec![Record::Key(key)]).await?;
                Ok(Answer::Key(info))
            }
            Verb::Nodes => {
                Ok(Answer::Nodes(registry.nodes().map(|node| self.node_info(node, now)).collect()))
            }
            Verb::Node(name) => Ok(self.node_answer(admin::find_node(registry, &name)?, now)),
            Verb::Pending => {
                self.pendings.expire(now);
                Ok(Answer::Pending(
                    self.pendings.iter().map(|(key, pending)| pending_info(key, pending)).collect(),
                ))
            }
            Verb::Approve(key, wish) => self.approve(&key, &wish, now).await,
            Verb::ApproveRoutes(name, wish) => {
                let record = admin::approve_routes(admin::find_node(registry, &name)?, &wish.routes)?;
                self.change_node(record, now).await
            }
            Verb::Rename(name, wish) => {
                let record = admin::rename(registry, admin::find_node(registry, &name)?, &wish.name)?;
                self.change_node(record, now).await
            }
            Verb::Expire(name) => {
                let node = admin::find_node(registry, &name)?;
                let (record, key) = (admin::expire(node, now), node.node_key);
                let answer = self.change_node(record, now).await?;
                self.relay.disconnect(&key);
                Ok(answer)
            }
            Verb::Delete(name) => {
                let node = admin::find_node(registry, &name)?;
                let (id, key, answer) = (node.id, node.node_key, self.node_answer(node, now));
                self.commit(vec![Record::DeleteNode(id)]).await?;
                self.relay.disconnect(&key);
                Ok(answer)
            }
        }
    }

    async fn create_key(&mut self, wish: CreateKey, now: Timestamp) -> Result<Answer, Refused> {
        let uses_limit = if wish.reusable { wish.uses } else { Some(wish.uses.unwrap_or(1)) };
        let wish = KeyWish {
            user: wish.user,
            tags: wish.tags,
            ephemeral: wish.ephemeral,
            uses_limit,
            lifetime: wish.expires_in.map(Duration::from_secs),
        };
        let (key, text) = admin::create_key(self.network.registry(), &wish, &crate::random(), now)?;
        let info = self.key_info(&key, now);
        self.commit(vec![Record::Key(key)]).await?;
        Ok(Answer::CreatedKey(CreatedKey { key: text, info }))
    }

    /// Lets a waiting machine in; the registration it follows up is answered at once.
    async fn approve(&mut self, key: &str, wish: &ApproveNode, now: Timestamp) -> Result<Answer, Refused> {
        self.pendings.expire(now);
        // The URL is as good as the key at its end: that is what people copy.
        let key = key.rsplit('/').next().unwrap_or_default().to_owned();
        let unknown = || {
            Refusal::Malformed(format!(
                "nobody waits under {key:?}; `underpass admin nodes list` shows who does"
            ))
        };
        let pending = self.pendings.get(&key).ok_or_else(unknown)?.clone();
        let user = admin::find_user(self.network.registry(), &wish.user)?.id;
        let attempt = Attempt { machine: pending.machine, request: &pending.request, now };
        let admission = Admission::by_admin(user);
        let decision = register::admit(self.network.registry(), self.network.policy(), &attempt, &admission)?;
        let Decision::Admit(id, records) = decision else { return Err(unknown().into()) };
        self.commit(records).await?;
        self.pendings.remove(&key);
        self.answer_waiting(&key).await;
        let node = self.network.registry().node(id).ok_or_else(unknown)?;
        Ok(self.node_answer(node, now))
    }

    async fn change_node(&mut self, record: Record, now: Timestamp) -> Result<Answer, Refused> {
        let Record::Node(node) = &record else { return Ok(Answer::Nodes(Vec::new())) };
        let id = node.id;
        self.commit(vec![record]).await?;
        let node = admin::find_node(self.network.registry(), &id.to_string())?;
        Ok(self.node_answer(node, now))
    }

    fn node_answer(&self, node: &Node, now: Timestamp) -> Answer {
        Answer::Node(Box::new(self.node_info(node, now)))
    }

    fn node_info(&self, node: &Node, now: Timestamp) -> NodeInfo {
        NodeInfo {
            id: node.id,
            name: node.name.clone(),
            hostname: node.hostinfo.hostname.clone(),
            user: self.network.registry().user_name(node.user).to_owned(),
            tags: node.tags.clone(),
            addresses: node.ips().to_vec(),
            node_key: node.node_key.to_string(),
            machine_key: node.machine_key.to_string(),
            os: node.hostinfo.os.clone(),
            client_version: node.hostinfo.ipn_version.clone(),
            online: self.network.online(node.id),
            last_seen: node.last_seen.filter(|_| !self.network.online(node.id)),
            created: node.created,
            expires: node.expires,
            expired: node.expired(now),
            ephemeral: node.ephemeral,
            announced_routes: node.hostinfo.routable_ips.clone(),
            approved_routes: node.approved_routes.clone(),
            primary_routes: self.network.primary_routes(node.id).to_vec(),
            endpoints: node.endpoints.clone(),
            home_region: node.home_region(),
        }
    }

    fn key_info(&self, key: &AuthKey, now: Timestamp) -> KeyInfo {
        KeyInfo {
            id: key.id.0,
            user: self.network.registry().user_name(key.user).to_owned(),
            tags: key.tags.clone(),
            ephemeral: key.ephemeral,
            uses_limit: key.uses_limit,
            uses: key.uses,
            created: key.created,
            expires: key.expires,
            state: match key.state(now) {
                model::KeyState::Valid => KeyState::Valid,
                model::KeyState::Used => KeyState::Used,
                model::KeyState::Expired => KeyState::Expired,
                model::KeyState::Revoked => KeyState::Revoked,
            },
        }
    }
}

fn user_info(user: &User) -> UserInfo {
    UserInfo { id: user.id, name: user.name.clone(), created: user.created }
}

fn pending_info(key: &str, pending: &control_core::pending::Pending) -> PendingInfo {
    let hostinfo = pending.request.hostinfo.as_ref();
    PendingInfo {
        key: key.to_owned(),
        hostname: hostinfo.map(|hostinfo| hostinfo.hostname.clone()).unwrap_or_default(),
        node_key: pending.request.node_key.to_string(),
        since: pending.since,
    }
}

use control_core::model::KeyId;
use control_core::registry::Registry;
use control_core::{addresses::Addresses, admin};
use jiff::Timestamp;
use types::{CapabilityVersion, DiscoPublic, MachinePublic, NodePublic, UserId};
use wire::control::Hostinfo;

use super::*;

fn user() -> User {
    User { id: UserId(1), name: "alice".into(), created: "2026-05-01T00:00:00.5Z".parse().unwrap() }
}

fn key() -> AuthKey {
    let registry = Registry::new(Records { users: vec![user()], ..Records::default() });
    let wish = admin::KeyWish {
        user: "alice".into(),
        tags: vec!["tag:a".into()],
        uses_limit: Some(2),
        ..Default::default()
    };
    admin::create_key(&registry, &wish, &[1; 24], Timestamp::UNIX_EPOCH).unwrap().0
}

fn node(n: u8) -> Node {
    Node {
        id: NodeId(n.into()),
        machine_key: MachinePublic::from_bytes([n; 32]),
        node_key: NodePublic::from_bytes([n; 32]),
        disco_key: DiscoPublic::from_bytes([n; 32]),
        user: UserId(1),
        tags: vec!["tag:a".into()],
        auth_key: Some(KeyId(1)),
        name: format!("host-{n}"),
        named_by_admin: true,
        addresses: Addresses {
            v4: [100, 64, 0, n].into(),
            v6: [0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 1, n.into()].into(),
        },
        hostinfo: Hostinfo {
            os: "linux".into(),
            routable_ips: vec!["10.0.0.0/8".parse().unwrap()],
            ..Hostinfo::default()
        },
        endpoints: vec!["[2001:db8::1]:41641".parse().unwrap()],
        cap: CapabilityVersion(130),
        created: Timestamp::UNIX_EPOCH,
        expires: Some(Timestamp::UNIX_EPOCH),
        last_seen: None,
        ephemeral: true,
        approved_routes: vec!["10.0.0.0/8".parse().unwrap()],
    }
}

fn put(node: Node) -> Record {
    Record::Node(Box::new(node))
}

/// A store in a folder of its own, with a user and a key.
async fn filled() -> (tempfile::TempDir, PathBuf, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let mut store = SqliteStore::open(&path).await.unwrap();
    store.commit(&[Record::User(user()), Record::Key(key())]).await.unwrap();
    (folder, path, store)
}

#[tokio::test]
async fn everything_comes_back_as_it_was() {
    let (_folder, path, mut store) = filled().await;
    store.commit(&[Record::SpendKey { id: KeyId(1), uses: 0 }, put(node(1)), put(node(2))]).await.unwrap();
    let renamed = Node { name: "gateway".into(), last_seen: Some(Timestamp::UNIX_EPOCH), ..node(1) };
    store.commit(&[put(renamed.clone()), Record::DeleteNode(NodeId(2))]).await.unwrap();
    drop(store);
    let records = SqliteStore::open(&path).await.unwrap().load().await.unwrap();
    assert_eq!(records.users, [user()]);
    assert!(records.keys == [AuthKey { uses: 1, ..key() }]);
    assert_eq!(records.nodes, [renamed]);
    assert_eq!(records.highest, [1, 1, 2], "a deleted node's number is not given again");
}

#[tokio::test]
async fn a_stale_use_of_a_key_fails_the_whole_change() {
    let (_folder, _, mut store) = filled().await;
    let spend = |uses| Record::SpendKey { id: KeyId(1), uses };
    store.commit(&[spend(0), put(node(1))]).await.unwrap();
    assert!(matches!(store.commit(&[put(node(2)), spend(0)]).await, Err(StoreError::Conflict)));
    assert_eq!(store.load().await.unwrap().nodes.len(), 1);
    store.commit(&[spend(1), put(node(2))]).await.unwrap();
}

#[tokio::test]
async fn two_nodes_never_share_an_address_or_a_key() {
    let (_folder, _, mut store) = filled().await;
    store.commit(&[put(node(1))]).await.unwrap();
    let twin = Node { addresses: node(1).addresses, ..node(2) };
    assert!(matches!(store.commit(&[put(twin)]).await, Err(StoreError::Database { .. })));
    let twin = Node { node_key: node(1).node_key, ..node(2) };
    assert!(store.commit(&[put(twin)]).await.is_err());
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (_folder, path, mut store) = filled().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'later', 1, x'00', 0)";
    store.connection.execute(newer).await.unwrap();
    drop(store);
    let error = SqliteStore::open(&path).await.err().unwrap();
    assert!(error.to_string().contains("newer underpass (schema 9999)"), "{error}");
}

#[tokio::test]
async fn a_migration_is_preceded_by_a_copy() {
    let (_folder, path, mut store) = filled().await;
    store.back_up(1).await.unwrap();
    let copy = path.with_extension("schema-1.backup");
    assert_eq!(SqliteStore::open(&copy).await.unwrap().load().await.unwrap().users, [user()]);
}

#[tokio::test]
async fn a_damaged_row_is_named() {
    let (_folder, _, mut store) = filled().await;
    store.connection.execute("UPDATE users SET created = 'yesterday'").await.unwrap();
    let error = store.load().await.err().unwrap().to_string();
    assert!(error.starts_with("the state is damaged: users 1: created: "), "{error}");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::write(&path, "torn ".repeat(1000)).unwrap();
    let error = SqliteStore::open(&path).await.err().unwrap().to_string();
    assert!(error.contains("state.db"), "{error}");
}

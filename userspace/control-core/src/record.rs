//! What the store keeps: the state as a list of records, and a change as the records it writes.
//!
//! A change is decided on the state in memory, its records are committed in one transaction, and only then applied to
//! memory. [`Record::SpendKey`] carries what it expects to find, so that a store shared by several servers can refuse
//! what another has already spent. Deliberately not here: any store.

use types::NodeId;

use crate::model::{AuthKey, KeyId, Node, User};

/// One row to write.
#[derive(Clone, PartialEq)]
pub enum Record {
    /// A new user.
    User(User),
    /// A new auth key, or one that was revoked.
    Key(AuthKey),
    /// One more use of a key. It fails the whole change unless the key has `uses` so far.
    SpendKey {
        /// Which key.
        id: KeyId,
        /// Its uses before this one.
        uses: u32,
    },
    /// A node, new or changed.
    Node(Box<Node>),
    /// The node is gone; its number is never given again.
    DeleteNode(NodeId),
}

/// Everything a store has.
#[derive(Clone, Default)]
pub struct Records {
    /// All users.
    pub users: Vec<User>,
    /// All auth keys, revoked and spent ones too.
    pub keys: Vec<AuthKey>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// The highest numbers ever given, also to rows that are gone: users, keys, nodes.
    pub highest: [i64; 3],
}

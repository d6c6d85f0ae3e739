//! Who may use the relay. Every doubt is a no.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use types::NodePublic;

/// Why a client is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The verifier said no.
    #[error("the node is not in a network that may use this relay")]
    NotAllowed,
    /// The verifier could not be asked, so the answer is no.
    #[error("the verifier cannot be asked: {0}")]
    Unavailable(String),
}

/// A verifier's answer on its way.
pub type Verdict<'a> = Pin<Box<dyn Future<Output = Result<(), Denied>> + Send + 'a>>;

/// Decides for each client whose key is proven. Any async closure of key and source address will do.
pub trait Verify: Send + Sync + 'static {
    /// Whether `node`, connected from `source`, may use the relay.
    fn verify(&self, node: NodePublic, source: IpAddr) -> Verdict<'_>;
}

impl<F, A> Verify for F
where
    F: Fn(NodePublic, IpAddr) -> A + Send + Sync + 'static,
    A: Future<Output = Result<(), Denied>> + Send + 'static,
{
    fn verify(&self, node: NodePublic, source: IpAddr) -> Verdict<'_> {
        Box::pin(self(node, source))
    }
}

//! The handlers' end of the channel to the event loop.

use tokio::sync::{mpsc, oneshot};

use super::answer::Problem;
use super::request::{Refusal, Reply, Request};

/// Asks the event loop and waits for its answer.
#[derive(Clone)]
pub(super) struct Backend(mpsc::Sender<Request>);

impl Backend {
    pub(super) fn new(requests: mpsc::Sender<Request>) -> Self {
        Self(requests)
    }

    /// Sends the request that `make` builds around the reply channel.
    pub(super) async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Request) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.0.send(make(reply)).await.map_err(|_| Problem::shutting_down())?;
        answer.await.map_err(|_| Problem::shutting_down())
    }

    /// The same for requests that may be refused.
    pub(super) async fn try_ask<T>(
        &self,
        make: impl FnOnce(Reply<Result<T, Refusal>>) -> Request,
    ) -> Result<T, Problem> {
        Ok(self.ask(make).await??)
    }
}

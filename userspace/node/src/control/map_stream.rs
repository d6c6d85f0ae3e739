//! The body of a streaming map request, message by message.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use wire::control::{Frames, MapResponse};

use super::Failure;
use super::connection::within;

/// Servers send a sign of life about every minute; after so long without one the connection is dead.
const WATCHDOG: Duration = Duration::from_secs(120);
/// The largest map taken, as JSON: about 50,000 peers.
const MAX_MAP: usize = 64 << 20;

/// An open stream.
pub(super) struct MapStream {
    body: Incoming,
    frames: Frames,
}

impl MapStream {
    /// A stream that was asked for with `Compress: zstd`.
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, frames: Frames::new(true, MAX_MAP) }
    }

    /// The next message. Can be dropped and called again without loss.
    ///
    /// # Errors
    /// When the stream has ended, is silent for too long, or cannot be understood.
    pub(super) async fn next(&mut self) -> Result<MapResponse, Failure> {
        loop {
            let message = self.frames.poll().map_err(|error| Failure::Protocol(error.to_string()))?;
            if let Some(json) = message {
                let map = MapResponse::decode(&json).map_err(|error| Failure::Protocol(error.to_string()))?;
                for lost in map.lost() {
                    tracing::warn!("map: {lost}; left out");
                }
                return Ok(map);
            }
            let body = &mut self.body;
            let frame = within(WATCHDOG, async move { Ok(body.frame().await) }).await?;
            let frame = frame.ok_or_else(|| Failure::Lost("the server ended the map stream".to_owned()))?;
            let frame = frame.map_err(|error| Failure::Lost(error.to_string()))?;
            if let Some(bytes) = frame.data_ref() {
                self.frames.push(bytes);
            }
        }
    }
}

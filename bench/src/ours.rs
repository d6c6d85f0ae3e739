//! Our own programs on the rig's middle machine.

use crate::peers::request;
use crate::rig::{Bed, Cell, Sink};

const NAME: &str = "ours";

/// Our relay with `sessions` bound, of which `flows` take turns.
pub(crate) fn relay(_: &Bed, _sessions: u16, _flows: u16, _payload: usize, napi: bool) -> Cell<'_> {
    Cell {
        name: NAME,
        sink: Sink::Xdp,
        napi,
        start: Box::new(|_| anyhow::bail!("no relay program in this build")),
    }
}

/// Our STUN program.
pub(crate) fn stun(_: &Bed) -> Cell<'_> {
    Cell {
        name: NAME,
        sink: Sink::Back,
        napi: false,
        start: Box::new(|_| {
            request()?;
            anyhow::bail!("no STUN program in this build")
        }),
    }
}

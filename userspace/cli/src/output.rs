//! What a command prints: a table for people, or with `--json` the same as JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::exit::ReaderGone;

/// The flag of every command that lists something.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Json {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Json {
    /// Prints `value` as JSON, or what `human` makes of it.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if self.json { json(value) } else { text(&human(value)) }
    }
}

/// Prints indented JSON and a line end.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Prints text as it is.
///
/// # Errors
/// [`ReaderGone`] when nobody reads any more (`| head`), so that a command without an end has one.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        other => Ok(other?),
    }
}

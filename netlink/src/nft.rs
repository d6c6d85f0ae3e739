//! One nftables table, owned as a whole: replaced atomically, removed, looked for, through the `nft` command.
//!
//! `nft` reads the ruleset from its standard input in its own language; no shell is involved. What somebody else did to
//! it is seen with [`Table::listing`] and cured with [`Table::replace`]. Deliberately not here: the content, which is the
//! caller's text.

use std::fmt;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::{Error, Result};

/// nftables family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6 together.
    Inet,
    /// IPv4 only.
    Ip,
    /// IPv6 only.
    Ip6,
}

/// A table by family and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    family: Family,
    name: String,
}

impl Table {
    /// Names a table; nothing is created. Anything but letters, digits and underscores of `name` becomes an underscore.
    pub fn new(family: Family, name: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        Self { family, name: name.chars().map(plain).collect() }
    }

    /// Makes the table consist of exactly `body` (what stands between its braces), in one transaction.
    ///
    /// # Errors
    /// [`crate::Error::NoNft`], or [`crate::Error::Nft`] with nft's own message; the old table then stays as it was.
    pub async fn replace(&self, body: &str) -> Result<()> {
        // Adding first makes the delete succeed whether or not the table was there; nft applies all three or none.
        self.run(&format!("add table {self}\ndelete table {self}\ntable {self} {{\n{body}\n}}\n")).await
    }

    /// Removes the table; absent already is fine.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub async fn remove(&self) -> Result<()> {
        self.run(&format!("add table {self}\ndelete table {self}\n")).await
    }

    /// The table as nft lists it, without counters; `None` where it is not there. Two listings are equal when nobody has
    /// changed anything in between.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub async fn listing(&self) -> Result<Option<String>> {
        let name = self.to_string();
        let [family, name] = [name.split(' ').next().unwrap_or_default(), &self.name];
        match nft(&["-s", "list", "table", family, name], "").await {
            Ok(text) => Ok(Some(text)),
            Err(Failure::Refused(message)) if message.contains("No such file or directory") => Ok(None),
            Err(failure) => Err(self.failed(failure)),
        }
    }

    async fn run(&self, ruleset: &str) -> Result<()> {
        nft(&["-f", "-"], ruleset).await.map(drop).map_err(|message| self.failed(message))
    }

    fn failed(&self, failure: Failure) -> Error {
        match failure {
            Failure::Absent => Error::NoNft,
            Failure::Os(error) => Error::os("run nft for table", self.to_string(), &error),
            Failure::Refused(message) => Error::Nft { table: self.to_string(), message },
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
        };
        write!(f, "{family} {}", self.name)
    }
}

enum Failure {
    Absent,
    Os(std::io::Error),
    Refused(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::NotFound { Self::Absent } else { Self::Os(error) }
    }
}

/// Runs nft in the network namespace of the calling thread, feeds it `input` and returns what it printed.
async fn nft(arguments: &[&str], input: &str) -> std::result::Result<String, Failure> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // An nft that fails early closes its input; its own message says more than the broken pipe.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Failure::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

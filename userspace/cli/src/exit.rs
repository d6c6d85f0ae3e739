//! How the command ends: one number for each thing a script may want to tell apart.

use std::process::ExitCode;

use crate::client::ClientError;

/// What every command's `--help` says about its exit code.
pub(crate) const HELP: &str = "Exit codes: 0 done; 1 failed, or what was asked about is not so; 2 wrong usage; \
3 no daemon answers; 4 not allowed; 5 timed out.";

/// The command ends without success and has already said why.
#[derive(Debug, thiserror::Error)]
#[error("not so")]
pub(crate) struct NotSo;

/// Whoever read our output has closed it.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub(crate) struct ReaderGone;

/// Time ran out before what was waited for happened.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TimedOut(pub(crate) String);

/// A daemon ended with a code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct DaemonFailed {
    /// What the daemon said.
    pub(crate) message: String,
    /// Its exit code.
    pub(crate) code: u8,
}

/// Prints the error, unless the command did, and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if !error.is::<NotSo>() && !error.is::<ReaderGone>() {
        eprintln!("error: {error:#}");
    }
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    if let Some(failed) = error.downcast_ref::<DaemonFailed>() {
        return failed.code;
    }
    if error.is::<TimedOut>() {
        return 5;
    }
    if error.is::<ReaderGone>() {
        // What a shell reports of programs that SIGPIPE ends.
        return 141;
    }
    match error.downcast_ref() {
        Some(ClientError::Unreachable { .. }) => 3,
        Some(ClientError::Denied(_)) => 4,
        Some(ClientError::Refused { .. } | ClientError::Protocol(_)) => 1,
        None => match error.downcast_ref() {
            Some(control::admin::ClientError::Connect { .. }) => 3,
            _ => 1,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_number() {
        assert_eq!(code(&anyhow::anyhow!("anything")), 1);
        assert_eq!(code(&NotSo.into()), 1);
        assert_eq!(code(&TimedOut("late".into()).into()), 5);
        assert_eq!(code(&ClientError::Denied("no".into()).into()), 4);
        assert_eq!(code(&DaemonFailed { message: "no root".into(), code: 3 }.into()), 3);
        let refused = ClientError::Refused { status: 500, message: "why".into() };
        assert_eq!(code(&anyhow::Error::from(refused).context("while")), 1);
    }
}

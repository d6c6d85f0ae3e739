//! `underpass completion`: what a shell needs to complete commands and flags.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::Underpass;
use crate::output;

/// `underpass completion`
#[derive(Args)]
#[command(after_help = "For bash: underpass completion bash > /etc/bash_completion.d/underpass")]
pub(crate) struct Completion {
    /// Which shell.
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        generate(self.shell, &mut Underpass::command(), "underpass", &mut script);
        output::text(&String::from_utf8_lossy(&script))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent_and_cover_the_nouns() {
        Underpass::command().debug_assert();
        let mut script = Vec::new();
        generate(Shell::Bash, &mut Underpass::command(), "underpass", &mut script);
        let script = String::from_utf8(script).unwrap();
        for word in ["approve-routes", "--login-server", "completion"] {
            assert!(script.contains(word), "{word}");
        }
    }
}

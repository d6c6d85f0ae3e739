//! What the demo measured, and whether that is what it promised.

use std::time::Duration;

/// Named figures, in the order they were taken, each with its judgment.
#[derive(Default)]
pub(crate) struct Figures {
    rows: Vec<(String, String, Option<bool>)>,
}

impl Figures {
    /// A figure without a promise.
    pub(crate) fn note(&mut self, name: &str, value: impl Into<String>) {
        self.rows.push((name.to_owned(), value.into(), None));
    }

    /// A figure that the verdict depends on.
    pub(crate) fn judge(&mut self, name: &str, value: impl Into<String>, kept: bool) {
        self.rows.push((name.to_owned(), value.into(), Some(kept)));
    }

    /// Prints the table and the verdict; whether every promise was kept.
    pub(crate) fn verdict(&self) -> bool {
        println!("\nmeasured on this machine:");
        for (name, value, kept) in &self.rows {
            let mark = kept.map_or(" ", |kept| if kept { "+" } else { "!" });
            println!("  {mark} {name:<58} {value}");
        }
        let broken = self.rows.iter().filter(|(_, _, kept)| *kept == Some(false)).count();
        if broken == 0 {
            println!("\nVERDICT: everything works");
        } else {
            println!("\nVERDICT: {broken} promises not kept (marked with !)");
        }
        broken == 0
    }
}

/// Milliseconds with one digit.
pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

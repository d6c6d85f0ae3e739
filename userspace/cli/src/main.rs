//! The `underpass` command: server, relay, node, and the command line that drives them.
//!
//! One file a command under `command/`. Those that talk to a node are clients of its LocalAPI (`client`), those under
//! `admin` of the server's admin socket. Deliberately not here: what the daemons do; this crate parses, asks and prints.

mod client;
mod command;
mod duration;
mod exit;
mod logging;
mod output;
mod progress;
mod setting;
mod table;

use std::process::ExitCode;

use clap::Parser;

use command::Underpass;

fn main() -> ExitCode {
    match command::run(Underpass::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

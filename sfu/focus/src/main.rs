//! `weir`: a conference focus. Sockets, threads, configuration, HTTP, metrics.

mod addresses;
mod admin;
mod check;
mod cli;
mod config;
mod focus;
mod ice_tcp;
mod lines;
mod logging;
mod matrix;
mod open_files;
mod plane;
mod shards;

use std::process::ExitCode;

/// What an operator did wrong, as opposed to what went wrong: `sysexits.h` EX_CONFIG.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {error:#}");
            if error.is::<config::ConfigError>() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

//! `cargo xtask`: every chore of the project.

mod check;
mod e2e;
mod fuzz;
mod interop;
mod namespace;
mod setup;
mod shell;
mod try_out;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Every chore of the project
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what the tests need: Debian packages (as root or by sudo), browsers, client SDKs
    Setup,
    /// Format, lints, dependencies and forbidden words
    Check,
    /// Set up, check, then run the unit tests, the interop suite and the end-to-end suite
    Test {
        /// Only the unit tests
        #[arg(long, conflicts_with = "interop")]
        unit: bool,
        /// Only the interop suite
        #[arg(long)]
        interop: bool,
        /// Also the interop scenarios that take minutes
        #[arg(long)]
        full: bool,
        /// Only interop scenarios whose names contain one of these
        filters: Vec<String>,
    },
    /// Set up, then run the end-to-end suite: Element Call on federated homeservers
    E2e {
        /// Only scenarios whose names contain one of these
        filters: Vec<String>,
    },
    /// Two people in a call on this machine, for trying out; `deploy/try` installs Rust first
    Try {
        /// Passed on; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the benchmarks (release build)
    Bench {
        /// Passed on; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Play rate control's scenarios in virtual time (release build)
    Sim {
        /// Passed on; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Look for inputs that break what parses them, with libFuzzer (needs a C++ compiler)
    #[command(subcommand)]
    Fuzz(fuzz::Fuzz),
}

fn main() -> Result<()> {
    shell::enter_workspace()?;
    match Cli::parse().chore {
        Chore::Setup => setup::run(),
        Chore::Check => check::run(),
        Chore::Test { unit, interop, full, filters } => test(!interop, !unit, full, &filters),
        Chore::E2e { filters } => setup::run().and_then(|()| e2e::run(&filters)),
        Chore::Try { arguments } => try_out::run(&arguments),
        Chore::Bench { arguments } => release("weir-bench", &arguments),
        Chore::Sim { arguments } => release("weir-sim", &arguments),
        Chore::Fuzz(what) => fuzz::run(what),
    }
}

fn test(unit: bool, with_interop: bool, full: bool, filters: &[String]) -> Result<()> {
    let mut failures = Vec::new();
    if with_interop {
        setup::run()?;
    }
    if unit {
        check::run()?;
        if shell::run("cargo", &["test", "--workspace"]).is_err() {
            failures.push("unit tests");
        }
    }
    if with_interop && interop::run(full, filters).is_err() {
        failures.push("interop suite");
    }
    if unit && with_interop && filters.is_empty() && e2e::run(&[]).is_err() {
        failures.push("end-to-end suite");
    }
    if failures.is_empty() {
        println!("everything passed");
        return Ok(());
    }
    anyhow::bail!("failed: {}", failures.join(", "))
}

fn release(package: &str, arguments: &[String]) -> Result<()> {
    let mut command = vec!["run", "--release", "--package", package, "--"];
    command.extend(arguments.iter().map(String::as_str));
    shell::run("cargo", &command)
}

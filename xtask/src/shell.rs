//! Running programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// All paths here are relative to the workspace.
pub fn enter_workspace() -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = here.parent().context("xtask lies within the workspace")?;
    std::env::set_current_dir(workspace).context("the workspace cannot be entered")
}

/// Where builds go: two above this program, however Cargo was told of it (variable, file of configuration, target triple).
pub fn target_directory() -> PathBuf {
    let here = std::env::current_exe().ok();
    let target = here.as_deref().and_then(|program| program.ancestors().nth(2));
    target.map_or_else(|| PathBuf::from("target"), Path::to_owned)
}

/// Shows the command, runs it, and fails if it does.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    run_with(Command::new(program).args(arguments))
}

pub fn run_with(command: &mut Command) -> Result<()> {
    println!("+ {}", describe(command));
    let status = command.status().with_context(|| format!("{} cannot be run", describe(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", describe(command));
    }
    Ok(())
}

/// What it prints; nothing if it fails.
pub fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn describe(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    let words = std::iter::once(command.get_program().to_string_lossy()).chain(arguments);
    words.collect::<Vec<_>>().join(" ")
}

//! A floor measured by somebody else's program, so that ours can be trusted.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Its rows that are ours: one line of its table each.
const ROWS: [&str; 2] = ["N=100, one by one, sendmmsg | lo", "N=100, frames of 8, GSO | lo"];

/// Builds and runs the program in `directory`, and prints its lines for what we measure as floor towards full sinks.
/// It may build its own cryptography, which takes minutes.
pub fn run(directory: &Path) -> anyhow::Result<()> {
    println!("\nBeside, from {}: its floor towards full sockets", directory.display());
    for row in ROWS {
        let output = Command::new("cargo")
            .args(["run", "--release", "--quiet", "--", "forward", "--only", row])
            .current_dir(directory)
            .output()
            .context("cargo could not be started")?;
        if !output.status.success() {
            bail!("it failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().filter(|line| line.starts_with("| forward")).for_each(|line| println!("{line}"));
    }
    Ok(())
}

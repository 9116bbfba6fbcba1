//! What a reviewer should not have to look for.

use anyhow::{Result, bail};

use crate::shell;

/// Registry hosts and paths of somebody's machine have no place in the project: cargo, npm and pip know where to look.
const FORBIDDEN: [&str; 7] = [
    "crates\u{2e}io",
    "npmjs\u{2e}",
    "pypi\u{2e}org",
    "/home\u{2f}",
    "/root\u{2f}",
    "/work\u{2f}",
    "/tmp\u{2f}",
];

pub fn run() -> Result<()> {
    shell::run("cargo", &["fmt", "--all", "--check"])?;
    shell::run("cargo", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    check_words()?;
    if shell::output("cargo", &["deny", "--version"]).is_some() {
        shell::run("cargo", &["deny", "--log-level", "error", "check", "licenses", "bans", "sources"])?;
    } else {
        println!("cargo-deny is not installed: licences and sources of dependencies are not checked");
    }
    Ok(())
}

/// Looks at what git tracks. Lock files name registries by their nature.
fn check_words() -> Result<()> {
    let Some(files) = shell::output("git", &["ls-files"]) else {
        bail!("git does not list the project's files")
    };
    let mut found = Vec::new();
    for file in
        files.lines().filter(|file| !file.ends_with("Cargo.lock") && !file.ends_with("package-lock.json"))
    {
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = FORBIDDEN.iter().find(|word| line.contains(*word)) {
                found.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    if found.is_empty() { Ok(()) } else { bail!("forbidden words:\n{}", found.join("\n")) }
}

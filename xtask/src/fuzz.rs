//! Fuzzing: builds the targets with the instrumentation libFuzzer needs, and runs them.
//!
//! `-C passes=sancov-module` and its options are stable, so the pinned toolchain does; address sanitizers are not, but
//! the tree has no unsafe code they could watch. Everything is built for the host by name, which keeps the flags from
//! build scripts and macros, and into a folder of its own, which keeps them from other builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::shell;

const INSTRUMENTATION: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

const SEEDS: &str = "fuzz/seeds";

/// Seconds that one input may take. The slowest honest ones take milliseconds.
const INPUT_TIMEOUT: u32 = 10;
/// Memory of the whole process; what one input can make us hold is far less.
const MEMORY_MIB: u32 = 2_048;

#[derive(Subcommand)]
pub enum Fuzz {
    /// List the targets
    List,
    /// Look for inputs that break a target; what is found goes on from one run to the next
    Run {
        /// Targets, one after the other; all of them when none is named
        targets: Vec<String>,
        /// How long to try each
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// The longest input tried, in bytes
        #[arg(long, default_value_t = 4_096)]
        max_len: u32,
    },
    /// Run single inputs: the file that `run` wrote when a target broke, or a seed
    Reproduce {
        target: String,
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Make a crashing input as small as it can be
    Shrink {
        target: String,
        file: PathBuf,
        /// How long to try
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Drop the inputs of a corpus that reach nothing new; all corpora when no target is named
    Minimise { targets: Vec<String> },
}

pub fn run(what: Fuzz) -> Result<()> {
    match what {
        Fuzz::List => {
            for target in targets()? {
                println!("{target}");
            }
            Ok(())
        }
        Fuzz::Run { targets, seconds, max_len } => {
            let chosen = chosen(targets)?;
            let program = build()?;
            let mut broken = Vec::new();
            for target in &chosen {
                if fuzz(&program, target, seconds, max_len).is_err() {
                    broken.push(target.as_str());
                }
            }
            if !broken.is_empty() {
                bail!(
                    "broken: {}. Inputs are in {}; see them again with `cargo xtask fuzz reproduce`",
                    broken.join(", "),
                    folder("artifacts").display()
                );
            }
            Ok(())
        }
        Fuzz::Reproduce { target, files } => {
            let target = known(target)?;
            let mut command = Command::new(build()?);
            shell::run_with(command.env(TARGET, target).args(files))
        }
        Fuzz::Shrink { target, file, seconds } => {
            let target = known(target)?;
            let small = file.with_extension("small");
            let mut command = Command::new(build()?);
            command.env(TARGET, target).arg("-minimize_crash=1").arg(format!("-max_total_time={seconds}"));
            command.arg(format!("-exact_artifact_path={}", small.display())).arg(file);
            shell::run_with(&mut command)
        }
        Fuzz::Minimise { targets } => {
            let chosen = chosen(targets)?;
            let program = build()?;
            chosen.iter().try_for_each(|target| minimise(&program, target))
        }
    }
}

/// Tells the program, whose arguments are libFuzzer's, which target it is.
const TARGET: &str = "WEIR_FUZZ_TARGET";

fn fuzz(program: &Path, target: &str, seconds: u32, max_len: u32) -> Result<()> {
    let corpus = made(folder("corpus").join(target))?;
    let artifacts = made(folder("artifacts").join(target))?;
    let mut command = Command::new(program);
    command.env(TARGET, target).arg(corpus).arg(Path::new(SEEDS).join(target));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={max_len}"));
    command.arg(format!("-timeout={INPUT_TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.args(["-use_value_profile=1", "-print_final_stats=1"]);
    let dictionary = PathBuf::from(format!("fuzz/dictionaries/{target}.dict"));
    if dictionary.exists() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    shell::run_with(&mut command)
}

/// Merges the corpus and the seeds into a new corpus of the inputs that matter.
fn minimise(program: &Path, target: &str) -> Result<()> {
    let corpus = made(folder("corpus").join(target))?;
    let merged = folder("corpus").join(format!("{target}.merged"));
    if merged.exists() {
        std::fs::remove_dir_all(&merged)?;
    }
    let mut command = Command::new(program);
    command.env(TARGET, target).arg("-merge=1").arg(made(merged.clone())?);
    command.arg(Path::new(SEEDS).join(target)).arg(&corpus);
    shell::run_with(&mut command)?;
    std::fs::remove_dir_all(&corpus)?;
    std::fs::rename(&merged, &corpus).context("the merged corpus cannot take the old one's place")
}

/// Builds the program that runs all targets and says where it is.
fn build() -> Result<PathBuf> {
    let version = shell::output("rustc", &["-vV"]).context("rustc does not say what it is")?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc does not say what machine it is for")?;
    let mut command = Command::new("cargo");
    command.args(["build", "--profile", "fuzz", "--package", "weir-fuzz", "--features", "libfuzzer"]);
    command.arg("--target").arg(host).arg("--target-dir").arg(folder("build"));
    command.env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\u{1f}"));
    shell::run_with(&mut command)?;
    Ok(folder("build").join(host).join("fuzz/weir-fuzz"))
}

/// What fuzzing makes is not part of the tree.
fn folder(name: &str) -> PathBuf {
    shell::target_directory().join("fuzzing").join(name)
}

fn made(folder: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}

/// A target has a folder of seeds; a test of the crate sees to that.
fn targets() -> Result<Vec<String>> {
    let entries = std::fs::read_dir(SEEDS).with_context(|| format!("{SEEDS} cannot be read"))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn chosen(named: Vec<String>) -> Result<Vec<String>> {
    if named.is_empty() { targets() } else { named.into_iter().map(known).collect() }
}

fn known(target: String) -> Result<String> {
    let all = targets()?;
    if all.contains(&target) {
        return Ok(target);
    }
    bail!("there is no target {target}; there are {}", all.join(", "))
}

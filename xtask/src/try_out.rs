//! What `deploy/try` runs: a stage with two people, until it is told to stop.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup, shell};

pub fn run(arguments: &[String]) -> Result<()> {
    setup::stage()?;
    println!("building Weir; the first time takes some minutes");
    let mut build = Command::new("cargo");
    shell::run_with(build.args(["build", "--quiet", "--package", "weir-focus"]))?;
    let target = shell::target_directory();
    let mut stage = Command::new("node");
    stage.arg("deploy/stage/try.mjs");
    stage.arg("--weir").arg(target.join("debug/weir"));
    stage.arg("--synapse").arg(setup::SYNAPSE.python());
    stage.arg("--folder").arg(target.join("try"));
    stage.args(arguments);
    // In our place: then Ctrl-C has one process to end, which ends the others in order.
    Err(stage.exec()).context("node cannot be run")
}

//! The end-to-end suite: Element Call on federated homeservers, in network namespaces of its own.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;
use crate::{setup, shell};

/// One for the media of each focus. Firefox gathers candidates only where the default route leads.
const ADDRESSES: [&str; 2] = ["10.78.0.1/24", "10.78.0.2/24"];
const GATEWAYS: [&str; 1] = ["10.78.0.254"];

pub fn run(filters: &[String]) -> Result<()> {
    // As the interop suite builds it: alone it would have other features, and be built again.
    shell::run("cargo", &["build", "--package", "weir-focus", "--package", "weir-interop-peer"])?;
    let target = shell::target_directory();
    if filters.is_empty() {
        return both_lanes(&target);
    }
    let namespace = Namespace::create("weir-e2e", &ADDRESSES, &GATEWAYS)?;
    let result = shell::run_with(suite(&target, "weir-e2e", "e2e").args(filters));
    drop(namespace);
    result
}

/// Scenarios that are idle most of their time are played on servers of their own beside the others, and are told of at the
/// end.
fn both_lanes(target: &Path) -> Result<()> {
    let busy_namespace = Namespace::create("weir-e2e", &ADDRESSES, &GATEWAYS)?;
    let idle_namespace = Namespace::create("weir-e2e-idle", &ADDRESSES, &GATEWAYS)?;
    let told = target.join("e2e-idle.log");
    let log = File::create(&told).with_context(|| format!("{} cannot be written", told.display()))?;
    let mut idle = suite(target, "weir-e2e-idle", "e2e-idle");
    idle.args(["--lane", "idle"]).stdout(log.try_clone()?).stderr(log);
    let mut idle = idle.spawn().context("the suite's second lane cannot be started")?;
    let busy = shell::run_with(suite(target, "weir-e2e", "e2e").args(["--lane", "busy"]));
    let idle = idle.wait()?;
    println!("beside them:\n{}", std::fs::read_to_string(&told)?);
    drop((busy_namespace, idle_namespace));
    busy?;
    if !idle.success() {
        bail!("the suite's second lane failed ({idle})");
    }
    Ok(())
}

fn suite(target: &Path, namespace: &str, results: &str) -> Command {
    let mut suite = Command::new("ip");
    suite.args(["netns", "exec", namespace, "node", "e2e/suite.mjs"]);
    suite.arg("--weir").arg(target.join("debug/weir"));
    suite.arg("--synapse").arg(setup::SYNAPSE.python());
    suite.arg("--results").arg(target.join(results));
    suite
}

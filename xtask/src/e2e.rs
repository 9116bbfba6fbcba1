//! The end-to-end suite: Element Call on federated homeservers, in a network namespace of its own.

use std::process::Command;

use anyhow::Result;

use crate::namespace::Namespace;
use crate::{setup, shell};

const NAMESPACE: &str = "weir-e2e";
/// One for the media of each focus. Firefox gathers candidates only where the default route leads.
const ADDRESSES: [&str; 2] = ["10.78.0.1/24", "10.78.0.2/24"];

pub fn run(filters: &[String]) -> Result<()> {
    // As the interop suite builds it: alone it would have other features, and be built again.
    shell::run("cargo", &["build", "--package", "weir-focus", "--package", "weir-interop-peer"])?;
    let target = std::path::absolute(shell::target_directory())?;
    let namespace = Namespace::create(NAMESPACE, &ADDRESSES, &["10.78.0.254"])?;
    let mut suite = Command::new("ip");
    suite.args(["netns", "exec", NAMESPACE, "node", "e2e/suite.mjs"]);
    suite.arg("--weir").arg(target.join("debug/weir"));
    suite.arg("--synapse").arg(setup::SYNAPSE.python());
    suite.arg("--results").arg(target.join("e2e"));
    let result = shell::run_with(suite.args(filters));
    drop(namespace);
    result
}

//! The interop suite, in a network namespace of its own.

use std::process::Command;

use anyhow::Result;

use crate::namespace::Namespace;
use crate::{setup, shell};

const NAMESPACE: &str = "weir-interop";
/// Where the focus listens. Native SDKs and Firefox gather no candidates on loopback, and Firefox none without a
/// default route.
const ADDRESS: &str = "10.77.0.1";
const ADDRESS_V6: &str = "fd77::1";

pub fn run(full: bool, filters: &[String]) -> Result<()> {
    // Together: then what they share has nearly the features that the unit tests built it with, and is not built again.
    shell::run("cargo", &["build", "--package", "weir-focus", "--package", "weir-interop-peer"])?;
    let target = shell::target_directory();
    let weir = target.join("debug/weir");
    let peer = target.join("debug/weir-interop-peer");
    let namespace =
        Namespace::create(NAMESPACE, &["10.77.0.1/24", "fd77::1/64"], &["10.77.0.254", "fd77::fe"])?;
    let report = target.join("interop.json");
    let mut suite = Command::new("ip");
    suite.args(["netns", "exec", NAMESPACE, "node", "interop/suite.mjs"]);
    suite.args(["--address", ADDRESS, "--address6", ADDRESS_V6]);
    for (option, path) in [
        ("--weir", &weir),
        ("--peer", &peer),
        ("--python", &setup::PYTHON_SDK.python()),
        ("--report", &report),
    ] {
        suite.arg(option).arg(path);
    }
    if full {
        suite.arg("--full");
    }
    suite.args(filters);
    let result = shell::run_with(&mut suite);
    drop(namespace);
    result
}

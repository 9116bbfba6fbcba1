//! The interop suite, in a network namespace of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup, shell};

const NAMESPACE: &str = "weir-interop";
/// Where the focus listens. Native SDKs and Firefox gather no candidates on loopback, and Firefox none without a
/// default route.
const ADDRESS: &str = "10.77.0.1";
const ADDRESS_V6: &str = "fd77::1";

pub fn run(full: bool, filters: &[String]) -> Result<()> {
    // Together: then what they share has nearly the features that the unit tests built it with, and is not built again.
    shell::run("cargo", &["build", "--package", "weir-focus", "--package", "weir-interop-peer"])?;
    let target = std::path::absolute(shell::target_directory())?;
    let weir = target.join("debug/weir");
    let peer = target.join("debug/weir-interop-peer");
    let namespace = Namespace::create()?;
    let report = target.join("interop.json");
    let mut suite = Command::new("ip");
    suite.args(["netns", "exec", NAMESPACE, "node", "interop/suite.mjs"]);
    suite.args(["--address", ADDRESS, "--address6", ADDRESS_V6]);
    for (option, path) in
        [("--weir", &weir), ("--peer", &peer), ("--python", &setup::python()), ("--report", &report)]
    {
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

struct Namespace;

impl Namespace {
    fn create() -> Result<Self> {
        if Path::new("/run/netns").join(NAMESPACE).exists() {
            shell::run("ip", &["netns", "del", NAMESPACE])?; // left by a run that was killed
        }
        shell::run("ip", &["netns", "add", NAMESPACE]).context("network namespaces need root")?;
        let created = Self;
        let address = format!("{ADDRESS}/24");
        let address_v6 = format!("{ADDRESS_V6}/64");
        for command in [
            "link set lo up",
            "link add weir0 type veth peer name weir1",
            &format!("addr add {address} dev weir0"),
            &format!("addr add {address_v6} dev weir0 nodad"),
            "link set weir0 up",
            "link set weir1 up",
            "route add default via 10.77.0.254 dev weir0",
            "route add default via fd77::fe dev weir0",
        ] {
            let mut ip = Command::new("ip");
            ip.args(["-n", NAMESPACE]).args(command.split(' '));
            shell::run_with(&mut ip)?;
        }
        Ok(created)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = shell::run("ip", &["netns", "del", NAMESPACE]);
    }
}

//! A network namespace for a suite: what runs in it reaches nothing but itself.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

pub struct Namespace(&'static str);

impl Namespace {
    /// With these addresses (with their prefixes' lengths) on one interface, and default routes to these gateways, which
    /// do not exist.
    pub fn create(name: &'static str, addresses: &[&str], gateways: &[&str]) -> Result<Self> {
        if Path::new("/run/netns").join(name).exists() {
            shell::run("ip", &["netns", "del", name])?; // left by a run that was killed
        }
        shell::run("ip", &["netns", "add", name]).context("network namespaces need root")?;
        let created = Self(name);
        for command in ["link set lo up", "link add weir0 type veth peer name weir1"] {
            created.ip(command)?;
        }
        for address in addresses {
            // Without waiting for somebody else to claim it.
            let at_once = if address.contains(':') { " nodad" } else { "" };
            created.ip(&format!("addr add {address} dev weir0{at_once}"))?;
        }
        for command in ["link set weir0 up", "link set weir1 up"] {
            created.ip(command)?;
        }
        for gateway in gateways {
            created.ip(&format!("route add default via {gateway} dev weir0"))?;
        }
        Ok(created)
    }

    fn ip(&self, command: &str) -> Result<()> {
        shell::run_with(Command::new("ip").args(["-n", self.0]).args(command.split(' ')))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = shell::run("ip", &["netns", "del", self.0]);
    }
}

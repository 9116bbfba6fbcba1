//! What the tests need. Doing it again changes nothing.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// Debian packages, and what for.
const PACKAGES: [(&str, &str); 10] = [
    ("build-essential", "linking, and C parts of dependencies"),
    ("cmake", "building the AEAD library"),
    ("chromium", "interop: livekit-client in Chromium"),
    ("firefox-esr", "interop: livekit-client in Firefox"),
    ("iproute2", "interop: network namespaces"),
    ("iptables", "interop: packet loss"),
    ("nodejs", "interop: its driver, and the Node SDK"),
    ("npm", "interop: client SDKs"),
    ("python3-venv", "interop: the Python SDK"),
    ("ca-certificates", "downloading all of it"),
];

/// Where the Python SDK is.
pub fn python() -> PathBuf {
    let target = shell::target_directory();
    let target = std::path::absolute(&target).unwrap_or(target);
    target.join("interop-python/bin/python")
}

pub fn run() -> Result<()> {
    install_packages()?;
    install_node_modules()?;
    install_python()
}

fn is_installed(package: &str) -> bool {
    // What came another way serves as well.
    let program = match package {
        "build-essential" => "cc",
        "iproute2" => "ip",
        "nodejs" => "node",
        "python3-venv" | "ca-certificates" => "",
        package => package,
    };
    let on_path =
        !program.is_empty() && shell::output("sh", &["-c", &format!("command -v {program}")]).is_some();
    on_path
        || shell::output("dpkg-query", &["-W", "-f", "${Status}", package])
            .is_some_and(|status| status.contains("install ok installed"))
}

fn install_packages() -> Result<()> {
    let missing: Vec<_> = PACKAGES.iter().filter(|(package, _)| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing Debian packages:");
    for (package, reason) in &missing {
        println!("  {package}: {reason}");
    }
    if shell::output("id", &["-u"]).as_deref() != Some("0") {
        let names: Vec<_> = missing.iter().map(|(package, _)| *package).collect();
        bail!("that needs root; install them yourself: apt-get install {}", names.join(" "));
    }
    shell::run("apt-get", &["update", "-qq"])?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args([
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
    ]);
    install.args(missing.iter().map(|(package, _)| *package));
    shell::run_with(&mut install)
}

fn install_node_modules() -> Result<()> {
    let installed = std::path::Path::new("interop/node_modules/.package-lock.json");
    let wanted = std::path::Path::new("interop/package-lock.json");
    let age = |path: &std::path::Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if age(installed).zip(age(wanted)).is_some_and(|(installed, wanted)| installed >= wanted) {
        return Ok(());
    }
    shell::run("npm", &["ci", "--prefix", "interop", "--no-audit", "--no-fund"])
}

fn install_python() -> Result<()> {
    let python = python();
    let directory =
        python.parent().and_then(|bin| bin.parent()).expect("the path has been made of these parts");
    let stamp = directory.join("requirements.txt");
    let wanted = std::fs::read_to_string("interop/requirements.txt")?;
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let directory_text = directory.to_string_lossy().into_owned();
    shell::run("python3", &["-m", "venv", &directory_text])?;
    let pip =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "interop/requirements.txt"];
    shell::run(&python.to_string_lossy(), &pip)?;
    Ok(std::fs::write(stamp, wanted)?)
}

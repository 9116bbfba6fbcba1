//! What tests and trying out need. Doing it again changes nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// Debian packages that a stage needs, which is a homeserver, a focus and Element Call, and what for.
const STAGE_PACKAGES: [(&str, &str); 7] = [
    ("build-essential", "linking, and C parts of dependencies"),
    ("cmake", "building the AEAD library"),
    ("nodejs", "what starts everything, and serves Element Call"),
    ("npm", "Element Call, and client SDKs"),
    ("python3-venv", "Synapse, and the Python SDK"),
    ("openssl", "certificates of homeservers"),
    ("ca-certificates", "downloading all of it"),
];

/// What tests need beyond that.
const TEST_PACKAGES: [(&str, &str); 4] = [
    ("chromium", "clients in Chromium"),
    ("firefox-esr", "clients in Firefox"),
    ("iproute2", "network namespaces"),
    ("iptables", "packet loss"),
];

/// A Python environment of its own below the target directory.
pub struct Environment {
    name: &'static str,
    requirements: &'static str,
}

pub const SYNAPSE: Environment =
    Environment { name: "stage-python", requirements: "deploy/stage/requirements.txt" };
pub const PYTHON_SDK: Environment =
    Environment { name: "interop-python", requirements: "interop/requirements.txt" };

impl Environment {
    fn directory(&self) -> PathBuf {
        shell::target_directory().join(self.name)
    }

    pub fn python(&self) -> PathBuf {
        self.directory().join("bin/python")
    }
}

/// Everything that any test needs.
pub fn run() -> Result<()> {
    install_packages(&[&STAGE_PACKAGES[..], &TEST_PACKAGES].concat())?;
    install_node_modules("interop")?;
    install_node_modules("deploy/stage")?;
    install_python(&PYTHON_SDK)?;
    install_python(&SYNAPSE)
}

/// What a stage needs.
pub fn stage() -> Result<()> {
    install_packages(&STAGE_PACKAGES)?;
    install_node_modules("deploy/stage")?;
    install_python(&SYNAPSE)
}

/// Where distributions have the certificates of authorities: Debian's kin, and Fedora's.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Whatever it came with: Debian's package is one of the ways.
fn is_installed(package: &str) -> bool {
    let program = match package {
        "python3-venv" => return shell::output("python3", &["-c", "import ensurepip, venv"]).is_some(),
        "ca-certificates" => return AUTHORITIES.iter().any(|path| Path::new(path).exists()),
        "build-essential" => "cc",
        "iproute2" => "ip",
        "nodejs" => "node",
        package => package,
    };
    shell::output("sh", &["-c", &format!("command -v {program}")]).is_some()
}

fn install_packages(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|(package, _)| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(package, _)| *package).collect();
    if shell::output("sh", &["-c", "command -v apt-get"]).is_none() {
        bail!("please install {}, or what your distribution calls them", names.join(" "));
    }
    println!("installing Debian packages:");
    for (package, reason) in &missing {
        println!("  {package}: {reason}");
    }
    shell::run_with(apt_get().args(["update", "-qq"]))?;
    shell::run_with(apt_get().args(["install", "-y", "-qq", "--no-install-recommends"]).args(names))
}

/// As root, which `sudo` makes whoever is not; it would take the environment off.
fn apt_get() -> Command {
    let is_root = shell::output("id", &["-u"]).as_deref() == Some("0");
    let mut command = Command::new(if is_root { "env" } else { "sudo" });
    command.args((!is_root).then_some("env")).args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command
}

fn install_node_modules(folder: &str) -> Result<()> {
    let folder = Path::new(folder);
    let installed = folder.join("node_modules/.package-lock.json");
    let wanted = folder.join("package-lock.json");
    let age = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if age(&installed).zip(age(&wanted)).is_some_and(|(installed, wanted)| installed >= wanted) {
        return Ok(());
    }
    shell::run("npm", &["ci", "--prefix", &folder.to_string_lossy(), "--no-audit", "--no-fund"])
}

fn install_python(environment: &Environment) -> Result<()> {
    let directory = environment.directory();
    let stamp = directory.join("requirements.txt");
    let wanted = std::fs::read_to_string(environment.requirements)?;
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    shell::run("python3", &["-m", "venv", &directory.to_string_lossy()])?;
    let pip =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", environment.requirements];
    shell::run(&environment.python().to_string_lossy(), &pip)?;
    Ok(std::fs::write(stamp, wanted)?)
}

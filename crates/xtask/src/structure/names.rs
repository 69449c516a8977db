//! Names of types that have several meanings, and long files. Both are printed and do not fail.

use std::collections::BTreeMap;
use std::fs;

use super::modules::Crate;
use super::short;
use crate::process::{output, root};

/// Programs beside the product, which have words of their own.
const TOOLS: [&str; 2] = ["fanwire-loadtest", "xtask"];

/// A file with more lines than this likely holds more than one idea.
const LINES_MAX: usize = 500;

/// Returns the names that several types have, one a line, those of the product first.
pub(super) fn shared_names(crates: &[Crate]) -> String {
    let (tools, product): (Vec<_>, Vec<_>) =
        crates.iter().partition(|krate| TOOLS.contains(&krate.name.as_str()));
    let in_product = definitions(&product);
    let with_tools = definitions(&[product, tools].concat());
    let is_shared = |places: &&Vec<String>| places.len() > 1;
    let mut lines = format!(
        "{} names of types have several definitions in the product, {} with the tools:",
        in_product.values().filter(is_shared).count(),
        with_tools.values().filter(is_shared).count(),
    );
    for (name, places) in with_tools.iter().filter(|(_, places)| is_shared(places)) {
        lines.push_str(&format!("\n  {name}: {}", places.join(" ")));
    }
    lines
}

/// The names of types, each with the files that define it.
fn definitions(crates: &[&Crate]) -> BTreeMap<String, Vec<String>> {
    let mut definitions = BTreeMap::<String, Vec<String>>::new();
    for module in crates.iter().flat_map(|krate| &krate.modules) {
        for name in &module.types {
            definitions.entry(name.clone()).or_default().push(short(&module.file));
        }
    }
    definitions
}

/// Returns the files of the work tree with more than [`LINES_MAX`] lines.
pub(super) fn long_files() -> Result<String, String> {
    let arguments = ["ls-files", "--", "*.rs", "*.py", "*.mjs", "*.js", "*.lua"];
    let files = output("git", &arguments).ok_or("git cannot list the files of the work tree")?;
    let mut lines = format!("Files over {LINES_MAX} lines:");
    for file in files.lines() {
        // A file that was removed is still listed until the removal is staged.
        let Ok(text) = fs::read(root().join(file)) else { continue };
        let count = text.iter().filter(|byte| **byte == b'\n').count();
        if count > LINES_MAX {
            lines.push_str(&format!("\n  {count} {file}"));
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::super::modules::tests::planted;
    use super::*;

    #[test]
    fn names_that_tools_share_with_the_product_are_counted_apart() {
        let krate = |name: &str, code| Crate { name: name.to_owned(), ..planted(&[("src/lib.rs", code)]) };
        let crates = [
            krate("fanwire-loadtest", "struct Wire; struct Own;"),
            krate(
                "fanwire-hub",
                "enum Wire {} mod a { type Twice = u8; } mod b { trait Twice {} } fn Own() {}",
            ),
        ];
        let expected = "1 names of types have several definitions in the product, 2 with the tools:\n  \
                        Twice: lib.rs lib.rs\n  Wire: lib.rs lib.rs";
        assert_eq!(shared_names(&crates), expected);
    }
}

//! The configuration as text: the commented default file, and files translated from other servers' settings.

use std::fmt::Write;

use super::outline;
use super::section::Item;

const HEAD: &str = "\
# Configuration of Fanwire.
#
# Every key is listed with its default, commented out. To change one, remove the `#`.
# A later source wins: this file < further files < environment < flags. The environment joins sections
# and keys by two underscores: FANWIRE_CLIENT__PING_INTERVAL=20s. Appending _FILE to a variable's name reads
# its value from a file, for secrets. `fanwire check FILE` reports all mistakes at once.
#
# Durations and sizes have units: 500ms, 25s, 5m, 720h; 64KiB, 1MB.
";

/// Returns the default file, as `fanwire config default` prints it.
pub(crate) fn reference() -> String {
    let mut page = HEAD.to_owned();
    for item in outline() {
        match &item {
            Item::Section { path, about, repeated } => {
                page.push('\n');
                write_about(&mut page, about);
                let _ = if *repeated { writeln!(page, "#[[{path}]]") } else { writeln!(page, "[{path}]") };
            }
            Item::Key { name, about, default, .. } => {
                write_about(&mut page, about);
                let _ = match default {
                    Some(default) => writeln!(page, "#{name} = {default}"),
                    None => writeln!(page, "#{name} = # not set"),
                };
            }
        }
    }
    page
}

/// Returns a file that sets `values`, in the order of the reference.
pub(crate) fn write_file(values: &toml::Table) -> String {
    let mut page = String::new();
    let outline = outline();
    for item in &outline {
        let Item::Section { path, repeated, .. } = item else { continue };
        let (header, tables): (String, Vec<&toml::Table>) = match find(values, path) {
            Some(toml::Value::Table(table)) if !repeated => (format!("[{path}]"), vec![table]),
            Some(toml::Value::Array(list)) if *repeated => {
                (format!("[[{path}]]"), list.iter().filter_map(toml::Value::as_table).collect())
            }
            _ => continue,
        };
        for table in tables {
            let mut lines = String::new();
            for item in &outline {
                let Item::Key { section, name, .. } = item else { continue };
                if section == path
                    && let Some(value) = table.get(*name)
                {
                    let _ = writeln!(lines, "{name} = {value}");
                }
            }
            if !lines.is_empty() {
                let _ = write!(page, "\n{header}\n{lines}");
            }
        }
    }
    page
}

fn write_about(page: &mut String, about: &[&str]) {
    for line in about {
        let _ = writeln!(page, "#{}", line.trim_end());
    }
}

fn find<'t>(values: &'t toml::Table, path: &str) -> Option<&'t toml::Value> {
    let (section, rest) = path.split_once('.').map_or((path, None), |(section, rest)| (section, Some(rest)));
    let value = values.get(section)?;
    match rest {
        None => Some(value),
        Some(rest) => find(value.as_table()?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::judge;
    use super::*;

    #[test]
    fn every_key_of_the_reference_is_one() {
        let page = reference();
        let uncommented: String = page
            .lines()
            .filter(|line| !line.contains("# not set"))
            .map(|line| match line.strip_prefix('#') {
                Some(key) if key.starts_with("[[") || key.split(" = ").next().is_some_and(is_bare) => key,
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let named = uncommented.replace("name = \"\"", "name = \"chat\"");
        let named = named.replace("url = \"\"", "url = \"http://backend\"");
        let values = toml::from_str(&named).unwrap();
        assert_eq!(judge(values, "reference.toml".into()).0, []);
    }

    fn is_bare(key: &str) -> bool {
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    }

    #[test]
    fn written_files_keep_the_order_of_the_reference() {
        let values = toml::from_str(
            "[topics]\nlength_max = 3\n[[topics.namespaces]]\nname = 'b'\n[[topics.namespaces]]\npresence = true\n\
             name = 'a'\n[client.token]\nhmac_secret = 's'\n[server]\nport = 1\naddress = '::'\n",
        )
        .unwrap();
        let expected = "\n[server]\naddress = \"::\"\nport = 1\n\n[client.token]\nhmac_secret = \"s\"\n\n[topics]\nlength_max = 3\n\
             \n[[topics.namespaces]]\nname = \"b\"\n\n[[topics.namespaces]]\nname = \"a\"\npresence = true\n";
        assert_eq!(write_file(&values), expected);
    }
}

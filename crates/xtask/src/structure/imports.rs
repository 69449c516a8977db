//! Imports between the files of a crate, and circles of them.
//!
//! A file imports another if one of its paths leads to something that is defined there. A `use` on the way is followed to
//! the definition, so a re-export is no detour. What a file takes from its own ancestors is not counted: children extend
//! what their parents define. What a parent takes from its children is.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

use super::modules::{Crate, NamePath};

/// Each file with the files it imports, and a path by which it does.
type Imports<'c> = BTreeMap<&'c Path, BTreeMap<&'c Path, &'c NamePath>>;

/// Files of a crate that reach one another by their imports.
#[derive(Debug)]
pub(super) struct Circle {
    pub(super) files: Vec<PathBuf>,
    /// The shortest way round: a file, and the path by which it imports the next one.
    round: Vec<(PathBuf, String)>,
}

impl fmt::Display for Circle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} files import one another:", self.files.len())?;
        for (file, path) in &self.round {
            writeln!(formatter, "  {} uses {path}", file.display())?;
        }
        let files: Vec<_> = self.files.iter().map(|file| file.display().to_string()).collect();
        write!(formatter, "  all of them: {}", files.join(" "))
    }
}

/// Finds the circles of a crate.
pub(super) fn circles(krate: &Crate) -> Vec<Circle> {
    let imports = imports(krate);
    let reached: BTreeMap<&Path, BTreeSet<&Path>> =
        imports.keys().map(|file| (*file, reached_from(file, &imports))).collect();
    let mut circles = Vec::new();
    let mut done = BTreeSet::new();
    for (file, others) in &reached {
        if !others.contains(file) || done.contains(file) {
            continue;
        }
        let reaches_back = |other: &&&Path| reached.get(**other).is_some_and(|back| back.contains(file));
        let files: BTreeSet<&Path> = others.iter().filter(reaches_back).copied().collect();
        let rounds = files.iter().filter_map(|file| shortest_round(file, &imports));
        circles.push(Circle {
            round: rounds.min_by_key(Vec::len).expect("each file of a circle lies on a way round"),
            files: files.iter().map(|file| file.to_path_buf()).collect(),
        });
        done.extend(files);
    }
    circles
}

fn imports(krate: &Crate) -> Imports<'_> {
    let mut imports = Imports::new();
    for (place, module) in krate.modules.iter().enumerate() {
        let ancestors = ancestors(krate, place);
        let from_globs = module.globs.iter().map(|path| (path, true));
        let from_paths = module.paths.iter().map(|path| (path, false));
        for (path, is_glob) in from_globs.chain(from_paths) {
            let found = match find(krate, place, path, &mut Vec::new()) {
                Some(Found::Item(found)) => found,
                Some(Found::Module(found)) if is_glob => found,
                // A module's name alone takes nothing from it.
                _ => continue,
            };
            let file = krate.modules[found].file.as_path();
            if file != module.file && !ancestors.contains(file) {
                imports.entry(&module.file).or_default().entry(file).or_insert(path);
            }
        }
    }
    imports
}

/// The files of a module's ancestors.
fn ancestors(krate: &Crate, mut place: usize) -> BTreeSet<&Path> {
    let mut ancestors = BTreeSet::new();
    while let Some(parent) = krate.modules[place].parent {
        ancestors.insert(krate.modules[parent].file.as_path());
        place = parent;
    }
    ancestors
}

/// The module that a path leads to.
#[derive(Clone, Copy)]
enum Found {
    /// The path names the module itself.
    Module(usize),
    /// The path names something the module defines.
    Item(usize),
}

/// Follows a path from a module; `None` where it leads out of the crate. `seen` holds the names that are being followed.
fn find(krate: &Crate, place: usize, path: &[String], seen: &mut Vec<(usize, String)>) -> Option<Found> {
    let Some((head, rest)) = path.split_first() else { return Some(Found::Module(place)) };
    let module = &krate.modules[place];
    match head.as_str() {
        "crate" => return find(krate, 0, rest, seen),
        "self" => return find(krate, place, rest, seen),
        "super" => return find(krate, module.parent?, rest, seen),
        _ => {}
    }
    if let Some(child) = module.children.get(head) {
        return find(krate, *child, rest, seen);
    }
    if module.items.contains(head) {
        return Some(Found::Item(place));
    }
    let step = (place, head.clone());
    if seen.contains(&step) {
        return None;
    }
    seen.push(step);
    if let Some(used) = module.uses.get(head) {
        let whole: NamePath = used.iter().chain(rest).cloned().collect();
        if let Some(found) = find(krate, place, &whole, seen) {
            return Some(found);
        }
    }
    module.globs.iter().find_map(|glob| match find(krate, place, glob, seen)? {
        Found::Module(other) if other != place => find(krate, other, path, seen),
        _ => None,
    })
}

/// The files that a file imports, and those that they import.
fn reached_from<'c>(file: &Path, imports: &Imports<'c>) -> BTreeSet<&'c Path> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![file];
    while let Some(file) = waiting.pop() {
        for next in imports.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(*next) {
                waiting.push(next);
            }
        }
    }
    reached
}

/// The shortest way from a file back to itself.
fn shortest_round(file: &Path, imports: &Imports<'_>) -> Option<Vec<(PathBuf, String)>> {
    let mut came_from: HashMap<&Path, &Path> = HashMap::new();
    let mut waiting = VecDeque::from([file]);
    while let Some(at) = waiting.pop_front() {
        for next in imports.get(at).into_iter().flat_map(BTreeMap::keys) {
            if came_from.contains_key(next) {
                continue;
            }
            came_from.insert(next, at);
            waiting.push_back(next);
        }
    }
    let mut round = Vec::new();
    let mut to = file;
    loop {
        let from = *came_from.get(to)?;
        round.push((from.to_owned(), imports[from][to].join("::")));
        to = from;
        if to == file {
            round.reverse();
            return Some(round);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::modules::tests::planted;
    use super::*;

    /// The circles of a crate with these files beside its root, each as the names of its files.
    fn circles_of(root: &str, files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = [("src/lib.rs", root)].into_iter().chain(files.iter().copied()).collect();
        let circles = circles(&planted(&files));
        circles
            .iter()
            .map(|circle| {
                let names = circle.files.iter().filter_map(|file| file.strip_prefix("src").ok()?.to_str());
                names.collect::<Vec<_>>().join(" ")
            })
            .collect()
    }

    #[test]
    fn a_planted_circle_is_found_and_told() {
        let files = [
            ("src/lib.rs", "mod a; mod b; mod c;"),
            ("src/a.rs", "use crate::b::B; pub struct A;"),
            ("src/b.rs", "pub struct B; fn f() { crate::a::A }"),
            ("src/c.rs", "use crate::a::A;"),
        ];
        let circles = circles(&planted(&files));
        assert_eq!(circles.len(), 1);
        let expected = "2 files import one another:\n  src/a.rs uses crate::b::B\n  src/b.rs uses crate::a::A\n  \
                        all of them: src/a.rs src/b.rs";
        assert_eq!(circles[0].to_string(), expected);
    }

    #[test]
    fn a_circle_through_several_files_is_one() {
        let files = [
            ("src/a.rs", "use super::b::B; pub struct A;"),
            ("src/b.rs", "use super::c::C; pub struct B;"),
            ("src/c.rs", "pub struct C; fn f() { assert!(super::a::A == 1); }"),
            ("src/d.rs", "use super::a::A;"),
        ];
        assert_eq!(circles_of("mod a; mod b; mod c; mod d;", &files), ["a.rs b.rs c.rs"]);
    }

    #[test]
    fn a_child_may_use_its_ancestors_and_they_use_it() {
        let files = [
            ("src/a/mod.rs", "mod b; pub struct A; fn f(_: b::B) {}"),
            ("src/a/b.rs", "use super::A; use crate::Root; pub struct B; "),
        ];
        assert!(circles_of("mod a; pub struct Root; use a::A;", &files).is_empty());
        // Through a sibling of its parent it is a circle all the same.
        let files = [
            ("src/a/mod.rs", "mod b; pub struct A; fn f(_: b::B) {}"),
            ("src/a/b.rs", "use crate::c::C; pub struct B; "),
            ("src/c.rs", "use crate::a::A; pub struct C;"),
        ];
        assert_eq!(circles_of("mod a; mod c;", &files), ["a/b.rs a/mod.rs c.rs"]);
    }

    #[test]
    fn re_exports_and_globs_lead_to_the_definition() {
        let files = [
            ("src/a/mod.rs", "mod b; mod c; pub use b::*; pub use c::C as Renamed;"),
            ("src/a/b.rs", "use crate::a::Renamed; pub struct B;"),
            ("src/a/c.rs", "use crate::a::B; pub struct C;"),
        ];
        assert_eq!(circles_of("mod a;", &files), ["a/b.rs a/c.rs"]);
    }

    #[test]
    fn the_name_of_a_module_and_code_of_tests_are_no_imports() {
        let files = [
            ("src/a.rs", "use crate::b; pub struct A;"),
            ("src/b.rs", "use crate::a::A;"),
            ("src/c.rs", "#[cfg(test)] mod tests { use crate::d::D; } pub struct C;"),
            ("src/d.rs", "use crate::c::C; pub struct D;"),
        ];
        assert!(circles_of("mod a; mod b; mod c; mod d;", &files).is_empty());
    }
}

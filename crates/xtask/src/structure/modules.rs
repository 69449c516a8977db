//! The modules of a crate as its files declare them: the names each defines and the paths it uses. Code that only tests
//! or the documentation see is left out.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, Meta, Token, UseTree};

/// Reads a file; `None` if there is none.
pub(super) type ReadFile<'a> = &'a dyn Fn(&Path) -> Option<String>;

/// The names between `::`.
pub(super) type NamePath = Vec<String>;

/// The modules of one library or program.
pub(super) struct Crate {
    pub(super) name: String,
    /// The first one is the root.
    pub(super) modules: Vec<Module>,
}

#[derive(Default)]
pub(super) struct Module {
    pub(super) file: PathBuf,
    /// The place of the parent in [`Crate::modules`].
    pub(super) parent: Option<usize>,
    pub(super) children: HashMap<String, usize>,
    /// The names that the module defines, its types included.
    pub(super) items: HashSet<String>,
    pub(super) types: Vec<String>,
    /// Paths of `use` items, by the name they have in the module.
    pub(super) uses: HashMap<String, NamePath>,
    /// Paths of `use path::*`.
    pub(super) globs: Vec<NamePath>,
    /// Paths of other `use` items and of the code.
    pub(super) paths: Vec<NamePath>,
}

impl Crate {
    /// Reads the crate with this root file and all files that belong to it.
    pub(super) fn read(name: &str, root: &Path, read: ReadFile<'_>) -> Result<Self, String> {
        let mut this = Self { name: name.to_owned(), modules: Vec::new() };
        let folder = root.parent().expect("a file lies in a folder");
        this.add_file(root, folder, None, read)?;
        Ok(this)
    }

    /// `folder` holds the files of the module's children.
    fn add_file(
        &mut self,
        file: &Path,
        folder: &Path,
        parent: Option<usize>,
        read: ReadFile<'_>,
    ) -> Result<usize, String> {
        let text = read(file).ok_or_else(|| format!("cannot read {}", file.display()))?;
        let parsed =
            syn::parse_file(&text).map_err(|error| format!("cannot parse {}: {error}", file.display()))?;
        self.add(file, folder, parent, &parsed.items, read)
    }

    fn add(
        &mut self,
        file: &Path,
        folder: &Path,
        parent: Option<usize>,
        items: &[Item],
        read: ReadFile<'_>,
    ) -> Result<usize, String> {
        let place = self.modules.len();
        self.modules.push(Module { file: file.to_owned(), parent, ..Module::default() });
        for item in items {
            let (name, attributes) = name_and_attributes(item);
            if are_for_tests(attributes) {
                continue;
            }
            let name = name.map(text);
            let Item::Mod(module) = item else {
                let module = &mut self.modules[place];
                if is_type(item) {
                    module.types.extend(name.clone());
                }
                module.items.extend(name);
                module.visit_item(item);
                continue;
            };
            let name = name.expect("a module has a name");
            let below = folder.join(&name);
            let child = match &module.content {
                Some((_, items)) => self.add(file, &below, Some(place), items, read)?,
                None => {
                    let files = [folder.join(format!("{name}.rs")), below.join("mod.rs")];
                    let found = files.iter().find(|file| read(file).is_some());
                    let found =
                        found.ok_or_else(|| format!("no file for module {name} of {}", file.display()))?;
                    self.add_file(found, &below, Some(place), read)?
                }
            };
            self.modules[place].children.insert(name, child);
        }
        Ok(place)
    }
}

impl Module {
    fn add_uses(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &Ident| -> NamePath {
            let own = (name != "self").then(|| text(name));
            before.iter().cloned().chain(own).collect()
        };
        match tree {
            UseTree::Path(path) => self.add_uses(&path.tree, &with(&path.ident)),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_uses(tree, before)),
            UseTree::Glob(_) => self.globs.push(before.to_vec()),
            UseTree::Name(name) => {
                let path = with(&name.ident);
                self.uses.extend(path.last().map(|name| (name.clone(), path.clone())));
                self.paths.push(path);
            }
            UseTree::Rename(renamed) => {
                let path = with(&renamed.ident);
                if renamed.rename != "_" {
                    self.uses.insert(text(&renamed.rename), path.clone());
                }
                self.paths.push(path);
            }
        }
    }

    /// A single name in lowercase is a local variable more often than an item.
    fn add_path(&mut self, path: NamePath) {
        let is_type = |name: &String| name.starts_with(char::is_uppercase);
        if path.len() > 1 || path.first().is_some_and(is_type) {
            self.paths.push(path);
        }
    }

    /// Adds the paths in a macro's arguments, which have no syntax of their own.
    fn add_paths_in(&mut self, tokens: TokenStream) {
        let mut path = NamePath::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.add_path(std::mem::take(&mut path));
                    }
                    path.push(text(&name));
                    colons = 0;
                }
                other => {
                    self.add_path(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_paths_in(group.stream());
                    }
                }
            }
        }
        self.add_path(path);
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item(&mut self, item: &'ast Item) {
        if !are_for_tests(name_and_attributes(item).1) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !are_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.add_uses(&item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.add_path(path.segments.iter().map(|segment| text(&segment.ident)).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_token_stream(&mut self, tokens: &'ast TokenStream) {
        self.add_paths_in(tokens.clone());
    }
}

fn text(name: &Ident) -> String {
    let name = name.to_string();
    name.strip_prefix("r#").map_or_else(|| name.clone(), str::to_owned)
}

fn is_type(item: &Item) -> bool {
    matches!(item, Item::Struct(_) | Item::Enum(_) | Item::Trait(_) | Item::Union(_) | Item::Type(_))
}

fn name_and_attributes(item: &Item) -> (Option<&Ident>, &[Attribute]) {
    match item {
        Item::Const(item) => (Some(&item.ident), &item.attrs),
        Item::Enum(item) => (Some(&item.ident), &item.attrs),
        Item::ExternCrate(item) => (None, &item.attrs),
        Item::Fn(item) => (Some(&item.sig.ident), &item.attrs),
        Item::ForeignMod(item) => (None, &item.attrs),
        Item::Impl(item) => (None, &item.attrs),
        Item::Macro(item) => (item.ident.as_ref(), &item.attrs),
        Item::Mod(item) => (Some(&item.ident), &item.attrs),
        Item::Static(item) => (Some(&item.ident), &item.attrs),
        Item::Struct(item) => (Some(&item.ident), &item.attrs),
        Item::Trait(item) => (Some(&item.ident), &item.attrs),
        Item::TraitAlias(item) => (Some(&item.ident), &item.attrs),
        Item::Type(item) => (Some(&item.ident), &item.attrs),
        Item::Union(item) => (Some(&item.ident), &item.attrs),
        Item::Use(item) => (None, &item.attrs),
        _ => (None, &[]),
    }
}

/// Returns true for `cfg(test)` and `cfg(doc)`.
fn are_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args().is_ok_and(|condition| is_for_tests(&condition))
    })
}

fn is_for_tests(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test") || path.is_ident("doc"),
        Meta::List(list) => {
            let Ok(conditions) = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else {
                return false;
            };
            list.path.is_ident("all") && conditions.iter().any(is_for_tests)
                || list.path.is_ident("any") && conditions.iter().all(is_for_tests)
        }
        Meta::NameValue(_) => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A crate with these files.
    pub(in crate::structure) fn planted(files: &[(&str, &str)]) -> Crate {
        let read = |file: &Path| {
            files.iter().find(|(name, _)| Path::new(name) == file).map(|(_, text)| (*text).to_owned())
        };
        Crate::read("planted", Path::new("src/lib.rs"), &read).expect("the planted crate is whole")
    }

    fn paths(code: &str) -> Vec<String> {
        planted(&[("src/lib.rs", code)]).modules[0].paths.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn paths_of_uses_types_code_and_macros_are_found() {
        assert_eq!(paths("use a::{self, B as C, d::{E, *}};"), ["a", "a::B", "a::d::E"]);
        assert_eq!(paths("fn f(x: a::B<c::D>) { let y = e::f(x); y.g }"), ["a::B", "c::D", "e::f"]);
        assert_eq!(
            paths("fn f() { print!(\"{}\", a::b(c::D, [e::f::<G>])); }"),
            ["a::b", "c::D", "e::f", "G"]
        );
        assert_eq!(paths("pub(in crate::a) struct S; fn f() { use b::C; }"), ["b::C"]);
    }

    #[test]
    fn code_for_tests_is_left_out() {
        for condition in ["test", "doc", "all(test, unix)", "any(test, doc)"] {
            assert!(paths(&format!("#[cfg({condition})] use a::B;")).is_empty(), "{condition}");
            assert!(paths(&format!("#[cfg({condition})] mod tests;")).is_empty(), "{condition}");
            let function = format!("impl S {{ #[cfg({condition})] fn f() {{ a::b() }} }}");
            assert_eq!(paths(&function), ["S"], "{condition}");
        }
        for condition in ["not(test)", "any(test, unix)", "all(unix, target_os = \"linux\")"] {
            assert_eq!(paths(&format!("#[cfg({condition})] use a::B;")), ["a::B"], "{condition}");
        }
    }

    #[test]
    fn files_of_modules_lie_where_the_compiler_looks_for_them() {
        let planted = planted(&[
            ("src/lib.rs", "mod a; mod b { mod c; }"),
            ("src/a.rs", "mod d;"),
            ("src/a/d.rs", "mod e;"),
            ("src/a/d/e/mod.rs", "struct E;"),
            ("src/b/c.rs", "enum C {} fn f() {}"),
        ]);
        let files: Vec<_> = planted.modules.iter().map(|module| module.file.display().to_string()).collect();
        assert_eq!(
            files,
            ["src/lib.rs", "src/a.rs", "src/a/d.rs", "src/a/d/e/mod.rs", "src/lib.rs", "src/b/c.rs"]
        );
        assert_eq!(planted.modules[5].types, ["C"]);
    }

    #[test]
    fn a_module_without_a_file_is_an_error() {
        let read = |file: &Path| (file == Path::new("src/lib.rs")).then(|| "mod a;".to_owned());
        let error = Crate::read("planted", Path::new("src/lib.rs"), &read).err();
        assert_eq!(error.as_deref(), Some("no file for module a of src/lib.rs"));
    }
}

//! The chat room page that `--dev` serves, embedded in the binary. Its files are served as they stand: no build step, no
//! third-party code, and nothing inline, so that the strict content security policy below holds.

/// Sent with every file of the page: it loads from its own origin and connects to its own origin, nowhere else.
pub(crate) const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A file of the page, with the path it answers under.
#[derive(Debug)]
pub(crate) struct PageFile {
    pub(crate) path: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: &'static str,
}

/// The file that answers under `path`, if the page has one.
pub(crate) fn file(path: &str) -> Option<&'static PageFile> {
    FILES.iter().find(|file| file.path == path)
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const FILES: [PageFile; 8] = [
    PageFile { path: "/", content_type: HTML, body: include_str!("index.html") },
    PageFile { path: "/chat.css", content_type: CSS, body: include_str!("chat.css") },
    PageFile { path: "/favicon.svg", content_type: SVG, body: include_str!("favicon.svg") },
    PageFile { path: "/chat.js", content_type: SCRIPT, body: include_str!("chat.js") },
    PageFile { path: "/app.js", content_type: SCRIPT, body: include_str!("app.js") },
    PageFile { path: "/room.js", content_type: SCRIPT, body: include_str!("room.js") },
    PageFile { path: "/connection.js", content_type: SCRIPT, body: include_str!("connection.js") },
    PageFile { path: "/view.js", content_type: SCRIPT, body: include_str!("view.js") },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in `text` between each `marker` and the quotation mark that follows it.
    fn quoted_after<'a>(text: &'a str, marker: &str) -> Vec<&'a str> {
        text.split(marker).skip(1).filter_map(|rest| rest.split(['"', '\'']).next()).collect()
    }

    #[test]
    fn everything_the_page_refers_to_is_served() {
        let page = file("/").expect("the page itself");
        let mut paths = quoted_after(page.body, "href=\"/");
        paths.extend(quoted_after(page.body, "src=\"/"));
        for script in FILES.iter().filter(|file| file.content_type == SCRIPT) {
            paths.extend(quoted_after(script.body, "from './"));
        }
        assert!(paths.len() > 6, "found only {paths:?}");
        for path in paths {
            assert!(file(&format!("/{path}")).is_some(), "/{path} is referred to but not served");
        }
        assert!(file("/chat").is_none());
    }

    #[test]
    fn nothing_inline_and_nothing_foreign() {
        let page = file("/").expect("the page itself").body;
        for forbidden in
            ["<script>", "<style", "style=\"", "onclick=\"", "onload=\"", "src=\"http", "href=\"http"]
        {
            assert!(!page.contains(forbidden), "{forbidden} would be refused by the policy");
        }
        for script in FILES.iter().filter(|file| file.content_type == SCRIPT) {
            for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!script.body.contains(forbidden), "{} uses {forbidden}", script.path);
            }
        }
    }
}

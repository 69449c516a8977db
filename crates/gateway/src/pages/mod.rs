//! The chat room page that `--dev` serves, embedded in the binary. Its files are served as they are: no build step, no
//! third-party code, and nothing inline, so that the strict content security policy below holds.

use fanwire_server::settings::{StaticFile, StaticFiles};

/// The page loads from its own origin and connects to its own origin, nowhere else.
pub(crate) const CHAT: StaticFiles = StaticFiles {
    files: &FILES,
    security_policy: "default-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

static FILES: [StaticFile; 12] = [
    StaticFile { path: "/", content_type: HTML, body: include_str!("chat/index.html") },
    StaticFile { path: "/chat.css", content_type: CSS, body: include_str!("chat/chat.css") },
    StaticFile { path: "/favicon.svg", content_type: SVG, body: include_str!("chat/favicon.svg") },
    StaticFile { path: "/chat.js", content_type: SCRIPT, body: include_str!("chat/chat.js") },
    StaticFile { path: "/app.js", content_type: SCRIPT, body: include_str!("chat/app.js") },
    StaticFile { path: "/room.js", content_type: SCRIPT, body: include_str!("chat/room.js") },
    StaticFile { path: "/connection.js", content_type: SCRIPT, body: include_str!("chat/connection.js") },
    StaticFile { path: "/fallback.js", content_type: SCRIPT, body: include_str!("chat/fallback.js") },
    StaticFile { path: "/transport.js", content_type: SCRIPT, body: include_str!("chat/transport.js") },
    StaticFile { path: "/http.js", content_type: SCRIPT, body: include_str!("chat/http.js") },
    StaticFile { path: "/view.js", content_type: SCRIPT, body: include_str!("chat/view.js") },
    StaticFile { path: "/elements.js", content_type: SCRIPT, body: include_str!("chat/elements.js") },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the parts of `text` between each `marker` and the next quotation mark.
    fn quoted_after<'a>(text: &'a str, marker: &str) -> Vec<&'a str> {
        text.split(marker).skip(1).filter_map(|rest| rest.split(['"', '\'']).next()).collect()
    }

    #[test]
    fn everything_the_page_refers_to_is_served() {
        let page = CHAT.file("/").expect("the page itself");
        let mut paths = quoted_after(page.body, "href=\"/");
        paths.extend(quoted_after(page.body, "src=\"/"));
        for script in FILES.iter().filter(|file| file.content_type == SCRIPT) {
            paths.extend(quoted_after(script.body, "from './"));
        }
        assert!(paths.len() > 6, "found only {paths:?}");
        for path in paths {
            assert!(CHAT.file(&format!("/{path}")).is_some(), "/{path} is referred to but not served");
        }
        assert!(CHAT.file("/chat").is_none());
    }

    #[test]
    fn nothing_inline_and_nothing_foreign() {
        let page = CHAT.file("/").expect("the page itself").body;
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

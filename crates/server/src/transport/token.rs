//! The connection token of a request without a body of its own: in a header, in the query or in a cookie.

use std::borrow::Cow;

use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap};

use crate::accept::origin::Origin;

/// Returns the token; empty: none. The header comes first, then the query, then the cookie of this name.
///
/// Browsers add cookies to requests of every page, so a cookie counts only where a page that may act for the user asks: one
/// of an allowed origin, or of the server's own. Any other request is read as if it had no cookie.
pub(super) fn token<'r>(
    headers: &'r HeaderMap,
    query: Cow<'r, str>,
    origin: &Origin<'_>,
    cookie: Option<&str>,
) -> Cow<'r, str> {
    if let Some(token) = bearer(headers) {
        return token.into();
    }
    if !query.is_empty() {
        return query;
    }
    let cookie = cookie.filter(|_| may_use_cookie(headers, origin));
    cookie.and_then(|name| cookie_value(headers, name)).unwrap_or_default().into()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// Without an origin, only a browser that says so can be one whose page is the server's own. The page's script has to ask:
/// an image or a link in it may be another user's.
fn may_use_cookie(headers: &HeaderMap, origin: &Origin<'_>) -> bool {
    const OF_SCRIPTS: [&str; 3] = ["cors", "same-origin", "websocket"];
    match origin {
        Origin::Allowed(_) => true,
        Origin::None => {
            let is_own = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
            // Browsers send both or none.
            let mode = headers.get("sec-fetch-mode");
            is_own && mode.is_none_or(|mode| OF_SCRIPTS.iter().any(|of_script| mode == of_script))
        }
        Origin::Refused => false,
    }
}

/// Returns the value of the first cookie of this name.
fn cookie_value<'r>(headers: &'r HeaderMap, name: &str) -> Option<&'r str> {
    let values = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut cookies = values.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.split_once('='));
    cookies.find(|(own, _)| own.trim() == name).map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_header_comes_first_then_the_query_then_the_cookie() {
        let page = HeaderValue::from_static("https://a.example");
        let origin = Origin::Allowed(&page);
        let bearer = ("authorization", "bearer  by-header ");
        let cookie = ("cookie", "theme=dark; token=by-cookie");
        let cases: [(&[_], &str, &str); 9] = [
            (&[bearer, cookie], "by-query", "by-header"),
            (&[cookie], "by-query", "by-query"),
            (&[cookie], "", "by-cookie"),
            (&[("authorization", "Bearer "), cookie], "by-query", "by-query"),
            (&[("authorization", "Basic dTpw"), cookie], "", "by-cookie"),
            (&[("cookie", "theme=dark"), ("cookie", "token=\"quoted\"; token=second")], "", "quoted"),
            (&[("cookie", "xtoken=x; token2=x; Token=x")], "", ""),
            (&[("cookie", "token; ;=; token")], "", ""),
            (&[], "", ""),
        ];
        for (lines, query, expected) in cases {
            let headers = headers(lines);
            assert_eq!(token(&headers, query.into(), &origin, Some("token")), expected, "{lines:?} {query}");
        }
    }

    #[test]
    fn a_cookie_counts_only_where_a_script_of_the_own_page_asks() {
        for (mode, counts) in [
            ("cors", true),
            ("same-origin", true),
            ("websocket", true),
            ("no-cors", false),
            ("navigate", false),
            ("", false),
        ] {
            let own = ("sec-fetch-site", "same-origin");
            let headers = headers(&[("cookie", "token=t"), own, ("sec-fetch-mode", mode)]);
            let expected = if counts { "t" } else { "" };
            assert_eq!(token(&headers, "".into(), &Origin::None, Some("token")), expected, "{mode}");
        }
    }

    #[test]
    fn a_cookie_counts_only_where_a_page_may_act_for_the_user() {
        let page = HeaderValue::from_static("https://a.example");
        let site = |site| ("sec-fetch-site", site);
        let cases = [
            (Origin::Allowed(&page), None, true),
            (Origin::Allowed(&page), Some(site("cross-site")), true),
            (Origin::None, Some(site("same-origin")), true),
            (Origin::None, Some(site("same-site")), false),
            (Origin::None, Some(site("cross-site")), false),
            (Origin::None, Some(site("none")), false),
            (Origin::None, None, false),
            (Origin::Refused, None, false),
            (Origin::Refused, Some(site("same-origin")), false),
        ];
        for (origin, site, counts) in cases {
            let lines: Vec<_> = [("cookie", "token=t")].into_iter().chain(site).collect();
            let headers = headers(&lines);
            let expected = if counts { "t" } else { "" };
            assert_eq!(token(&headers, "".into(), &origin, Some("token")), expected, "{origin:?} {site:?}");
            assert_eq!(token(&headers, "".into(), &origin, None), "", "no cookie is configured");
        }
    }
}

//! Checks the key of a request. A key is never repeated, logged or revealed by timing.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use hyper::header::{AUTHORIZATION, HeaderMap};
use secrecy::ExposeSecret;

use super::refusal::HttpRefusal;
use crate::settings::ApiSettings;

const SCHEME: &str = "apikey";

/// Passes a request that carries a key in any of the three places.
pub(super) fn check(
    settings: &ApiSettings,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<(), HttpRefusal> {
    if settings.insecure {
        return Ok(());
    }
    if settings.keys.is_empty() {
        return Err(HttpRefusal::NoKeys);
    }
    let own_header = headers.get_all("x-api-key").iter().map(|value| value.as_bytes().to_vec());
    let authorization = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, key) = value.to_str().ok()?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case(SCHEME).then(|| key.trim().as_bytes().to_vec())
    });
    let parameters = form_urlencoded::parse(query.unwrap_or("").as_bytes())
        .filter_map(|(name, key)| (name == "api_key").then(|| key.into_owned().into_bytes()));
    let sent: Vec<Vec<u8>> = own_header.chain(authorization).chain(parameters).collect();
    if sent.is_empty() {
        return Err(HttpRefusal::NoKey);
    }
    // Every key is compared with every other, so that time does not tell which one it was.
    let matches = sent.iter().flat_map(|sent| settings.keys.iter().map(move |key| (sent, key)));
    let found = matches
        .filter(|(sent, key)| verify_slices_are_equal(sent, key.expose_secret().as_bytes()).is_ok())
        .count();
    if found > 0 { Ok(()) } else { Err(HttpRefusal::WrongKey) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};
    use secrecy::SecretString;

    fn settings(keys: &[&str], insecure: bool) -> ApiSettings {
        ApiSettings {
            path: "/api".into(),
            on_client_port: true,
            on_internal_port: true,
            keys: keys.iter().map(|key| SecretString::from(*key)).collect(),
            insecure,
            connections_max: 1,
            idle_timeout: std::time::Duration::from_secs(1),
            body_bytes_max: 1000,
            commands_max: 10,
            topics_max: 10,
            answer_bytes_max: 1,
            transport_errors: false,
        }
    }

    #[test]
    fn a_key_opens_from_three_places() {
        let settings = settings(&["old key", "new&key"], false);
        let check = |headers: &[(&'static str, &'static str)], query| {
            let headers = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            check(&settings, &headers, query)
        };
        let open = [
            check(&[("x-api-key", "old key")], None),
            check(&[("x-api-key", "new&key")], None),
            check(&[("authorization", "apikey old key")], None),
            check(&[("authorization", "ApiKey  new&key ")], None),
            check(&[], Some("api_key=old+key")),
            check(&[], Some("a=b&api_key=new%26key&c")),
            // One right key is enough.
            check(&[("x-api-key", "wrong"), ("authorization", "apikey old key")], Some("api_key=")),
        ];
        assert!(open.iter().all(Result::is_ok), "{open:?}");
        for nothing in [
            check(&[], None),
            check(&[], Some("key=old+key")),
            check(&[("authorization", "Bearer old key")], None),
            check(&[("authorization", "old key")], None),
        ] {
            assert_eq!(nothing, Err(HttpRefusal::NoKey));
        }
        for wrong in [
            check(&[("x-api-key", "old")], None),
            check(&[("x-api-key", "")], None),
            check(&[("x-api-key", "OLD KEY")], None),
            check(&[("authorization", "apikey old keys")], None),
            check(&[], Some("api_key=wrong")),
            check(&[], Some("api_key")),
        ] {
            assert_eq!(wrong, Err(HttpRefusal::WrongKey));
        }
    }

    #[test]
    fn without_keys_it_is_closed_unless_it_is_open_to_all() {
        let mut headers = HeaderMap::new();
        assert_eq!(check(&settings(&[], false), &headers, None), Err(HttpRefusal::NoKeys));
        headers.insert("x-api-key", HeaderValue::from_static(""));
        assert_eq!(check(&settings(&[], false), &headers, None), Err(HttpRefusal::NoKeys));
        assert_eq!(check(&settings(&[], true), &HeaderMap::new(), None), Ok(()));
        assert_eq!(check(&settings(&["key"], true), &HeaderMap::new(), None), Ok(()));
    }
}

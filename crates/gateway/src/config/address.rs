//! The address of a server to connect to: a host and a port, and nothing else. Text that cannot be parsed is not
//! printed, since the usual mistake is a URL with a password in it.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};

/// `redis.example.com:6379`, `127.0.0.1:6379`, `[::1]:6379`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name or an address, without the brackets of an IPv6 address.
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
}

const EXAMPLES: &str = "\"127.0.0.1:6379\" or \"[::1]:6379\"";

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err(format!(
                "must be host:port, as in {EXAMPLES}, not a URL; user, password and database have keys of their own: \
                 username, password, database"
            ));
        }
        if text.contains('@') {
            return Err(format!(
                "must be host:port alone, as in {EXAMPLES}; user and password have keys of their own: username, password"
            ));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("has no port; it must be host:port, as in {EXAMPLES}"));
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bracketed.is_none() && host.contains(':') {
            return Err(format!(
                "an IPv6 address must be in brackets, followed by the port, as in {EXAMPLES}"
            ));
        }
        let is_host = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
            }
        };
        if !is_host {
            return Err(format!("has no usable host; it must be host:port, as in {EXAMPLES}"));
        }
        // `parse` accepts a sign.
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if is_number && port != 0 => Ok(Self { host: bracketed.unwrap_or(host).into(), port }),
            _ => Err(format!("has no usable port; it must be host:port, as in {EXAMPLES}")),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(Error::custom)
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_names_and_both_kinds_of_addresses_are_taken() {
        for (text, host, port) in [
            ("127.0.0.1:6379", "127.0.0.1", 6379),
            ("redis:1", "redis", 1),
            ("my_redis-0.example.com:65535", "my_redis-0.example.com", 65535),
            ("[::1]:6379", "::1", 6379),
            ("[2001:db8::7]:6379", "2001:db8::7", 6379),
        ] {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!((&*parsed.host, parsed.port, parsed.to_string()), (host, port, text.to_owned()));
        }
    }

    #[test]
    fn mistakes_are_named_and_no_secret_is_printed() {
        for (text, expected) in [
            ("redis://user:hunter2@host:6379/1", "username, password, database"),
            ("rediss://host", "not a URL"),
            ("unix:///var/run/redis.sock", "not a URL"),
            ("user:hunter2@host:6379", "keys of their own: username, password"),
            ("hunter2", "has no port"),
            ("", "has no port"),
            (":6379", "no usable host"),
            ("[]:6379", "no usable host"),
            ("[hunter2]:6379", "no usable host"),
            ("a hunter2:6379", "no usable host"),
            ("a,hunter2:6379", "no usable host"),
            ("::1", "must be in brackets"),
            ("host1:1,hunter2:6379", "must be in brackets"),
            ("[::1]", "must be in brackets"),
            ("host:0", "no usable port"),
            ("host:hunter2", "no usable port"),
            ("host:70000", "no usable port"),
            ("host:", "no usable port"),
            ("host:+1", "no usable port"),
        ] {
            let error = text.parse::<HostPort>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

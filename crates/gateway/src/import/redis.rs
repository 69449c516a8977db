//! `engine.redis.address` of Centrifugo: a list of servers, each an address or a URL. Reasons do not repeat a value,
//! since it may contain a password.

use figment::value::Value;

use super::value::texts;

const SEVERAL: &str = "names several Redis servers; there can be one so far";
const SCHEME: &str =
    "is of a kind that is not supported yet; Redis is one server, reached by TCP without TLS";
const OPTIONS: &str = "has options, which have no counterpart; set engine.redis.address by hand";
const DATABASE: &str = "has a database that is not a number";
const ENCODING: &str = "has a user or a password that is not percent-encoded";

/// Returns the parts of the address as keys of `[engine.redis]` with their values.
pub(super) fn server(value: &Value) -> Result<Vec<(&'static str, toml::Value)>, &'static str> {
    let servers = texts(value).ok_or("is not a list of texts")?;
    match &*servers {
        [] => Ok(Vec::new()),
        [server] => read(server),
        _ => Err(SEVERAL),
    }
}

/// Parses `redis://[[user]:password@]host:port[/database]`, or `host:port` alone.
fn read(server: &str) -> Result<Vec<(&'static str, toml::Value)>, &'static str> {
    let rest = match server.split_once("://") {
        None => return Ok(vec![("address", server.into())]),
        Some(("redis" | "tcp", rest)) => rest,
        Some(_) => return Err(SCHEME),
    };
    if rest.contains('?') {
        return Err(OPTIONS);
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, address) =
        authority.rsplit_once('@').map_or((None, authority), |(login, address)| (Some(login), address));
    let mut keys = vec![("address", address.into())];
    if let Some(login) = login {
        let (user, password) =
            login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
        if !user.is_empty() {
            keys.push(("username", percent_decoded(user).ok_or(ENCODING)?.into()));
        }
        if let Some(password) = password.filter(|password| !password.is_empty()) {
            keys.push(("password", percent_decoded(password).ok_or(ENCODING)?.into()));
        }
    }
    if !database.is_empty() {
        keys.push(("database", database.parse::<u32>().map_err(|_| DATABASE)?.into()));
    }
    Ok(keys)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
                let digits = std::str::from_utf8(&digits).ok().filter(|_| is_hex)?;
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_urls_are_taken_apart() {
        for (server, expected) in [
            ("10.0.0.5:6379", "address = \"10.0.0.5:6379\"\n"),
            ("redis://[::1]:6379", "address = \"[::1]:6379\"\n"),
            ("tcp://redis:1/", "address = \"redis:1\"\n"),
            (
                "redis://ann:p%40s%3as@redis:1/12",
                "address = \"redis:1\"\nusername = \"ann\"\npassword = \"p@s:s\"\ndatabase = 12\n",
            ),
            ("redis://:a@b@redis:1", "address = \"redis:1\"\npassword = \"a@b\"\n"),
            ("redis://ann:@redis:1", "address = \"redis:1\"\nusername = \"ann\"\n"),
        ] {
            for value in [Value::from(server), Value::from(vec![server])] {
                let keys = super::server(&value).unwrap();
                let shown: String =
                    keys.into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
                assert_eq!(shown, expected, "{server}");
            }
        }
        assert_eq!(server(&Value::from(Vec::<Value>::new())), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_carried_over_is_told() {
        for (value, expected) in [
            (Value::from("a:1,b:2"), SEVERAL),
            (Value::from(vec!["a:1", "b:2"]), SEVERAL),
            (Value::from("rediss://redis:1"), SCHEME),
            (Value::from("redis+sentinel://redis:1?sentinel_master_name=a"), SCHEME),
            (Value::from("redis+cluster://redis:1"), SCHEME),
            (Value::from("unix:///run/redis.sock"), SCHEME),
            (Value::from("redis://redis:1?tls_enabled=true"), OPTIONS),
            (Value::from("redis://redis:1/first"), DATABASE),
            (Value::from("redis://:hunter%2@redis:1"), ENCODING),
            (Value::from("redis://:%+1@redis:1"), ENCODING),
            (Value::from("redis://:%ff@redis:1"), ENCODING),
        ] {
            assert_eq!(server(&value), Err(expected), "{value:?}");
        }
    }
}

//! Command lines for reports. Reports are published, so secrets, paths and names of hosts are removed.

use crate::url::Url;

/// Replaces removed values.
pub(crate) const REDACTED: &str = "REDACTED";

const SECRETS: [&str; 2] = ["--api-key", "--token-secret"];
const FILES: [&str; 4] = ["--server", "--redis", "--json", "--html"];
const URLS: [&str; 2] = ["--centrifuge", "--api"];

/// Returns the words of a command line without private values.
pub(crate) fn presentable(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut words = words.into_iter();
    let mut shown: Vec<String> = words.next().iter().map(|program| file_name(program)).collect();
    while let Some(word) = words.next() {
        match word.split_once('=') {
            Some((option, value)) if word.starts_with("--") => {
                shown.push(format!("{option}={}", presentable_value(option, value)));
            }
            _ if is_named_here(&word) => {
                let value = words.next().map(|value| presentable_value(&word, &value));
                shown.push(word);
                shown.extend(value);
            }
            _ => shown.push(word),
        }
    }
    shown
}

fn is_named_here(option: &str) -> bool {
    SECRETS.contains(&option) || FILES.contains(&option) || URLS.contains(&option)
}

fn presentable_value(option: &str, value: &str) -> String {
    if SECRETS.contains(&option) {
        REDACTED.to_owned()
    } else if FILES.contains(&option) {
        file_name(value)
    } else if URLS.contains(&option) {
        match value.parse::<Url>() {
            Ok(url) => value.replacen(url.name(), if url.is_loopback() { url.name() } else { "HOST" }, 1),
            Err(_) => REDACTED.to_owned(),
        }
    } else {
        value.to_owned()
    }
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        presentable(line.split(' ').map(str::to_owned)).join(" ")
    }

    #[test]
    fn secrets_paths_and_hosts_stay_out() {
        let line = "/home/me/bin/fanwire-loadtest fanout --api-key hush --token-secret=hu=sh --rate 5 \
                    --server /home/me/fanwire --json=/tmp/me/out.json --redis redis-server \
                    --centrifuge ws://inner.example:8000/ws --api=http://inner.example:8000/api --bound a/b:c<=1";
        assert_eq!(
            shown(line),
            "fanwire-loadtest fanout --api-key REDACTED --token-secret=REDACTED --rate 5 \
             --server fanwire --json=out.json --redis redis-server \
             --centrifuge ws://HOST:8000/ws --api=http://HOST:8000/api --bound a/b:c<=1"
        );
    }

    #[test]
    fn loopback_is_nobodys_secret_and_odd_ends_do_no_harm() {
        assert_eq!(shown("a --api http://127.0.0.1:9/api"), "a --api http://127.0.0.1:9/api");
        assert_eq!(shown("a --api-key"), "a --api-key");
        assert_eq!(shown("a --api user:hush@host"), "a --api REDACTED");
        assert_eq!(presentable([]), [] as [String; 0]);
    }
}

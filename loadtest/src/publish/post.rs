//! Publishing by a bare POST: the path names the topic and the body is the message, as for Nchan and the small servers on
//! Node.js.

use crate::http::write_post;
use crate::publish::Messages;
use crate::publish::http::Api;

/// The path, to which the topic is appended.
pub(crate) const PATH: &str = "/publish/";

/// The form of several messages for one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Burst {
    /// One request for each, all in one write.
    Pipelined,
    /// One request with one line for each.
    Lines,
}

/// The common parts of the requests to one server.
#[derive(Clone, Debug)]
pub(crate) struct PostApi {
    pub(crate) host: String,
    pub(crate) burst: Burst,
}

impl Api for PostApi {
    fn write(&self, out: &mut Vec<u8>, topic: &str, messages: &Messages) -> usize {
        let mut body = Vec::new();
        match self.burst {
            Burst::Pipelined => {
                for place in 0..messages.count {
                    body.clear();
                    messages.write(place, &mut body);
                    self.write_post(out, topic, &body);
                }
                messages.count as usize
            }
            Burst::Lines => {
                for place in 0..messages.count {
                    if place > 0 {
                        body.push(b'\n');
                    }
                    messages.write(place, &mut body);
                }
                self.write_post(out, topic, &body);
                1
            }
        }
    }

    /// Nchan responds with 201 if the topic has subscribers, and with 202 otherwise.
    fn is_accepted(&self, status: u16, _body: &[u8]) -> bool {
        (200..300).contains(&status)
    }
}

impl PostApi {
    fn write_post(&self, out: &mut Vec<u8>, topic: &str, body: &[u8]) {
        write_post(out, &self.host, &format!("{PATH}{topic}"), "", body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_many_requests_or_many_lines() {
        let messages = Messages { stream: 0, first: 3, count: 4, payload_bytes: 100, due: 1 };
        for (burst, requests, lines) in [(Burst::Pipelined, 4, 1), (Burst::Lines, 1, 4)] {
            let mut out = Vec::new();
            let api = PostApi { host: "localhost".to_owned(), burst };
            assert_eq!(api.write(&mut out, "load:a", &messages), requests);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.matches("POST /publish/load:a HTTP/1.1\r\n").count(), requests);
            let body_bytes = 100 * lines + (lines - 1);
            assert_eq!(text.matches(&format!("Content-Length: {body_bytes}\r\n")).count(), requests);
            assert!(text.contains(r#"{"n":6,"#), "{text}");
        }
    }
}

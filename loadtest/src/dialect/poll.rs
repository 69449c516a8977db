//! Clients that poll: each request has one answer, and waits until there is something for it.

use std::cell::RefCell;
use std::rc::Rc;

use memchr::memmem;

use crate::client::Lost;
use crate::dialect::{Audience, Dialect, Framing, Progress, Say, Tokens};

/// As long as a WebSocket without traffic waits for a ping.
const WAIT_S: u32 = 25;
/// The first poll is answered soon, so that the client has a session.
const FIRST_WAIT_S: u32 = 1;

/// The dialect of all clients of a run.
pub(crate) struct Polling {
    host: String,
    path: String,
    tokens: Tokens,
    audience: Rc<Audience>,
    /// By the number of the client.
    clients: RefCell<Vec<Polled>>,
}

/// The parts of a client's next poll.
#[derive(Default)]
struct Polled {
    token: String,
    /// Parameters with what the last answer brought.
    next: String,
}

const STEP_OPENING: u8 = 0;
const STEP_LIVE: u8 = 1;

impl Polling {
    pub(crate) fn new(host: String, path: String, tokens: Tokens, audience: Rc<Audience>) -> Self {
        Self { host, path, tokens, audience, clients: RefCell::default() }
    }
}

impl Dialect for Polling {
    fn framing(&self) -> Framing {
        Framing::Answers
    }

    fn hello(&self, client: usize, out: &mut Vec<u8>) -> Result<Progress, Lost> {
        let mut clients = self.clients.borrow_mut();
        if clients.len() <= client {
            clients.resize_with(client + 1, Polled::default);
        }
        let Polled { token, next } = &mut clients[client];
        if token.is_empty() {
            *token = self.tokens.connection(client)?;
        }
        let topics: String =
            self.audience.topic_names_of(client).map(|topic| format!("&topic={topic}")).collect();
        let wait = if next.is_empty() { FIRST_WAIT_S } else { WAIT_S };
        let Self { host, path, .. } = self;
        let request = format!(
            "GET {path}?as=poll&wait={wait}{topics}{next} HTTP/1.1\r\nHost: {host}\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        out.extend_from_slice(request.as_bytes());
        Ok(Progress::Waiting)
    }

    fn message(
        &self,
        client: usize,
        step: &mut u8,
        message: &[u8],
        _say: &mut Say<'_>,
    ) -> Result<Progress, Lost> {
        let (cursor, session) = next_of(message).ok_or_else(|| Lost::refused(message))?;
        self.clients.borrow_mut()[client].next = format!("&cursor={cursor}&session={session}");
        Ok(match *step {
            STEP_OPENING => {
                *step = STEP_LIVE;
                Progress::Live
            }
            _ if message.starts_with(br#"{"messages":[]"#) => Progress::Ping,
            // Its session has ended, and this is another.
            _ if message.starts_with(br#"{"subscribed":"#) => Progress::Other,
            _ => Progress::Waiting,
        })
    }
}

/// Returns the cursor and the session with which an answer ends.
fn next_of(answer: &[u8]) -> Option<(&str, &str)> {
    const CURSOR: &[u8] = br#"],"cursor":""#;
    let end = &answer[memmem::rfind(answer, CURSOR)? + CURSOR.len()..];
    str::from_utf8(end).ok()?.strip_suffix(r#""}"#)?.split_once(r#"","session":""#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Seats;

    #[test]
    fn each_poll_names_what_the_last_answer_brought() {
        let audience = Audience::new("load:", Seats::All { topics: 2 });
        let tokens = Tokens::of_secret("secret");
        let dialect = Polling::new("localhost".to_owned(), "/subscribe".to_owned(), tokens, audience);
        let hello = |client| {
            let mut out = Vec::new();
            dialect.hello(client, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let first = hello(3);
        let line = "GET /subscribe?as=poll&wait=1&topic=load:topic-0&topic=load:topic-1 HTTP/1.1\r\n";
        assert!(first.starts_with(line) && first.contains("Authorization: Bearer "), "{first}");

        let mut step = 0;
        let mut follow =
            |answer: &str| dialect.message(3, &mut step, answer.as_bytes(), &mut Say::new(&mut Vec::new()));
        use Progress::{Live, Other, Ping, Waiting};
        for (answer, progress) in [
            (r#"{"subscribed":[{"topic":"a"}],"messages":[],"cursor":"C","session":"S.1"}"#, Live),
            (r#"{"messages":[],"cursor":"D","session":"S.1"}"#, Ping),
            (r#"{"messages":[{"data":"],\"cursor\":"}],"cursor":"E","session":"S.2"}"#, Waiting),
            (r#"{"subscribed":[{"topic":"a"}],"messages":[],"cursor":"F","session":"T.1"}"#, Other),
        ] {
            assert_eq!(follow(answer).unwrap(), progress, "{answer}");
        }
        assert!(
            hello(3).contains("&wait=25&topic=load:topic-0&topic=load:topic-1&cursor=F&session=T.1 HTTP")
        );
        assert!(!hello(2).contains("session"));
        for answer in ["", r#"{"messages":[],"disconnect":{"code":3001}}"#, r#"{"messages":[],"cursor":"C"}"#]
        {
            assert!(follow(answer).is_err(), "{answer}");
        }
    }
}

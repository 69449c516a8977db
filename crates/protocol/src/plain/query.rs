//! The query of a request for topics.

use std::borrow::Cow;
use std::collections::HashSet;

/// The parameters that have a meaning. Of several of one name the last counts, but of topics and subscription tokens.
#[derive(Debug, Default)]
pub struct Query<'q> {
    /// Each once, in the order of the query. At most one more than the limit, which is enough to refuse it.
    pub topics: Vec<Cow<'q, str>>,
    /// Empty: none.
    pub token: Cow<'q, str>,
    /// At most one more than the limit.
    pub subscription_tokens: Vec<Cow<'q, str>>,
    /// The topic that messages of the client are published to.
    pub publish: Option<Cow<'q, str>>,
    /// Empty: none.
    pub cursor: Cow<'q, str>,
    /// The session of a poll, with the number of the last answer.
    pub session: Option<Cow<'q, str>>,
    /// The time that a poll waits.
    pub wait: Option<Cow<'q, str>>,
    /// The function that is called with the answer to a poll.
    pub callback: Option<Cow<'q, str>>,
    /// The format of the stream.
    pub format: Option<Cow<'q, str>>,
    /// The envelope of the messages of a bare WebSocket.
    pub envelope: Option<Cow<'q, str>>,
}

impl<'q> Query<'q> {
    /// Reads a query in one pass. Parameters of other names are ignored.
    pub fn parse(text: &'q str, subscriptions_max: usize) -> Self {
        let mut query = Self::default();
        let mut known = HashSet::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "topic" | "channel"
                    if query.topics.len() <= subscriptions_max && known.insert(value.clone()) =>
                {
                    query.topics.push(value);
                }
                "subscription_token" if query.subscription_tokens.len() <= subscriptions_max => {
                    query.subscription_tokens.push(value);
                }
                "token" => query.token = value,
                "publish" => query.publish = Some(value),
                "cursor" => query.cursor = value,
                "as" => query.format = Some(value),
                "envelope" => query.envelope = Some(value),
                "session" => query.session = Some(value),
                "wait" => query.wait = Some(value),
                "callback" => query.callback = Some(value),
                _ => {}
            }
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_once_each_and_no_more_than_it_takes_to_refuse_them() {
        let query = Query::parse("topic=a&channel=b&token=t&topic=a&subscription_token=s", 2);
        assert_eq!(query.topics, ["a", "b"]);
        assert_eq!((&*query.token, &*query.subscription_tokens), ("t", &["s".into()][..]));

        let many: Vec<String> = (0..1000).map(|n| format!("topic={n}&subscription_token={n}")).collect();
        let many = many.join("&");
        let query = Query::parse(&many, 2);
        assert_eq!(query.topics, ["0", "1", "2"]);
        assert_eq!(query.subscription_tokens, ["0", "1", "2"]);
    }
}

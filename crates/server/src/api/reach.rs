//! The number of subscribers that a publication reaches, on all nodes.

use fanwire_protocol::{ClientId, TopicName};
use serde::Serialize;

use crate::node::Node;
use crate::peers::{CallType, Peers, SUBSCRIBERS, SubscribersAnswer, SubscribersQuestion};

/// The subscribers of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Reach {
    /// `None` if they were not asked for, or the other nodes could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subscribers: Option<usize>,
    /// Nodes that did not answer in time, whose subscribers are not counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) missing: Vec<Box<str>>,
}

/// Counts the subscribers of each topic, but for the excluded client.
pub(super) async fn reach(node: &Node, topics: Vec<TopicName>, exclude: Option<ClientId>) -> Vec<Reach> {
    if topics.is_empty() {
        return Vec::new();
    }
    let question = SubscribersQuestion {
        topics: topics.iter().map(|topic| topic.as_str().to_owned()).collect(),
        exclude: exclude.map(|client| client.0),
    };
    let here = node.subscribers(topics.into(), exclude);
    let (here, there) = match &node.peers {
        Some(peers) => tokio::join!(here, elsewhere(peers, &question)),
        None => (here.await, Some((Vec::new(), Vec::new()))),
    };
    let Some((there, missing)) = there else { return vec![Reach::default(); here.len()] };
    let total = |(place, here)| {
        let there = there.iter().filter_map(|counts| counts.get(place));
        Reach { subscribers: Some(here + there.sum::<usize>()), missing: missing.clone() }
    };
    here.into_iter().enumerate().map(total).collect()
}

/// The counts of each other node, and the names of those that have not answered; `None` if they cannot be asked.
async fn elsewhere(
    peers: &Peers,
    question: &SubscribersQuestion,
) -> Option<(Vec<Vec<usize>>, Vec<Box<str>>)> {
    let parameters = serde_json::value::to_raw_value(question).expect("it is made for JSON");
    let answers = peers.ask(CallType::Question, SUBSCRIBERS, &parameters).await.ok()?;
    let (mut counts, mut missing) = (Vec::new(), answers.missing);
    for (node, outcome) in answers.outcomes {
        // Nodes of an older version do not know the question.
        let answer =
            outcome.ok().and_then(|answer| serde_json::from_str::<SubscribersAnswer>(answer.get()).ok());
        match answer {
            Some(answer) => counts.push(answer.counts),
            None => missing.push(node),
        }
    }
    missing.sort_unstable();
    Some((counts, missing))
}

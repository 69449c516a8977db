//! Dead letters: kept until they are posted again or removed.

use fanwire_broker::{LetterId, Letters, Outboxes, Refusal, StoredEvent};

use crate::fixture::Fixture;

const REFUSAL: Refusal = Refusal { status: 400, attempts: 3 };

pub(crate) async fn what_was_refused_is_kept(fixture: Fixture) {
    let (outboxes, events) = buried(&fixture).await;
    let letters = outboxes.dead_letters(100).await.unwrap();
    let kept: Vec<_> = letters.iter().map(|letter| (letter.event.clone(), letter.refusal)).collect();
    assert_eq!(kept, events.iter().map(|event| (event.clone(), REFUSAL)).collect::<Vec<_>>());
    assert!(letters.is_sorted_by(|before, after| before.id < after.id));
    assert_eq!(outboxes.dead_letters(2).await.unwrap(), letters[..2]);
    let backlog = outboxes.tidy().await.unwrap();
    let (count, oldest) = (events.len() as u64, Some(letters[0].id.millis));
    assert_eq!((backlog.dead_letters, backlog.oldest_dead_letter), (count, oldest));
    // Their events are where they were.
    assert_eq!((backlog.events, backlog.dropped, backlog.oldest), (count, 0, Some(events[0].id.millis)));
    assert_eq!(fixture.stored().await, events);
}

pub(crate) async fn letters_are_taken_once(fixture: Fixture) {
    let (outboxes, events) = buried(&fixture).await;
    let letters = outboxes.dead_letters(100).await.unwrap();
    let unknown = LetterId { millis: 1, sequence: 1 };
    let these = |ids: &[LetterId]| Letters::These(ids.to_vec());
    assert_eq!(outboxes.retry(&these(&[letters[1].id, unknown])).await, Ok(1));
    assert_eq!(outboxes.retry(&these(&[letters[1].id])).await, Ok(0));
    assert_eq!(outboxes.remove_dead_letters(&these(&[unknown, letters[0].id])).await, Ok(1));
    assert_eq!(outboxes.dead_letters(100).await.unwrap(), letters[2..]);
    let retried = outboxes.retried(10).await.unwrap();
    assert_eq!(retried.len(), 1);
    assert_eq!((&retried[0].event, retried[0].refusal), (&events[1], REFUSAL));
    assert_eq!(outboxes.tidy().await.unwrap().dead_letters, letters.len() as u64 - 2);
    assert_eq!(outboxes.remove_dead_letters(&Letters::All).await, Ok(letters.len() as u64 - 2));
    assert_eq!(outboxes.remove_dead_letters(&Letters::All).await, Ok(0));
    assert_eq!(outboxes.retried(10).await.unwrap(), retried);
}

pub(crate) async fn a_retried_letter_is_posted_or_refused_again(fixture: Fixture) {
    let (outboxes, events) = buried(&fixture).await;
    assert_eq!(outboxes.retry(&Letters::All).await, Ok(events.len() as u64));
    assert_eq!(outboxes.dead_letters(100).await, Ok(Vec::new()));
    let retried = outboxes.retried(100).await.unwrap();
    let in_order: Vec<_> = retried.iter().map(|letter| &letter.event).collect();
    assert_eq!(in_order, events.iter().collect::<Vec<_>>());
    assert_eq!(outboxes.retried(1).await.unwrap(), retried[..1]);
    let again = Refusal { status: 500, attempts: 4 };
    outboxes.settle(retried[0].id, Some((&retried[0].event, again))).await.unwrap();
    for letter in &retried[1..] {
        outboxes.settle(letter.id, None).await.unwrap();
    }
    assert_eq!(outboxes.retried(100).await, Ok(Vec::new()));
    let letters = outboxes.dead_letters(100).await.unwrap();
    let left: Vec<_> = letters.iter().map(|letter| (&letter.event, letter.refusal)).collect();
    assert_eq!(left, [(&events[0], again)]);
}

/// Buries some events of each form.
async fn buried(fixture: &Fixture) -> (Outboxes, Vec<StoredEvent>) {
    let topic = fixture.topic("t");
    for (user, number) in [("a", 1), ("ü\"3", 2)] {
        crate::events::join(fixture, &topic, user, number).await;
    }
    crate::events::leave(fixture, &topic, 1).await;
    let (outboxes, events) = (fixture.engine.outbox().unwrap(), fixture.stored().await);
    for event in &events {
        outboxes.bury(event, REFUSAL).await.unwrap();
    }
    (outboxes, events)
}

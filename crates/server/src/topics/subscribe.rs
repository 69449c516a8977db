//! Makes and ends subscriptions. The publications that a client missed and those that it will get meet at the position
//! that was delivered last, since deliveries and answers leave from here in order.
//!
//! Subscriptions that wait behind one another are made concurrently: when a node has died, thousands of clients come
//! back to one topic, and the Redis engine needs some time for each.

use std::cmp::Ordering;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fanwire_broker::{HistoryQuery, Member, ReadLimit, Recovery, Since};
use fanwire_hub::effect::{Answer, Membership, RecoveryRequest, SubscriptionStart, TopicRequest};
use fanwire_hub::{HistoryBounds, Namespace, RecoveryMode};
use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::reason::{Left, RequestError};
use fanwire_protocol::request::StreamPosition;
use fanwire_protocol::{Position, Publication, TopicName};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Topics;
use super::follow::Follow;
use super::jobs::{Job, SubscribeJob, error};
use crate::message::{Address, ShardMessage};

/// The attempts to bring a client's missed publications up to those delivered meanwhile, before they count as lost.
const ATTEMPTS_MAX: usize = 16;

impl Topics {
    /// Makes a subscription, and those that wait right behind it.
    pub(super) async fn do_subscribes(self: &Rc<Self>, name: &TopicName, first: SubscribeJob) {
        let jobs = self.following_jobs(name, |job| matches!(job, Job::Subscribe(_)));
        let following = jobs.into_iter().filter_map(|job| match job {
            Job::Subscribe(subscribe) => Some(subscribe),
            _ => None,
        });
        let group: Vec<SubscribeJob> = [first].into_iter().chain(following).collect();
        match self.prepare(name).await {
            Ok(history) => {
                let group = self.with_a_start(name, group, history).await;
                let present = self.make_present(name, &group).await;
                let each = |subscribe| {
                    let (topics, name) = (self.clone(), name.clone());
                    async move { topics.do_subscribe(&name, subscribe, present, history).await }
                };
                side_by_side(group.into_iter().map(each)).await;
            }
            Err(error) => {
                for SubscribeJob { from, membership, allowance, .. } in group {
                    let answer = Answer::Subscribed { topic: name.clone(), membership, result: Err(error) };
                    self.send_answer(from, answer, allowance);
                }
            }
        }
        self.leave_if_last(name).await;
        // A stream that got dirty while nobody was subscribed is asked now.
        self.enqueue_repair(name);
    }

    /// Ends a subscription, and those whose ends wait right behind.
    pub(super) async fn do_unsubscribes(
        self: &Rc<Self>,
        name: &TopicName,
        first: (Address, Membership, Left),
    ) {
        let jobs = self.following_jobs(name, |job| matches!(job, Job::Unsubscribe(..)));
        let following = jobs.into_iter().filter_map(|job| match job {
            Job::Unsubscribe(from, membership, left) => Some((from, membership, left)),
            _ => None,
        });
        let group = [first].into_iter().chain(following).map(|(from, membership, left)| {
            self.uncount(name, from);
            let (topics, name) = (self.clone(), name.clone());
            async move { topics.depart(&name, &membership, &left).await }
        });
        side_by_side(group).await;
        self.leave_if_last(name).await;
    }

    /// Enters members into presence, all in one call.
    async fn make_present(&self, name: &TopicName, group: &[SubscribeJob]) -> Result<(), RequestError> {
        let events = self.events_of(name);
        let memberships = group.iter().map(|subscribe| &subscribe.membership);
        let members: Vec<Member> = memberships
            .filter(|membership| membership.presence)
            .map(|membership| Member::new(membership.info.clone(), membership.join_leave).with_events(events))
            .collect();
        if members.is_empty() {
            return Ok(());
        }
        self.engine.add_presence(name, members).await.map_err(error)
    }

    /// Returns the subscriptions that can be made. Where members have events, those that are to recover are asked first
    /// whether they can: one that is refused afterwards would be told of, and so would its end.
    async fn with_a_start(
        self: &Rc<Self>,
        name: &TopicName,
        group: Vec<SubscribeJob>,
        history: Option<HistoryBounds>,
    ) -> Vec<SubscribeJob> {
        if self.events_of(name).is_empty() {
            return group;
        }
        let mut startable = Vec::new();
        for subscribe in group {
            if !subscribe.membership.presence || subscribe.wanted.known().is_none() {
                startable.push(subscribe);
                continue;
            }
            match self.recover(name, &subscribe, history).await {
                Ok(start) if start.recovered.is_some() || !subscribe.may_fail(start.is_too_long) => {
                    startable.push(subscribe);
                }
                result => self.refuse_start(name, subscribe, result),
            }
        }
        startable
    }

    fn refuse_start(
        &self,
        name: &TopicName,
        subscribe: SubscribeJob,
        result: Result<SubscriptionStart, RequestError>,
    ) {
        let is_too_long = result.as_ref().is_ok_and(|start| start.is_too_long);
        let may_grow = subscribe.may_grow();
        let SubscribeJob { from, membership, wanted, allowance } = subscribe;
        match allowance {
            Some(allowance) if is_too_long && may_grow => {
                let request = TopicRequest::Subscribe { membership, wanted };
                self.ask_for_more(from, name.clone(), request, allowance);
            }
            allowance => {
                let result = self.judge(&wanted, result);
                self.send_answer(
                    from,
                    Answer::Subscribed { topic: name.clone(), membership, result },
                    allowance,
                );
            }
        }
    }

    /// Makes sure that the topic's events arrive and that the position of its stream is known.
    async fn prepare(self: &Rc<Self>, name: &TopicName) -> Result<Option<HistoryBounds>, RequestError> {
        let &Namespace { history, recovery_mode, show_time, status, .. } = self.namespace(name)?;
        if status {
            self.watched_user(name)?;
        }
        if let Some(topic) = self.topics.borrow_mut().get_mut(name) {
            topic.keeps = history.is_some();
            topic.keeps_newest = recovery_mode == RecoveryMode::Cache;
            topic.shows_time = show_time;
            topic.tells_status = status;
        }
        if self.members(name) == 0 {
            self.engine.subscribe(name).await.map_err(error)?;
            self.pass_old_events(name).await;
        }
        if status {
            self.learn_status(name).await?;
        }
        if let Some(HistoryBounds { meta_ttl, .. }) = history
            && self.position(name).is_none()
        {
            let top = self.engine.recover(name, None, 0, meta_ttl).await.map_err(error)?.top;
            self.following(name, |follow| follow.begin(top));
            self.note_fresh(name.clone());
        }
        Ok(history)
    }

    /// Waits until events of an earlier subscription have left the inbox: new subscribers would find a gap behind them.
    async fn pass_old_events(&self, name: &TopicName) {
        if self.are_shared() {
            let (reach, reached) = oneshot::channel();
            self.inboxes.all[self.shard].send(ShardMessage::Barrier(reach));
            // Dropped either way.
            let _ = reached.await;
            self.following(name, |follow| *follow = Follow::default());
            if let Some(topic) = self.topics.borrow_mut().get_mut(name) {
                topic.newest = None;
            }
        }
    }

    async fn do_subscribe(
        self: &Rc<Self>,
        name: &TopicName,
        subscribe: SubscribeJob,
        present: Result<(), RequestError>,
        history: Option<HistoryBounds>,
    ) {
        let result = match present.err().filter(|_| subscribe.membership.presence) {
            Some(error) => Err(error),
            None => self.recover(name, &subscribe, history).await,
        };
        let is_too_long = result.as_ref().is_ok_and(|start| start.is_too_long);
        let may_grow = subscribe.may_grow();
        let SubscribeJob { from, membership, wanted, allowance } = subscribe;
        let allowance = match allowance {
            Some(allowance) if is_too_long && may_grow => {
                self.undo_presence(name, &membership).await;
                let request = TopicRequest::Subscribe { membership, wanted };
                return self.ask_for_more(from, name.clone(), request, allowance);
            }
            allowance => allowance,
        };
        let result = self.judge(&wanted, result);
        match result {
            Ok(_) => self.count(name, from),
            Err(_) => self.undo_presence(name, &membership).await,
        }
        let join = (result.is_ok() && membership.join_leave).then(|| membership.info.clone());
        self.send_answer(from, Answer::Subscribed { topic: name.clone(), membership, result }, allowance);
        // After the answer, so that a client sees its own join last.
        if let Some(info) = join {
            self.ignore(self.engine.publish_join(name, info).await);
            self.deliver_events();
        }
    }

    /// Returns the position of a new subscription and the publications that its client missed. The position is read after
    /// the last wait, since deliveries during a wait go to the other subscribers only.
    async fn recover(
        self: &Rc<Self>,
        name: &TopicName,
        subscribe: &SubscribeJob,
        history: Option<HistoryBounds>,
    ) -> Result<SubscriptionStart, RequestError> {
        if self.tells_status(name) {
            return Ok(self.status_start(name));
        }
        let Some(history) = history else { return Ok(SubscriptionStart::default()) };
        let bytes_max = subscribe.bytes_max();
        match &subscribe.wanted {
            RecoveryRequest::Nothing => Ok(SubscriptionStart::default()),
            RecoveryRequest::Position => Ok(unrecovered(self.position(name), false)),
            RecoveryRequest::Since { known, .. } => self.missed(name, known, bytes_max, history).await,
            RecoveryRequest::Newest(known) => self.newest(name, known, bytes_max, history).await,
        }
    }

    /// Counts the result of a recovery, and refuses a subscription that needs it if it failed.
    fn judge(
        &self,
        wanted: &RecoveryRequest,
        result: Result<SubscriptionStart, RequestError>,
    ) -> Result<SubscriptionStart, RequestError> {
        let or_refuse = match wanted {
            RecoveryRequest::Nothing | RecoveryRequest::Position => return result,
            RecoveryRequest::Since { or_refuse, .. } => *or_refuse,
            RecoveryRequest::Newest(_) => false,
        };
        let start = result?;
        let counters = &self.counters;
        match start.recovered {
            Some(_) => counters.recoveries.add(1),
            None if start.is_too_long => counters.recoveries_too_long.add(1),
            None => counters.recoveries_failed.add(1),
        }
        if start.recovered.is_none() && or_refuse {
            return Err(RequestError::UnrecoverablePosition);
        }
        Ok(start)
    }

    /// Returns the publications after the known position, up to the one delivered last. If the stream is ahead, the other
    /// subscribers get its publications first; if the owner is ahead, the rest is read too.
    async fn missed(
        self: &Rc<Self>,
        name: &TopicName,
        known: &StreamPosition,
        bytes_max: usize,
        history: HistoryBounds,
    ) -> Result<SubscriptionStart, RequestError> {
        let since = Since { offset: known.offset, epoch: &known.epoch };
        let mut answer = self.read_after(name, since, bytes_max, history).await?;
        for _ in 0..ATTEMPTS_MAX {
            let position = self.position(name).unwrap_or(answer.top);
            if position.epoch != answer.top.epoch {
                self.repair_now(name, history).await.map_err(error)?;
                answer = self.read_after(name, since, bytes_max, history).await?;
                continue;
            }
            if !answer.complete {
                return Ok(unrecovered(Some(position), answer.is_too_long));
            }
            match position.offset.cmp(&answer.top.offset) {
                Ordering::Equal => {
                    return Ok(SubscriptionStart {
                        recovered: Some(answer.publications),
                        ..unrecovered(Some(position), false)
                    });
                }
                Ordering::Less => self.repair_now(name, history).await.map_err(error)?,
                Ordering::Greater => {
                    let top = answer.top;
                    let since = Since { offset: top.offset, epoch: top.epoch.as_str() };
                    let bytes_left = bytes_max.saturating_sub(bytes(&answer.publications));
                    let more = self.read_after(name, since, bytes_left, history).await?;
                    if more.top == top {
                        // The stream has gone back behind the position that was delivered.
                        self.repair_now(name, history).await.map_err(error)?;
                    }
                    answer = concatenated(answer, more);
                }
            }
        }
        Ok(unrecovered(self.position(name), false))
    }

    async fn read_after(
        &self,
        name: &TopicName,
        since: Since<'_>,
        bytes: usize,
        history: HistoryBounds,
    ) -> Result<Recovery, RequestError> {
        let limit = ReadLimit { publications: self.settings.client.recovery_max, bytes };
        self.engine.recover(name, Some(since), limit, history.meta_ttl).await.map_err(error)
    }

    /// Returns the newest publication, which has to be the one that was delivered last.
    async fn newest(
        self: &Rc<Self>,
        name: &TopicName,
        known: &StreamPosition,
        bytes_max: usize,
        history: HistoryBounds,
    ) -> Result<SubscriptionStart, RequestError> {
        let query = HistoryQuery { limit: 1.into(), since: None, reverse: true };
        for _ in 0..ATTEMPTS_MAX {
            let page = self.engine.history(name, query, history.meta_ttl).await.map_err(error)?;
            let is_behind =
                |position: Position| position.epoch == page.top.epoch && position.offset < page.top.offset;
            // The stream's newest publication is mostly on its way.
            self.wait_while(name, is_behind).await;
            let position = self.position(name).unwrap_or(page.top);
            if position.epoch != page.top.epoch || is_behind(position) {
                self.repair_now(name, history).await.map_err(error)?;
                continue;
            }
            let mut newest = self.newest_of(name).into_iter().chain(page.publications);
            let newest = newest.find(|newest| newest.offset == position.offset);
            let is_known = known.offset == position.offset && position.epoch.as_str() == known.epoch;
            if is_known || newest.is_some() || position == page.top {
                let recovered: Vec<_> = newest.filter(|_| !is_known).into_iter().collect();
                let is_too_long = bytes(&recovered) > bytes_max;
                let is_had = (is_known || !recovered.is_empty()) && !is_too_long;
                let recovered = is_had.then_some(recovered);
                return Ok(SubscriptionStart { recovered, ..unrecovered(Some(position), is_too_long) });
            }
        }
        Ok(unrecovered(self.position(name), false))
    }

    /// Waits a moment for events that are on their way.
    pub(super) async fn wait_while(&self, name: &TopicName, is_so: impl Fn(Position) -> bool) {
        const PATIENCE: Duration = Duration::from_millis(100);
        let is_over = || !self.position(name).is_some_and(&is_so);
        if is_over() {
            return;
        }
        let advance = self.advances.borrow_mut().entry(name.clone()).or_default().clone();
        // Without them the caller asks the stream again.
        advance.wait_until(Instant::now() + PATIENCE, is_over).await;
        let is_last = Rc::strong_count(&advance) == 2;
        if is_last {
            let mut advances = self.advances.borrow_mut();
            advances.remove(name);
            advances.give_back();
        }
    }

    fn newest_of(&self, name: &TopicName) -> Option<Arc<Publication>> {
        self.topics.borrow().get(name).and_then(|topic| topic.newest.clone())
    }

    /// Removes a client from presence whose join was not published.
    async fn undo_presence(&self, name: &TopicName, membership: &Membership) {
        if membership.presence {
            let info = &membership.info;
            let unannounced = Member::new(info.clone(), false).with_events(self.events_of(name));
            self.ignore(self.engine.replace_presence(name, unannounced).await);
            self.ignore(self.engine.remove_presence(name, info.client, &Left::Refused).await);
        }
    }

    async fn depart(self: &Rc<Self>, name: &TopicName, membership: &Membership, left: &Left) {
        if membership.presence {
            self.ignore(self.engine.remove_presence(name, membership.info.client, left).await);
            self.deliver_events();
        } else if membership.join_leave {
            self.ignore(self.engine.publish_leave(name, membership.info.clone()).await);
            self.deliver_events();
        }
    }

    async fn leave_if_last(&self, name: &TopicName) {
        if self.members(name) == 0 {
            if let Some(topic) = self.topics.borrow_mut().get_mut(name) {
                (topic.follow, topic.newest, topic.is_stale) = Default::default();
            }
            self.ignore(self.engine.unsubscribe(name).await);
        }
    }

    fn count(&self, name: &TopicName, from: Address) {
        let mut topics = self.topics.borrow_mut();
        let topic = topics.entry(name.clone()).or_default();
        if topic.members.is_empty() {
            topic.members = vec![0; self.inboxes.all.len()].into();
        }
        topic.members[usize::from(from.shard)] += 1;
        topic.total += 1;
    }

    fn uncount(&self, name: &TopicName, from: Address) {
        if let Some(topic) = self.topics.borrow_mut().get_mut(name)
            && let Some(members) = topic.members.get_mut(usize::from(from.shard))
        {
            // Every subscription that was made ends once.
            debug_assert!(*members > 0 && topic.total > 0);
            *members = members.saturating_sub(1);
            topic.total = topic.total.saturating_sub(1);
        }
    }
}

/// Joins two answers, of which the second continues the first.
fn concatenated(mut first: Recovery, second: Recovery) -> Recovery {
    first.publications.extend(second.publications);
    Recovery {
        top: second.top,
        complete: first.complete && second.complete,
        publications: first.publications,
        is_too_long: first.is_too_long || second.is_too_long,
    }
}

fn unrecovered(position: Option<Position>, is_too_long: bool) -> SubscriptionStart {
    SubscriptionStart { position, recovered: None, is_too_long }
}

fn bytes(publications: &[Arc<Publication>]) -> usize {
    publications.iter().map(|publication| publication.answer_bytes()).sum()
}

/// Runs all futures. Those that have to wait become tasks; the others leave no memory behind, since small allocations made
/// among many large ones would fragment the heap.
async fn side_by_side<F: Future<Output = ()> + 'static>(futures: impl Iterator<Item = F>) {
    let mut running = JoinSet::new();
    for future in futures {
        let mut future = Box::pin(future);
        let is_done = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await;
        if !is_done {
            running.spawn_local(future);
        }
    }
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

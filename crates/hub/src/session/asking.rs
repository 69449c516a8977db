//! Questions to hooks, and for keys, that are on their way, and the requests that wait for them: later ones of the same topic, and later
//! calls, so that an application gets them in their order, and one topic holds up no other.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::reason::Unsubscribed;
use fanwire_protocol::request::{Ask, Connect, Request, Subscribe};
use fanwire_protocol::{Tags, TopicName};

use super::{Context, Phase, Session, named};
use crate::effect::Effect;
use crate::hook::{HookEvent, HookQuestion};
use crate::hook_settings::HookSlot;

/// A question on its way.
#[derive(Debug)]
pub(super) struct Asking {
    number: u32,
    /// `None`: it waits for keys.
    pub(super) slot: Option<HookSlot>,
    pub(super) step: Step,
    /// Later requests that have to keep their order.
    pub(super) waiting: VecDeque<Request>,
}

/// The questions that are on their way, at least one.
#[derive(Debug, Default)]
pub(super) struct Questions(pub(super) Vec<Asking>);

/// The part of the session's work that goes on with the answer.
#[derive(Debug)]
pub(super) enum Step {
    Connect {
        id: u32,
        request: Box<Connect>,
    },
    Refresh,
    Subscribe {
        id: u32,
        topic: TopicName,
        request: Box<Subscribe>,
        /// The server wants the subscription ended as soon as it is made.
        end_with: Option<Unsubscribed>,
    },
    SubRefresh {
        topic: TopicName,
        /// The end of the subscription that the question is about.
        close_at: u32,
    },
    Publish {
        id: u32,
        draft: Draft,
    },
    Call {
        id: u32,
    },
    Send,
    /// A request whose token names a key that is being fetched. It counts as not made yet.
    Retry {
        topic: Option<TopicName>,
        request: Box<Request>,
    },
}

/// A publication of a client that passed the checks.
#[derive(Clone, Debug)]
pub struct Draft {
    pub topic: TopicName,
    pub data: Bytes,
    pub tags: Option<Arc<Tags>>,
}

impl Draft {
    /// Returns the event that a hook is asked about.
    pub(super) fn event(&self) -> HookEvent {
        let Self { topic, data, tags } = self.clone();
        HookEvent::Publish { topic, data, tags }
    }
}

impl Step {
    /// Follows from a request of the client, and not from the time.
    fn is_of_request(&self) -> bool {
        !matches!(self, Self::Refresh | Self::SubRefresh { .. })
    }

    /// Returns the topic whose later requests wait.
    fn topic(&self) -> Option<&TopicName> {
        match self {
            Self::Subscribe { topic, .. } | Self::Publish { draft: Draft { topic, .. }, .. } => Some(topic),
            Self::Retry { topic, .. } => topic.as_ref(),
            Self::Connect { .. }
            | Self::Refresh
            | Self::SubRefresh { .. }
            | Self::Call { .. }
            | Self::Send => None,
        }
    }

    fn subscribes_to(&self, topic: &TopicName) -> bool {
        matches!(self, Self::Subscribe { .. }) && self.topic() == Some(topic)
    }
}

/// Something on its way that a request has to wait for, by its place in the work of the session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Subscribing(usize),
    Asking(usize),
}

impl Session {
    /// Asks a hook; `step` goes on with its answer.
    #[cold]
    #[inline(never)]
    pub(super) fn question(
        &mut self,
        context: &mut Context<'_>,
        slot: HookSlot,
        event: HookEvent,
        step: Step,
    ) {
        let (client, user) = (self.client, self.asking_user().into());
        let wire = Some(self.mode.wire);
        let number = self.begin_asking(Some(slot), step);
        let kept = self.work().kept.clone();
        let question = HookQuestion { number, slot, client, user, wire, event, kept };
        context.effects.push(Effect::Hook(Arc::new(question)));
    }

    /// Enters a step that goes on with an answer, and returns the number of its question.
    pub(super) fn begin_asking(&mut self, slot: Option<HookSlot>, step: Step) -> u32 {
        self.asked = self.asked.saturating_add(u16::from(step.is_of_request()));
        let work = self.work();
        work.questions = work.questions.wrapping_add(1);
        let number = work.questions;
        work.asking.get_or_insert_default().0.push(Asking { number, slot, step, waiting: VecDeque::new() });
        number
    }

    /// Takes the question of this number, which is answered; `None` if nobody waits for the answer any more.
    pub(super) fn take_asking(&mut self, number: u32) -> Option<Asking> {
        let work = self.work.as_mut()?;
        let questions = work.asking.as_mut()?;
        let place = questions.0.iter().position(|asking| asking.number == number)?;
        let asking = questions.0.remove(place);
        work.asking.take_if(|questions| questions.0.is_empty());
        work.release(&asking.waiting);
        self.asked = self.asked.saturating_sub(u16::from(asking.step.is_of_request()));
        Some(asking)
    }

    /// Returns the steps that wait for a hook.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.work.iter().flat_map(|work| work.asking()).map(|asking| &asking.step)
    }

    /// Returns true if a hook is asked about a subscription to this topic.
    pub(super) fn asks_to_subscribe(&self, topic: &TopicName) -> bool {
        self.steps().any(|step| step.subscribes_to(topic))
    }

    /// The subscription that a hook is asked about is to be ended as soon as it is made. Returns false if there is none.
    pub(super) fn end_asked_with(&mut self, topic: &TopicName, reason: Unsubscribed) -> bool {
        let questions = self.work.as_mut().and_then(|work| work.asking.as_mut());
        let asking = questions.into_iter().flat_map(|questions| &mut questions.0);
        let mut ends = asking.filter(|asking| asking.step.subscribes_to(topic)).filter_map(|asking| {
            let Step::Subscribe { end_with, .. } = &mut asking.step else { return None };
            Some(end_with)
        });
        ends.next().map(|end_with| *end_with = Some(reason)).is_some()
    }

    /// Subscriptions that hooks are asked about.
    pub(super) fn asked_subscriptions(&self) -> usize {
        self.steps().filter(|step| matches!(step, Step::Subscribe { .. })).count()
    }

    /// A first request, of those that a connection begins with, waits for a hook or for keys: no further one is to be prepared yet.
    pub fn is_preparing(&self) -> bool {
        self.phase == Phase::Fresh && self.steps().next().is_some()
    }

    /// Returns the place of what a request has to wait for.
    #[inline]
    pub(super) fn awaited_by(&self, context: &Context<'_>, request: &Request) -> Option<Place> {
        let work = self.work.as_ref()?;
        if work.asking.is_none() && work.subscribing.is_empty() {
            return None;
        }
        self.awaited_by_some(context, request)
    }

    #[inline(never)]
    fn awaited_by_some(&self, context: &Context<'_>, request: &Request) -> Option<Place> {
        let work = self.work.as_ref()?;
        let asking = |waits: &dyn Fn(&Step) -> bool| {
            work.asking().iter().position(|asking| waits(&asking.step)).map(Place::Asking)
        };
        match &request.ask {
            // It answers for the server alone.
            Ask::Call { method, .. } if context.settings.rpc_ping_method.as_ref() == Some(method) => None,
            Ask::Call { .. } | Ask::Send { .. } => {
                asking(&|step| matches!(step, Step::Call { .. } | Step::Send))
            }
            // The request's own handling makes the name again, but few requests come while something is on its way.
            _ => {
                let topic = named(request.topic()?).ok()?;
                // What waits for a hook came before what waits for the owner.
                asking(&|step| step.topic() == Some(&topic))
                    .or_else(|| self.subscribing(&topic).map(Place::Subscribing))
            }
        }
    }

    /// Returns true if a second subscribe to the topic would be refused though it waited: nothing between ends the first.
    pub(super) fn is_first_subscribe(&self, place: Place) -> bool {
        self.work.as_ref().is_some_and(|work| match place {
            Place::Subscribing(place) => work.subscribing[place].waiting.is_empty(),
            Place::Asking(place) => {
                let Asking { step, waiting, .. } = &work.asking()[place];
                waiting.is_empty() && matches!(step, Step::Subscribe { .. })
            }
        })
    }

    /// Serves requests that waited together, in their order. What has to wait again does so together.
    pub(super) fn serve_waiting(&mut self, context: &mut Context<'_>, mut waiting: VecDeque<Request>) {
        while self.phase == Phase::Open
            && let Some(request) = waiting.front()
        {
            let place = self.awaited_by(context, request);
            if let Some(place) = place.filter(|_| !matches!(request.ask, Ask::Subscribe(_))) {
                return self.work().wait(place, waiting);
            }
            if let Some(request) = waiting.pop_front() {
                self.serve(context, request);
            }
        }
    }
}

//! Refusals of requests: an error reply or the end of the connection. A bad request comes with the mistake in it.

use std::borrow::Cow;

use fanwire_protocol::TopicName;
use fanwire_protocol::reason::{Close, CloseReason, Detail, Mistake, Refused, RequestError};
use fanwire_protocol::reply::{Outcome, Push, Reply};

use super::{Context, Session};
use crate::effect::Effect;
use crate::{NameError, UnfitField};

/// The ways in which a request that needs checks can fail.
#[derive(Debug)]
pub(super) enum Refusal {
    Error(RequestError),
    Mistake(Mistake),
    /// The application's own.
    Refused(Refused),
    /// Something in a token cannot be shown to clients.
    Unfit(UnfitField),
    /// The answer of a hook cannot be used. The words are for the operator.
    UnfitAnswer(Cow<'static, str>),
    Close(Close),
}

impl Refusal {
    /// A name that cannot be, and the place in which it stood.
    pub(super) fn name(error: NameError, place: fn(Cow<'static, str>) -> Mistake) -> Self {
        match RequestError::from(error) {
            RequestError::BadRequest => Self::Mistake(place(error.to_string().into())),
            other => Self::Error(other),
        }
    }

    /// Returns what is wrong with the answer of a hook that leads to this refusal, by its own names; else the refusal.
    pub(super) fn fault_of_hook(self) -> Result<String, Self> {
        match self {
            Self::UnfitAnswer(why) => Ok(why.into()),
            Self::Unfit(unfit) => Ok(unfit.to_string()),
            Self::Mistake(Mistake::TokenTopicName(why)) => Ok(format!("channels or subs: {why}")),
            Self::Mistake(Mistake::TokenUserName(why)) => Ok(format!("user: {why}")),
            Self::Close(close) => match close.detail.as_deref() {
                Some(Detail::Mistake(Mistake::NoPersonalTopic(why))) => Ok(format!("user: {why}")),
                _ => Err(Self::Close(close)),
            },
            refusal => Err(refusal),
        }
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::Error(error)
    }
}

impl From<Mistake> for Refusal {
    fn from(mistake: Mistake) -> Self {
        Self::Mistake(mistake)
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::name(error, Mistake::TopicName)
    }
}

impl From<UnfitField> for Refusal {
    fn from(unfit: UnfitField) -> Self {
        Self::Unfit(unfit)
    }
}

impl From<Close> for Refusal {
    fn from(close: Close) -> Self {
        Self::Close(close)
    }
}

impl From<CloseReason> for Refusal {
    fn from(reason: CloseReason) -> Self {
        Self::Close(reason.into())
    }
}

impl Session {
    pub(super) fn refuse(&mut self, context: &mut Context<'_>, id: u32, refusal: Refusal) {
        match refusal {
            Refusal::Error(error) => context.refuse(id, error),
            Refusal::Mistake(mistake) => context.refuse(id, mistake),
            Refusal::Refused(refused) => context.refuse(id, refused),
            Refusal::UnfitAnswer(_) => context.refuse(id, RequestError::Internal),
            Refusal::Unfit(unfit) => context.refuse(id, Mistake::Token(unfit.to_string().into())),
            Refusal::Close(close) => self.close(context, close),
        }
    }
}

impl Context<'_> {
    pub(super) fn reply(&mut self, id: u32, outcome: Outcome) {
        self.effects.push(Effect::Reply(Reply { id, result: Ok(outcome) }));
    }

    pub(super) fn refuse(&mut self, id: u32, refused: impl Into<Refused>) {
        self.effects.push(Effect::Reply(Reply { id, result: Err(refused.into()) }));
    }

    /// Replies with an owner's answer.
    pub(super) fn reply_with(&mut self, id: u32, result: Result<Outcome, RequestError>) {
        self.effects.push(Effect::Reply(Reply { id, result: result.map_err(Refused::from) }));
    }

    pub(super) fn push(&mut self, push: Push) {
        self.effects.push(Effect::Push(push));
    }
}

/// Makes a topic's name of a request's text. Without a text the connection ends.
pub(super) fn named(topic: &str) -> Result<TopicName, Close> {
    TopicName::new(topic).ok_or_else(|| Close::mistake(Mistake::NoTopic))
}

//! How commands are refused: with an error reply or the end of the connection. A bad request is told which field is
//! wrong and what to do.

use std::borrow::Cow;

use fanwire_protocol::centrifuge::ReplyMessage;
use fanwire_protocol::{Disconnect, ErrorCode, TopicName};

use super::{Context, Session};
use crate::{NameError, UnfitField};

/// How a command that needs checks can fail.
#[derive(Debug)]
pub(super) enum Refusal {
    Error(ErrorCode),
    /// Error 107 with a sentence that names the field and the remedy.
    BadRequest(Cow<'static, str>),
    /// Something in a token cannot be shown to clients.
    Unfit(UnfitField),
    Close(Disconnect),
}

impl Refusal {
    pub(super) fn bad_request(why: &'static str) -> Self {
        Self::BadRequest(why.into())
    }

    /// A name that cannot be, and where it stood.
    pub(super) fn name(place: &str, error: NameError) -> Self {
        match ErrorCode::from(error) {
            ErrorCode::BAD_REQUEST => Self::BadRequest(format!("{place}: {error}").into()),
            other => Self::Error(other),
        }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Self {
        Self::Error(error)
    }
}

/// The name of a topic is in the field `channel`.
impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::name("channel", error)
    }
}

impl From<UnfitField> for Refusal {
    fn from(unfit: UnfitField) -> Self {
        Self::Unfit(unfit)
    }
}

impl From<Disconnect> for Refusal {
    fn from(why: Disconnect) -> Self {
        Self::Close(why)
    }
}

impl Session {
    pub(super) fn refuse(&mut self, context: &mut Context<'_>, id: u32, refusal: Refusal) {
        match refusal {
            Refusal::Error(error) => context.refuse(id, error),
            Refusal::BadRequest(why) => context.refuse_because(id, &why),
            Refusal::Unfit(unfit) => context.refuse_because(id, &unfit.to_string()),
            Refusal::Close(why) => self.close(context, why),
        }
    }
}

impl Context<'_> {
    pub(super) fn refuse(&mut self, command: u32, error: ErrorCode) {
        self.reply(ReplyMessage::error(command, error));
    }

    fn refuse_because(&mut self, command: u32, why: &str) {
        let error = ErrorCode::BAD_REQUEST;
        self.reply(ReplyMessage::error_because(command, error, format!("{}: {why}", error.message)));
    }
}

/// The end of a connection whose token is good, but holds something that cannot be shown to clients.
pub(super) fn unfit_token(unfit: UnfitField) -> Disconnect {
    Disconnect { reason: format!("invalid token: {unfit}").into(), ..Disconnect::INVALID_TOKEN }
}

/// The end of a connection that sent a request without a topic.
pub(super) fn no_channel() -> Disconnect {
    Disconnect::bad_request("channel is empty; send the name of a topic")
}

/// Returns a topic's name as a checked value.
pub(super) fn named(topic: &str) -> Result<TopicName, Disconnect> {
    TopicName::new(topic).ok_or_else(no_channel)
}

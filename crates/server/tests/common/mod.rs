//! Helpers of the tests of a node: a node in this process on a port of its own, a small client, and a bare socket for
//! everything that no proper client would do. Every wait has a deadline.

mod api;
mod application;
mod client;
mod emulated;
mod forgery;
mod frames;
mod gateway;
mod redis;
mod requests;
mod socket;
mod trust;
mod wait;

pub(crate) use api::Backend;
pub(crate) use application::{Answer, Application, Call, Misconduct};
pub(crate) use client::{Client, identity};
pub(crate) use emulated::{Emulated, emulate};
pub(crate) use forgery::{forge, signing_key};
pub(crate) use frames::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, fragment, frame};
pub(crate) use gateway::{TestGateway, open, settings, token};
pub(crate) use redis::{OwnRedis, redis_settings};
pub(crate) use requests::{WEBSOCKET_HANDSHAKE, get, handshake, in_query, post, post_of, upgrade};
pub(crate) use socket::{RawSocket, Response};
pub(crate) use trust::{Authority, CertificateFiles, Trust};
pub(crate) use wait::{eventually, within};

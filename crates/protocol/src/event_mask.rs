//! The events of a topic's members that the application wants.

use std::ops::{BitAnd, BitOr};

/// Some of the events. A member's record holds them, so a node that removes it needs no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventMask(u8);

impl EventMask {
    pub const NONE: Self = Self(0);
    /// A client became a member: it subscribed, or connected.
    pub const JOIN: Self = Self(1);
    /// A member left.
    pub const LEAVE: Self = Self(2);
    /// The topic has its first member: it is occupied, or its user online.
    pub const OCCUPIED: Self = Self(4);
    /// The last member left.
    pub const VACATED: Self = Self(8);
    /// The status of the topic's user is told to those who watch it, and kept.
    pub const STATUS: Self = Self(16);

    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    pub const fn bits(self) -> u8 {
        self.0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns true if all of the other's events are among them.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitAnd for EventMask {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for EventMask {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

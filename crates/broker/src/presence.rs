//! Who is in a topic, counted.

/// How many are present in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Clients, that is connections.
    pub clients: usize,
    /// Distinct users; all anonymous clients together count as one.
    pub users: usize,
}

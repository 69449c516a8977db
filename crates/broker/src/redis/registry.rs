//! Which nodes there are.

use uuid::Uuid;

/// A node of the cluster, for one run of its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Made at random when the process starts.
    pub id: Uuid,
    /// For people. Two nodes may have the same.
    pub name: Box<str>,
}

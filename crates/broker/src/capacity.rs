//! Giving memory back: tables keep their largest size unless they are told otherwise.

/// The capacity that a table should shrink to once most of it is unused, or `None` while it is well used. Tables
/// keep their largest size otherwise, and memory would not return after a busy hour.
pub(crate) fn shrunk_capacity(len: usize, capacity: usize) -> Option<usize> {
    const KEEP: usize = 32;
    (capacity > KEEP && len < capacity / 4).then_some(len * 2)
}

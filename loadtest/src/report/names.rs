//! The names of all figures, so that a bound on an unknown one is refused before the run.

/// Figures of the scenarios that send, then of those about connections.
const FIGURES: &[&str] = &[
    "server CPU per delivery",
    "client CPU per delivery",
    "redis CPU per delivery",
    "server CPU per publication",
    "redis CPU per publication",
    "server CPU in user space",
    "server CPU of a core",
    "client CPU of a core",
    "redis CPU of a core",
    "latency p50",
    "latency p99",
    "latency p99.9",
    "latency from due time p50",
    "latency from due time p99",
    "published late p50",
    "published late p99",
    "bytes per delivery",
    "compressed share",
    "other messages",
    "deliveries",
    "deliveries expected",
    "deliveries per second",
    "deliveries per second planned",
    "behind the pace",
    "first to last send",
    "server memory growth",
    "server memory peak growth",
    "stalled and closed with 3008",
    "stalled and cut off",
    "stalled and still connected",
    "memory per connection",
    "anonymous memory per connection",
    "memory per connection after the window",
    "memory per further subscription",
    "memory of connection and session",
    "memory of the subscription",
    "memory of presence",
    "whole server before",
    "Redis memory per connection",
    "server set-up CPU per connection",
    "client set-up CPU per connection",
    "redis set-up CPU per connection",
    "set-up p50",
    "set-up p99",
    "slowest",
    "all connected after",
    "ping p99",
    "slowest ping",
    "calls",
    "calls at a time",
    "idle CPU per connection and second",
    "client CPU per connection and second",
    "redis CPU per connection and second",
    "pings",
    "pings per connection and second",
    "memory growth",
    "memory after warm-up",
    "memory at the end",
    "Redis keys growth",
    "Redis keys at the end",
    "Redis memory growth",
    "Redis memory growth from before the warm-up",
    "server CPU per cycle",
    "client CPU per cycle",
    "redis CPU per cycle",
    "cycles per second",
];

/// Returns the figure of this name, whatever its case and separators: `Server-CPU_per delivery` is `server CPU per
/// delivery`.
pub(crate) fn figure(words: &str) -> Option<&'static str> {
    let plain = |text: &str| text.replace(['-', '_'], " ").to_lowercase();
    let wanted = plain(words);
    FIGURES.iter().copied().find(|name| plain(name) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_found_however_it_is_written() {
        assert_eq!(figure("Server-CPU_per delivery"), Some("server CPU per delivery"));
        assert_eq!(figure("latency P99.9"), Some("latency p99.9"));
        assert_eq!(figure("cpu"), None);
        for &name in FIGURES {
            assert_eq!(figure(name), Some(name), "two figures of one name");
        }
    }
}

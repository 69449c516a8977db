//! The load of a turn: rate, size and number of messages, and number of publishers.

use clap::Args;

use crate::measure::payload::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};

/// Bounds of bursts per second: one in the longest turn, and more than any server here can handle.
const RATE_MIN: f64 = 1.0 / 3600.0;
const RATE_MAX: f64 = 100_000.0;

/// The messages of a turn.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
pub(crate) struct Load {
    /// Bursts per second; with a burst of 1, messages per second
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// Bytes of a message, without the protocol's envelope
    #[arg(long, default_value_t = 128, value_name = "BYTES", value_parser = payload_bytes)]
    pub(crate) payload: usize,
    /// Messages that are published together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) burst: u32,
    /// Seconds for which each turn sends
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
    /// Persistent connections that publish, each with one request in flight
    #[arg(long, default_value_t = 4, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) publishers: u32,
}

impl Load {
    pub(crate) fn bursts(&self) -> u32 {
        (self.rate * f64::from(self.seconds)).ceil() as u32
    }

    pub(crate) fn messages(&self) -> u64 {
        self.first_sequence(self.bursts())
    }

    /// Returns the first sequence number of a burst, if all bursts are of one stream.
    pub(crate) fn first_sequence(&self, burst: u32) -> u64 {
        u64::from(burst) * u64::from(self.burst)
    }

    /// Returns the arguments for the same load on another command line.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let Self { rate, payload, burst, seconds, publishers } = self;
        vec![
            format!("--rate={rate}"),
            format!("--payload={payload}"),
            format!("--burst={burst}"),
            format!("--seconds={seconds}"),
            format!("--publishers={publishers}"),
        ]
    }

    /// Returns the time from the first burst to the last.
    pub(crate) fn planned_seconds(&self) -> f64 {
        f64::from(self.bursts() - 1) / self.rate
    }

    pub(crate) fn described(&self) -> Vec<(String, String)> {
        described(&[
            ("rate", format!("{}/s", self.rate)),
            ("burst", self.burst.to_string()),
            ("payload", format!("{} B", self.payload)),
            ("seconds", self.seconds.to_string()),
            ("publishers", self.publishers.to_string()),
        ])
    }
}

/// Returns the parts of a load by name, for a report.
pub(crate) fn described(parts: &[(&str, String)]) -> Vec<(String, String)> {
    parts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate))
        .ok_or_else(|| format!("must be a number from {RATE_MIN:.4} to {RATE_MAX}"))
}

pub(crate) fn payload_bytes(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|bytes| (PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(bytes))
        .ok_or_else(|| format!("must be a number from {PAYLOAD_BYTES_MIN} to {PAYLOAD_BYTES_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_survives_its_command_line() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            load: Load,
        }
        let load = Load { rate: 12.5, payload: 256, burst: 16, seconds: 3, publishers: 2 };
        let arguments = std::iter::once("program".to_owned()).chain(load.to_arguments());
        let read = <Line as clap::Parser>::parse_from(arguments).load;
        assert_eq!(format!("{read:?}"), format!("{load:?}"));
        assert_eq!((load.bursts(), load.messages()), (38, 608));
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for text in ["0", "-1", "NaN", "inf", "many"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert!(payload_bytes("99").is_err());
        assert!(payload_bytes("65537").is_err());
        assert_eq!(payload_bytes("100"), Ok(100));
    }
}

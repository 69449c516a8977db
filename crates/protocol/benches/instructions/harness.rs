//! A program of cases whose instructions are counted from outside: `cargo xtask bench --compare`.
//!
//! A case does the same work whenever and wherever it runs: no time, no chance, no input. Run with twice the rounds
//! it differs by its work alone, so that starting and setting up cancel out.

#![allow(clippy::print_stdout, reason = "a developers' program talks to its terminal")]

/// Something small enough that one change to it shows.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Enough to make a few million instructions, beside which what the start of a program varies by is nothing.
    pub(crate) rounds: u64,
    /// Sets up, does so many rounds and says how many operations they were.
    pub(crate) run: fn(rounds: u64) -> u64,
}

/// With a case's name and a number, runs it with that many times its rounds and prints the number of operations.
/// Without, prints the name of every case that it holds, having run each to see that it works.
pub(crate) fn main(cases: &[Case]) {
    // Cargo adds arguments of its own.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let [name, times] = &arguments[..] else {
        for case in cases {
            (case.run)(1);
            println!("{}", case.name);
        }
        return;
    };
    let case = cases.iter().find(|case| case.name == name).expect("a case has this name");
    let times: u64 = times.parse().expect("the second argument is a number");
    println!("{}", (case.run)(case.rounds * times));
}

/// Does the same over and over; each round makes so many operations.
pub(crate) fn repeat(rounds: u64, operations: usize, mut round: impl FnMut()) -> u64 {
    for _ in 0..rounds {
        round();
    }
    rounds * operations as u64
}

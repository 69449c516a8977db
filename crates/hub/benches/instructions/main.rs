//! The cost of fan-out and sessions in instructions; see `harness`.

mod fanout;
#[path = "../../../protocol/benches/instructions/harness.rs"]
mod harness;
mod session;

fn main() {
    let cases: Vec<_> = fanout::CASES.into_iter().chain(session::CASES).collect();
    harness::main(&cases);
}

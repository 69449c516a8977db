//! The cost of codec and parser in instructions; see `harness`.

mod codec;
mod harness;
mod websocket;

fn main() {
    let cases: Vec<_> = codec::CASES.into_iter().chain(websocket::CASES).collect();
    harness::main(&cases);
}

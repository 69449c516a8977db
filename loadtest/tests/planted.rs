//! The tool must notice faults: a small server of the Centrifuge protocol drops, duplicates or reorders on purpose.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use support::{Run, figure, run};

/// The server's fault with the fifth message to its subscribers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    Dropped,
    Doubled,
    /// Sent after the sixth.
    Reordered,
    /// Not sent, and the connections are ended.
    CutOff,
    /// Sent with a message that was not published.
    Invented,
    /// Sent with one wrong byte in its words.
    Corrupted,
    /// Not answered: the publisher's connection is ended.
    Hung,
}

/// The number of the faulty message, in order of publication.
const FAULTY: u64 = 5;
const SUBSCRIBERS: u64 = 3;
const MESSAGES: u64 = 20;

#[test]
fn an_honest_server_is_clean() {
    let report = measured(Fault::Nothing).clean();
    assert_eq!(figure(&report, "centrifuge", "deliveries"), (SUBSCRIBERS * MESSAGES) as f64);
}

#[test]
fn each_fault_is_noticed_by_its_name() {
    let faults = [
        (Fault::Dropped, "lost", SUBSCRIBERS),
        (Fault::Doubled, "duplicated", SUBSCRIBERS),
        (Fault::Reordered, "reordered", SUBSCRIBERS),
        (Fault::Invented, "unknown", SUBSCRIBERS),
        (Fault::Corrupted, "corrupted", SUBSCRIBERS),
    ];
    for (fault, name, count) in faults {
        let report = failed(&measured(fault));
        assert_eq!(report["turns"][0]["faults"][name], count, "{fault:?}: {report}");
    }
}

#[test]
fn lost_connections_are_told_with_their_reason() {
    let run = measured(Fault::CutOff);
    let report = failed(&run);
    assert_eq!(report["turns"][0]["connections_lost"], SUBSCRIBERS);
    assert!(run.text().contains("the server ended the connection"), "{}", run.text());
}

#[test]
fn a_turn_that_breaks_off_has_failed_and_the_run_goes_on() {
    let run = measured_for(Fault::Hung, 2);
    let report = failed(&run);
    let turns = report["turns"].as_array().unwrap();
    assert_eq!(turns.len(), 2);
    assert!(turns[0]["reasons"][0].as_str().unwrap().contains("ended a publisher's connection"), "{report}");
    assert_eq!(turns[1]["reasons"].as_array().unwrap().len(), 0, "{report}");
    assert_eq!(report["bounds"][0]["verdict"], "not met: 1 of 2 turns failed");
}

/// Returns the report of a run that found a fault.
fn failed(run: &Run) -> serde_json::Value {
    assert_eq!(run.output.status.code(), Some(1), "{}", run.text());
    assert!(run.text().contains("FAILED"), "{}", run.text());
    run.report()
}

/// Runs the tool against a server with this fault.
fn measured(fault: Fault) -> Run {
    measured_for(fault, 1)
}

/// The fault happens in the first round only.
fn measured_for(fault: Fault, rounds: u32) -> Run {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    let server = Arc::new(Server { fault, state: Mutex::default() });
    // The thread ends with the process of the test.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (server, stream) = (Arc::clone(&server), stream.unwrap());
            std::thread::spawn(move || server.serve(stream));
        }
    });
    run(&[
        "fanout",
        "--subjects=centrifuge",
        "--publishers=1",
        "--bound=centrifuge:latency p50<=1000",
        &format!("--rounds={rounds}"),
        &format!("--subscribers={SUBSCRIBERS}"),
        &format!("--rate={MESSAGES}"),
        "--seconds=1",
        &format!("--centrifuge=ws://{host}/connection/websocket"),
        &format!("--api=http://{host}/api"),
    ])
}

struct Server {
    fault: Fault,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    subscribers: Vec<TcpStream>,
    published: u64,
    held: Option<Vec<u8>>,
}

impl Server {
    /// Serves a client or a publisher, depending on its request.
    fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut received = Vec::new();
        while let Some((head, body)) = read_request(&mut stream, &mut received) {
            if head.contains("Upgrade: websocket") {
                return self.subscribe(stream);
            }
            if !self.publish(data_of(&body)) {
                return;
            }
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    }

    /// Answers the two commands of a client, whatever they say, and keeps its connection.
    fn subscribe(&self, mut stream: TcpStream) {
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
        for answer in [r#"{"id":1,"connect":{"client":"a"}}"#, r#"{"id":2,"subscribe":{}}"#] {
            if stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {
                if answer.contains("subscribe") {
                    let mut state = self.state.lock().unwrap();
                    state.subscribers.push(stream.try_clone().unwrap());
                }
                stream.write_all(&frame(answer)).unwrap();
            }
        }
    }

    /// Returns true if there is to be an answer.
    fn publish(&self, data: &str) -> bool {
        let mut state = self.state.lock().unwrap();
        state.published += 1;
        let message = format!(r#"{{"push":{{"channel":"a","pub":{{"data":{data}}}}}}}"#);
        let push = frame(&message);
        let mut bytes = push.clone();
        if state.published == FAULTY {
            match self.fault {
                Fault::Nothing => {}
                Fault::Dropped => bytes.clear(),
                Fault::Doubled => bytes.extend(&push),
                Fault::Invented => {
                    bytes.extend(frame(r#"{"push":{"pub":{"data":{"n":99999,"k":0,"t":1}}}}"#))
                }
                Fault::Reordered => {
                    state.held = Some(push);
                    return true;
                }
                Fault::CutOff => {
                    state.subscribers.clear();
                    return true;
                }
                Fault::Corrupted => bytes = frame(&message.replacen(" ", "_", 1)),
                Fault::Hung => {
                    state.subscribers.clear();
                    return false;
                }
            }
        }
        bytes.extend(state.held.take().unwrap_or_default());
        for subscriber in &mut state.subscribers {
            subscriber.write_all(&bytes).unwrap();
        }
        true
    }
}

/// Returns the next request's head and body, or `None` when the connection ends.
fn read_request(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        let text = String::from_utf8(received.clone()).unwrap();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if rest.len() >= length {
                received.drain(..head.len() + 4 + length);
                return Some((head.to_owned(), rest[..length].to_owned()));
            }
        }
        let mut part = [0; 4096];
        let length = stream.read(&mut part).ok().filter(|length| *length > 0)?;
        received.extend_from_slice(&part[..length]);
    }
}

fn data_of(body: &str) -> &str {
    body.split_once(r#""data":"#).and_then(|(_, rest)| rest.strip_suffix('}')).expect("a publish request")
}

/// Returns a text frame of less than 64 KiB.
fn frame(message: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match message.len() {
        short @ 0..126 => frame.push(short as u8),
        length => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(message.as_bytes());
    frame
}

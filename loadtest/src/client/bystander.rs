//! One client that pings all the time, to see whether what others do holds it up. It has a thread of its own.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fanwire_protocol::websocket::Opcode;
use memchr::memmem;

use crate::dialect::write_frame;
use crate::error::{Doing, LoadError};
use crate::measure::histogram::Recorder;

/// Between a pong and the next ping.
const PAUSE: Duration = Duration::from_millis(2);

/// Longer than any stall that is to be measured.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Bystander {
    is_done: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Recorder>>,
}

impl Bystander {
    /// Opens a WebSocket with this request, and sends these frames first.
    pub(crate) fn start(address: SocketAddrV4, request: &[u8], frames: &[u8]) -> Result<Self, LoadError> {
        let stream = open(address, request, frames).doing("open the WebSocket of a bystander")?;
        let is_done = Arc::<AtomicBool>::default();
        let done = Arc::clone(&is_done);
        Ok(Self { is_done, thread: thread::spawn(move || ping(stream, &done)) })
    }

    /// Returns the times from ping to pong.
    pub(crate) fn stop(self) -> Result<Recorder, LoadError> {
        self.is_done.store(true, Relaxed);
        let recorded = self.thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
        recorded.doing("ping as a bystander")
    }
}

fn open(address: SocketAddrV4, request: &[u8], frames: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(request)?;
    let mut head = Vec::new();
    while memmem::find(&head, b"\r\n\r\n").is_none() {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(frames)?;
    Ok(stream)
}

fn ping(mut stream: TcpStream, is_done: &AtomicBool) -> io::Result<Recorder> {
    let mut times = Recorder::new();
    let mut frame = Vec::new();
    while !is_done.load(Relaxed) {
        frame.clear();
        write_frame(Opcode::Ping, b"bystands", &mut frame);
        let began = Instant::now();
        stream.write_all(&frame)?;
        while !read_frame(&mut stream, &mut frame)? {}
        times.record(began.elapsed().as_nanos() as u64);
        thread::sleep(PAUSE);
    }
    Ok(times)
}

/// Reads a frame to its end, and returns true for a pong. A ping of the Centrifuge protocol is an empty message, which is
/// answered by the same.
fn read_frame(stream: &mut TcpStream, frame: &mut Vec<u8>) -> io::Result<bool> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            u16::from_be_bytes(length).into()
        }
        127 => return Err(io::Error::other("the server sent a frame of more than 64 KiB")),
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    let opcode = head[0] & 0x0F;
    if let Some(opcode) = [Opcode::Text, Opcode::Binary].into_iter().find(|known| *known as u8 == opcode)
        && matches!(&*payload, b"{}" | [0])
    {
        frame.clear();
        write_frame(opcode, &payload, frame);
        stream.write_all(frame)?;
    }
    Ok(opcode == Opcode::Pong as u8)
}

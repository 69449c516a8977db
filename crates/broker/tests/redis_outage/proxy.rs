//! A proxy before a Redis server that can stop forwarding without closing connections, like a broken network, or
//! forward everything but messages, like a server other than the one that gets the publications.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) struct Proxy {
    pub(crate) port: u16,
    links: Arc<Mutex<Vec<Arc<Link>>>>,
    /// No message passes, on any connection.
    is_mute: Arc<AtomicBool>,
    has_ended: Arc<AtomicBool>,
}

/// One connection through the proxy.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Channels were joined through it.
    subscribes: AtomicBool,
    is_closed: AtomicBool,
    is_stalled_up: AtomicBool,
    is_stalled_down: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

impl Proxy {
    pub(crate) fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            links: Arc::default(),
            is_mute: Arc::default(),
            has_ended: Arc::default(),
        };
        let (links, is_mute) = (Arc::clone(&proxy.links), Arc::clone(&proxy.is_mute));
        let has_ended = Arc::clone(&proxy.has_ended);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if has_ended.load(Ordering::Relaxed) {
                    return;
                }
                let (client, Ok(server)) = (client.unwrap(), TcpStream::connect(("127.0.0.1", server)))
                else {
                    continue;
                };
                let link = Arc::<Link>::default();
                links.lock().unwrap().push(Arc::clone(&link));
                for direction in [Direction::ToServer, Direction::ToClient] {
                    let (client, server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                    let (from, to) = match direction {
                        Direction::ToServer => (client, server),
                        Direction::ToClient => (server, client),
                    };
                    let (link, is_mute) = (Arc::clone(&link), Arc::clone(&is_mute));
                    let has_ended = Arc::clone(&has_ended);
                    std::thread::spawn(move || pump(from, to, direction, &link, &is_mute, &has_ended));
                }
            }
        });
        proxy
    }

    /// The connections that are open and work, oldest first: those for commands, and the one for subscriptions.
    pub(crate) fn open_links(&self) -> (Vec<Arc<Link>>, Vec<Arc<Link>>) {
        let links = self.links.lock().unwrap();
        let open = links.iter().filter(|link| link.works()).cloned();
        open.partition(|link| !link.subscribes.load(Ordering::Relaxed))
    }

    pub(crate) fn set_mute(&self, is_mute: bool) {
        self.is_mute.store(is_mute, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        // Wakes the listener, so that it notices.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Link {
    /// Stops forwarding in that direction without closing anything.
    pub(crate) fn stall(&self, direction: Direction) {
        self.stalled(direction).store(true, Ordering::Relaxed);
    }

    /// Forwards again, what has waited first.
    pub(crate) fn resume(&self, direction: Direction) {
        self.stalled(direction).store(false, Ordering::Relaxed);
    }

    fn works(&self) -> bool {
        [&self.is_closed, &self.is_stalled_up, &self.is_stalled_down]
            .iter()
            .all(|is_broken| !is_broken.load(Ordering::Relaxed))
    }

    fn stalled(&self, direction: Direction) -> &AtomicBool {
        match direction {
            Direction::ToServer => &self.is_stalled_up,
            Direction::ToClient => &self.is_stalled_down,
        }
    }
}

fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    direction: Direction,
    link: &Link,
    is_mute: &AtomicBool,
    has_ended: &AtomicBool,
) {
    from.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut waiting = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while !has_ended.load(Ordering::Relaxed) {
        if link.stalled(direction).load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => waiting.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => continue,
            Err(_) => break,
        }
        if link.stalled(direction).load(Ordering::Relaxed) {
            continue;
        }
        let ready = match direction {
            Direction::ToServer => {
                if waiting.windows(9).any(|word| word == b"SUBSCRIBE") {
                    link.subscribes.store(true, Ordering::Relaxed);
                }
                std::mem::take(&mut waiting)
            }
            Direction::ToClient => take_frames(&mut waiting, is_mute.load(Ordering::Relaxed)),
        };
        if to.write_all(&ready).is_err() {
            break;
        }
    }
    link.is_closed.store(true, Ordering::Relaxed);
    // Either may be closed already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// The complete values, without messages if they are held back.
fn take_frames(waiting: &mut Vec<u8>, is_mute: bool) -> Vec<u8> {
    let (mut ready, mut start) = (Vec::new(), 0);
    while let Some(length) = frame_length(&waiting[start..]) {
        let frame = &waiting[start..start + length];
        if !(is_mute && frame.starts_with(b">3\r\n$7\r\nmessage\r\n")) {
            ready.extend_from_slice(frame);
        }
        start += length;
    }
    waiting.drain(..start);
    ready
}

/// The length of the first value of the protocol, if it is complete.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse::<i64>().ok();
    let values = match bytes[0] {
        b'$' | b'=' | b'!' => {
            let length = number()?;
            let end = if length < 0 { line } else { line + length as usize + 2 };
            return (end <= bytes.len()).then_some(end);
        }
        b'*' | b'>' | b'~' => number()?,
        b'%' => 2 * number()?,
        _ => 0,
    };
    let mut end = line;
    for _ in 0..values {
        end += frame_length(&bytes[end..])?;
    }
    Some(end)
}

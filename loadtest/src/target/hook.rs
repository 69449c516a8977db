//! The application's backend for clients that connect by a hook: it knows each by its cookie, and takes its time.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use memchr::memmem;

use crate::dialect::USER_COOKIE;
use crate::error::{Doing, LoadError};

/// The time for which each call takes.
const DELAY: Duration = Duration::from_millis(50);

/// A backend of its own threads, one for each of the server's connections, and one that accepts them.
#[derive(Debug)]
pub(crate) struct HookBackend {
    pub(crate) address: SocketAddrV4,
    calls: Arc<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    all: AtomicU64,
    under_way: AtomicU64,
    under_way_max: AtomicU64,
    is_over: AtomicBool,
}

/// The calls of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HookCalls {
    pub(crate) all: u64,
    /// The most that were under way at a time.
    pub(crate) under_way_max: u64,
}

impl HookBackend {
    pub(crate) fn start() -> Result<Self, LoadError> {
        let doing = "listen for hooks";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(doing)?;
        let SocketAddr::V4(address) = listener.local_addr().doing(doing)? else {
            return Err(LoadError::Unreadable("an address of loopback".to_owned()));
        };
        let calls = Arc::<Calls>::default();
        let counted = Arc::clone(&calls);
        thread::spawn(move || {
            let streams = listener.incoming().map_while(Result::ok);
            for stream in streams.take_while(|_| !counted.is_over.load(Relaxed)) {
                let calls = Arc::clone(&counted);
                thread::spawn(move || drop(serve(stream, &calls)));
            }
        });
        Ok(Self { address, calls })
    }

    pub(crate) fn calls(&self) -> HookCalls {
        let Calls { all, under_way_max, .. } = &*self.calls;
        HookCalls { all: all.load(Relaxed), under_way_max: under_way_max.load(Relaxed) }
    }
}

impl Drop for HookBackend {
    fn drop(&mut self) {
        self.calls.is_over.store(true, Relaxed);
        // Wakes the thread that accepts. If it cannot be reached it has ended.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: TcpStream, calls: &Calls) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        while let Some((user, length)) = request(&read) {
            let body = format!(r#"{{"result":{{"user":"{user}"}}}}"#);
            read.drain(..length);
            calls.all.fetch_add(1, Relaxed);
            calls.under_way_max.fetch_max(calls.under_way.fetch_add(1, Relaxed) + 1, Relaxed);
            thread::sleep(DELAY);
            calls.under_way.fetch_sub(1, Relaxed);
            stream.write_all(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
            )?;
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            length => read.extend_from_slice(&chunk[..length]),
        }
    }
}

/// Returns the user of a whole request, and its length.
fn request(read: &[u8]) -> Option<(String, usize)> {
    let head_bytes = memmem::find(read, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&read[..head_bytes]).to_ascii_lowercase();
    let value = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length = head_bytes + value("content-length:")?.parse::<usize>().ok()?;
    let user = value("cookie:").and_then(|cookies| cookies.strip_prefix(USER_COOKIE)?.split(';').next());
    (read.len() >= length).then(|| (user.unwrap_or_default().to_owned(), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_its_cookie() {
        let whole = "POST / HTTP/1.1\r\nCookie: user=user-7; session=x\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(request(whole.as_bytes()), Some(("user-7".to_owned(), whole.len())));
        assert_eq!(request(&whole.as_bytes()[..whole.len() - 1]), None);
    }
}

//! A socket whose bytes are encrypted: rustls as a state machine between the socket and the shard's loop, without a
//! task of its own. What waits inside it is bounded in both directions.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use rustls::ServerConnection;

use super::io_result::{Input, WriteProgress};

/// Encrypted bytes that the kernel did not take yet; what goes beyond waits in the connection's queue, where it
/// counts.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// Encrypted bytes taken from the kernel for one read. Records of one byte make 23 of each, so the shared buffer alone
/// would not bound the work.
const RECEIVED_BYTES_PER_READ: usize = 32 * 1024;

#[derive(Debug)]
pub(super) struct Encrypted {
    pub(super) socket: TcpStream,
    tls: ServerConnection,
    /// The error after which nothing more can be received. It is told when what came before it is taken.
    failure: Option<io::Error>,
    /// The peer was told that nothing more comes. From then on the TLS session is not asked what came, since it has no
    /// right to complain.
    is_finished: bool,
    /// Encrypted bytes that the kernel took.
    sent: u64,
    /// Bytes of replies that may be among those the kernel did not take.
    replies: usize,
    /// Bytes that came behind the last of them.
    behind_replies: u64,
}

impl Encrypted {
    /// Goes on with a TLS session whose handshake is done.
    pub(super) fn new(socket: TcpStream, mut tls: ServerConnection) -> Self {
        tls.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        Self { socket, tls, failure: None, is_finished: false, sent: 0, replies: 0, behind_replies: 0 }
    }

    /// Takes what was decrypted already, then reads on. What the buffer has no room for stays in the TLS session, and
    /// no event of the socket will tell of it.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Input> {
        if self.is_finished {
            return self.drop_input(buffer);
        }
        let mut read = 0;
        let mut received = 0;
        while read < buffer.len() {
            match self.tls.reader().read(&mut buffer[read..]) {
                Ok(0) if read == 0 => return Ok(Input::End),
                Ok(0) => break,
                Ok(count) => {
                    read += count;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer has gone without a word. What it sent before is taken first.
                Err(error) if read == 0 => return Err(error),
                Err(_) => break,
            }
            if self.failure.is_some() && read > 0 || received >= RECEIVED_BYTES_PER_READ {
                break;
            }
            if let Some(error) = self.failure.take() {
                return Err(error);
            }
            match self.receive() {
                Ok(count) => received += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Input::All(read)),
                // Some may have been decrypted before it.
                Err(error) => self.failure = Some(error),
            }
        }
        Ok(Input::Some(read))
    }

    /// Reads without decrypting, to see the peer's end.
    fn drop_input(&mut self, buffer: &mut [u8]) -> io::Result<Input> {
        let mut dropped = 0;
        while dropped < RECEIVED_BYTES_PER_READ {
            match self.socket.read(buffer) {
                Ok(0) => return Ok(Input::End),
                Ok(count) => dropped += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Input::All(0)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Input::Some(0))
    }

    /// Reads encrypted bytes once and decrypts what is whole.
    fn receive(&mut self) -> io::Result<usize> {
        let received = loop {
            match self.tls.read_tls(&mut self.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received?,
            }
        };
        let processed = self.tls.process_new_packets();
        // An alert for a peer that broke the rules, if it takes it.
        let flushed = self.flush();
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        flushed?;
        Ok(received)
    }

    /// Encrypts as much as may wait, and hands it over.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<WriteProgress> {
        if !self.flush()? {
            return Ok(WriteProgress::Nothing);
        }
        let taken = self.tls.writer().write_vectored(slices)?;
        self.flush()?;
        Ok(WriteProgress::Bytes(taken))
    }

    pub(super) fn is_flushed(&self) -> bool {
        !self.tls.wants_write()
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// The TLS session does not say what is left in it. It is less than it may hold, so a reply is out when that much
    /// came behind it.
    pub(super) fn unsent_replies(&mut self, given: usize, written: u64) -> usize {
        let is_more = given > self.replies;
        self.behind_replies = if is_more { 0 } else { self.behind_replies + written };
        let is_out = self.is_flushed() || self.behind_replies >= UNSENT_BYTES_MAX as u64;
        self.replies = if is_out { 0 } else { given };
        self.replies
    }

    /// Hands over what is encrypted; false if the socket takes no more of it until it is told to be writable.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// To be called again when the socket is writable, until everything is flushed.
    pub(super) fn finish(&mut self) {
        self.is_finished = true;
        if self.say_goodbye() {
            // A peer that has gone needs no goodbye.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Says once that nothing more comes, and whether the socket took it.
    pub(super) fn say_goodbye(&mut self) -> bool {
        self.tls.send_close_notify();
        self.flush().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};
    use socket2::SockRef;

    use super::*;

    const NAME: &str = "localhost";
    const DEADLINE: Duration = Duration::from_secs(30);
    const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

    /// A record that no key opens.
    const GARBAGE: [u8; 64] = {
        let mut record = [0x5A; 64];
        [record[0], record[1], record[2], record[3], record[4]] = [0x17, 0x03, 0x03, 0, 59];
        record
    };

    struct Peer {
        socket: std::net::TcpStream,
        tls: ClientConnection,
    }

    impl Peer {
        fn encrypted(&mut self, bytes: &[u8]) -> Vec<u8> {
            self.tls.set_buffer_limit(None);
            self.tls.writer().write_all(bytes).unwrap();
            let mut records = Vec::new();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut records).unwrap();
            }
            records
        }

        /// Closes the connection with a reset.
        fn vanish(self) {
            SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    /// A TLS session as it comes to a shard, and the other end.
    fn connected(version: &'static SupportedProtocolVersion) -> (Encrypted, Peer) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone());
        let config = config.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = config.with_single_cert(vec![cert.der().clone()], key).unwrap();
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();

        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let config =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let mut client =
            ClientConnection::new(Arc::new(config), ServerName::try_from(NAME).unwrap()).unwrap();

        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        for socket in [&peer, &socket] {
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.set_nodelay(true).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| tls.complete_io(&mut socket).unwrap());
            client.complete_io(&mut peer).unwrap();
        });
        socket.set_nonblocking(true).unwrap();
        (Encrypted::new(TcpStream::from_std(socket), tls), Peer { socket: peer, tls: client })
    }

    /// Returns what a shard would read with buffers of this size until the peer's end, and how it ended.
    fn read_to_end(encrypted: &mut Encrypted, buffer_bytes: usize) -> (Vec<u8>, io::Result<()>) {
        let began = Instant::now();
        let mut bytes = Vec::new();
        let mut buffer = vec![0; buffer_bytes];
        loop {
            match encrypted.read(&mut buffer) {
                Ok(Input::Some(count) | Input::All(count)) => bytes.extend_from_slice(&buffer[..count]),
                Ok(Input::End) => return (bytes, Ok(())),
                Err(error) => return (bytes, Err(error)),
            }
            assert!(began.elapsed() < DEADLINE, "the end does not come after {} bytes", bytes.len());
        }
    }

    #[test]
    fn what_came_before_a_bad_record_is_taken() {
        for version in VERSIONS {
            for (bytes, buffer_bytes) in [(100, 16 * 1024), (100, 10), (60_000, 16 * 1024)] {
                let (mut encrypted, mut peer) = connected(version);
                let mut records = peer.encrypted(&vec![b'x'; bytes]);
                records.extend(GARBAGE);
                peer.socket.write_all(&records).unwrap();
                let (read, end) = read_to_end(&mut encrypted, buffer_bytes);
                assert_eq!(read.len(), bytes);
                assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData);
            }
        }
    }

    #[test]
    fn what_came_before_a_reset_is_taken() {
        for version in VERSIONS {
            let (mut encrypted, mut peer) = connected(version);
            let records = peer.encrypted(b"last words");
            peer.socket.write_all(&records).unwrap();
            peer.vanish();
            let (read, end) = read_to_end(&mut encrypted, 16 * 1024);
            assert_eq!(read, b"last words");
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[test]
    fn whatever_comes_after_the_goodbye_is_dropped_up_to_the_end() {
        for version in VERSIONS {
            for junk in [GARBAGE.to_vec(), GARBAGE.repeat(10_000), b"no record".to_vec()] {
                let (mut encrypted, mut peer) = connected(version);
                encrypted.finish();
                let mut records = peer.encrypted(b"too late");
                records.extend(junk);
                let peer = thread::spawn(move || {
                    peer.socket.write_all(&records).unwrap();
                    peer.socket.shutdown(Shutdown::Write).unwrap();
                    peer
                });
                let (read, end) = read_to_end(&mut encrypted, 16 * 1024);
                assert!(read.is_empty() && end.is_ok(), "{read:?} {end:?}");
                drop(peer.join().unwrap());
            }
        }
    }
}

//! The interface: what a core thread can ask for, and what comes back.
//!
//! Calls that take a [`Token`] only submit; what came of them is an [`Event`] with that token, out of a later
//! [`Ring::wait`]. Calls without one act at once: they are few and cheap (a socket's options, a file's name at
//! start-up). A token is the caller's to choose; the ring gives it back and reads nothing into it.

use bytes::Bytes;
use smallvec::SmallVec;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The caller's name for an operation.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Token(pub u64);

/// A socket of this ring. Stale ones are not reused while an event for them can still come.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Socket(pub u32);

/// A file of this ring.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct File(pub u32);

/// Bytes that came in, in a buffer lent by the ring: read them with [`Ring::received`], then give them back.
/// Not `Clone`: whoever holds it owes [`Ring::give_back`].
#[derive(Debug)]
pub struct Received {
    pub buffer: u16,
    pub len: u32,
}

/// One send: pieces in order, as one message to the kernel. The whole is reused by its caller afterwards.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// What [`Piece::Own`] points into: command lines, headers of one delivery.
    pub own: Vec<u8>,
    pub pieces: SmallVec<[Piece; 8]>,
    /// Ask the kernel to send without copying. It may copy all the same and then says so in [`Event::Sent`].
    pub zero_copy: bool,
}

/// A part of a send.
#[derive(Clone, Debug)]
pub enum Piece {
    /// A range of [`Outgoing::own`].
    Own(Range<u32>),
    /// Shared memory: a body that goes to many.
    Shared(Bytes),
}

impl Outgoing {
    /// Octets in all pieces.
    pub fn len(&self) -> usize {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Own(range) => range.len(),
                Piece::Shared(bytes) => bytes.len(),
            })
            .sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the pieces, keeps the allocation.
    pub fn clear(&mut self) {
        self.own.clear();
        self.pieces.clear();
        self.zero_copy = false;
    }
}

/// Who connected to a listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    Net(SocketAddr),
    /// Through a Unix socket. `uid`: the effective user of the process when it connected, as the kernel says.
    Local {
        uid: u32,
    },
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// An existing file, to be read.
    Read,
    /// Read and written past the page cache where the filesystem can (`O_DIRECT`), else through it. Created if
    /// it is missing. Offsets and lengths of writes are multiples of [`BLOCK`].
    Direct,
    /// Read and written through the page cache, created if missing: for [`Ring::put`].
    Cached,
    /// Written through the page cache at the end, created if missing: the delivery log, the event log.
    Append,
}

/// Writes to a file opened [`Access::Direct`] are multiples of this many bytes, at multiples of it.
pub const BLOCK: usize = 4096;

/// The answer to an operation, under the token that asked for it.
// Moving an `Outgoing` costs less than a box for each send.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Event {
    /// One connection of a multishot accept.
    Accepted {
        token: Token,
        socket: Socket,
        peer: Peer,
    },
    /// The accept ended (out of descriptors, cancelled); ask again when it makes sense.
    AcceptEnded {
        token: Token,
        error: io::Error,
    },
    Connected {
        token: Token,
        result: io::Result<()>,
    },
    /// Bytes of a multishot receive.
    Received {
        token: Token,
        data: Received,
    },
    /// The receive ended: `Ok` is the peer's end of stream, an error is the connection's.
    /// (When the ring runs out of receive buffers it re-arms by itself and says nothing.)
    ReceiveEnded {
        token: Token,
        result: io::Result<()>,
    },
    /// All of it was handed to the kernel, or the connection is broken. `outgoing` comes back for reuse, its
    /// buffers no longer used by the kernel. `copied`: the kernel's answer to a wish for zero copy, if there was one.
    Sent {
        token: Token,
        result: io::Result<()>,
        outgoing: Outgoing,
        copied: Option<bool>,
    },
    /// `bytes` comes back for reuse.
    Written {
        token: Token,
        result: io::Result<()>,
        bytes: Vec<u8>,
    },
    /// The bytes that were there: fewer than asked at the end of the file.
    ReadDone {
        token: Token,
        result: io::Result<Vec<u8>>,
    },
    Opened {
        token: Token,
        result: io::Result<File>,
    },
    /// Of [`Ring::sync`], [`Ring::allocate`] and [`Ring::remove`].
    Done {
        token: Token,
        result: io::Result<()>,
    },
    /// Somebody used this ring's [`Waker`]. Several wake-ups may come as one.
    Woken,
}

/// Wakes a ring that waits, from any thread.
pub trait Wake: Send + Sync {
    fn wake(&self);
}

/// A clonable handle to [`Wake`].
pub type Waker = Arc<dyn Wake>;

/// What a core thread can ask of the world.
pub trait Ring {
    // ---- sockets ----

    /// A listening TCP socket (`SO_REUSEADDR`, `SO_REUSEPORT`, so that every core has its own).
    fn listen(&mut self, address: SocketAddr) -> io::Result<Socket>;

    /// Takes over a stream socket that listens already, on a network or a Unix address: whoever may bind it is another
    /// part of the program, or of the system. Several rings may each have a duplicate of one such socket; each
    /// connection goes to one of them. Fails if it is no listening stream socket. The socket is made a blocking one,
    /// for all that share it.
    fn adopt_listener(&mut self, listener: OwnedFd) -> io::Result<Socket>;

    /// The address that a listener got (port 0 asks the kernel for one).
    fn local_address(&self, socket: Socket) -> io::Result<SocketAddr>;

    /// Accepts until cancelled: `Accepted` each, `AcceptEnded` once.
    fn accept(&mut self, token: Token, listener: Socket);

    /// Connects from `source` if given. The socket is the caller's at once; `Connected` tells what came of it.
    fn connect(&mut self, token: Token, peer: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket>;

    /// As [`Ring::connect`], to a Unix socket of this machine.
    fn connect_locally(&mut self, token: Token, path: &Path) -> io::Result<Socket>;

    /// Receives until the end of the stream: `Received` each, `ReceiveEnded` once.
    fn receive(&mut self, token: Token, socket: Socket);

    /// Stops a receive for now, so that a peer's bytes wait in the kernel; some may still come. When it has
    /// stopped, `ReceiveEnded` comes with [`io::ErrorKind::Interrupted`]; [`Ring::receive`] takes it up again.
    fn pause(&mut self, socket: Socket);

    /// Sends all of it. Sends on one socket must not overlap: wait for `Sent`.
    fn send(&mut self, token: Token, socket: Socket, outgoing: Outgoing);

    /// Ends every operation on the socket and closes it. Only `Sent` (which gives a buffer back) can still come.
    fn close(&mut self, socket: Socket);

    fn received(&self, data: &Received) -> &[u8];

    fn give_back(&mut self, data: Received);

    // ---- files ----

    /// Writes `bytes` at `offset`; with `durable`, `Written` comes only after a data sync that followed it.
    fn write(&mut self, token: Token, file: File, offset: u64, bytes: Vec<u8>, durable: bool);

    /// Puts bytes into the page cache of a file opened [`Access::Cached`], at once: they survive the process from
    /// here on, and the machine after the next [`Ring::sync`]. One system call, no waiting for the disk.
    fn put(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Appends to a file opened [`Access::Append`].
    fn append(&mut self, token: Token, file: File, bytes: Vec<u8>);

    /// Puts bytes into the page cache behind the end of a file opened [`Access::Append`], at once and in one piece, whoever
    /// else appends to it. Returns how many there was room for: fewer than asked on a full disk. One system call.
    fn put_at_end(&mut self, file: File, bytes: &[u8]) -> io::Result<usize>;

    /// Reads `len` bytes at `offset`; neither need be aligned.
    fn read(&mut self, token: Token, file: File, offset: u64, len: usize);

    /// Makes the file's data durable; with `metadata`, its size and (for a folder) its names too.
    fn sync(&mut self, token: Token, file: File, metadata: bool);

    /// Reserves disk space up to `len` bytes; the file is at least that long afterwards.
    fn allocate(&mut self, token: Token, file: File, len: u64);

    /// Opens or creates a file without holding up the thread.
    fn open(&mut self, token: Token, path: &Path, access: Access);

    /// Removes a file's name.
    fn remove(&mut self, token: Token, path: &Path);

    fn close_file(&mut self, file: File);

    // ---- files at start-up, at once ----

    /// Names in a folder, sorted. The folder is created if missing.
    fn list(&mut self, folder: &Path) -> io::Result<Vec<String>>;

    fn open_now(&mut self, path: &Path, access: Access) -> io::Result<File>;

    /// A folder, for [`Ring::sync`] of the names in it.
    fn open_folder(&mut self, path: &Path) -> io::Result<File>;

    fn file_len(&mut self, file: File) -> io::Result<u64>;

    /// Fills `bytes` from `offset`; returns how many there were.
    fn read_now(&mut self, file: File, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// Makes the file's data durable before it returns: what a process that died had written may not be.
    fn sync_now(&mut self, file: File) -> io::Result<()>;

    /// Bytes that the folder's filesystem has free.
    fn free_space(&mut self, folder: &Path) -> io::Result<u64>;

    // ---- time ----

    /// Submits what was asked for and waits until something happened or `timeout` is over (`None`: for ever;
    /// zero: only looks). Appends what happened to `events`, which may be nothing (a part of a write, a cancel).
    /// One system call.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// From now on a wait goes on until `want` operations have ended, or for `linger` since it began if at least
    /// one has: fewer and fuller turns under load. A wish: a kernel that cannot (Linux before 6.12) wakes for each.
    fn gather(&mut self, want: u32, linger: Duration) {
        let _ = (want, linger);
    }

    fn waker(&self) -> Waker;
}

//! The ring: start, one wait, the end.
//!
//! One ring belongs to the thread that made it (`SINGLE_ISSUER`; the type is not `Send`), and completions are
//! worked out only inside our own wait (`DEFER_TASKRUN`). Sockets are plain descriptors, not registered files:
//! those would save 0.2-0.3 us an operation, but need two more entries a connection, and before Linux 6.13 an
//! idle connection's receive keeps every registered file that was closed after it from really closing.
//!
//! Bound: the queues and both buffer pools have fixed sizes; a full queue is submitted, an overflowing completion
//! queue is kept by the kernel and fetched at the next wait.

use crate::api::{Access, BLOCK, Event, File, Outgoing, Received, Ring, Socket, Token, Wake, Waker};
use crate::buffers::{AlignedBuffer, ReceiveBuffers, WriteBuffers};
use crate::completion::Completion;
use crate::file::FileEntry;
use crate::op::{self, InFlight, Op, OpId, UserData};
use crate::probe::{self, StartError};
use crate::socket::SocketEntry;
use crate::submission::{Submission, Unit};
use crate::table::Table;
use crate::waker::EventWaker;
use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sizes of a ring. The defaults serve some ten thousand connections on one core in about 21 MiB, most of which
/// is touched only under load.
#[derive(Clone, Debug)]
pub struct UringConfig {
    /// Operations that one system call can submit; more only cost more calls.
    pub submission_entries: u32,
    /// Completions that can wait for one reaping; more cost the kernel memory, none is lost.
    pub completion_entries: u32,
    /// Receive buffers of all sockets together, rounded up to a power of two, at most 32,768. Each completion
    /// takes one until it is given back: one per connection that can speak in the same moment.
    pub receive_buffers: u16,
    /// 16 KiB holds a burst of a hundred pipelined commands, and a 64 KiB body in four.
    pub receive_buffer_len: u32,
    /// Write buffers in all: what can be on its way to the disk at once without allocating.
    pub write_buffers_len: usize,
    /// One write buffer, rounded up to a multiple of [`BLOCK`]; a longer write is cut into several.
    pub write_buffer_len: usize,
}

impl Default for UringConfig {
    fn default() -> Self {
        Self {
            submission_entries: 1024,
            completion_entries: 8192,
            receive_buffers: 1024,
            receive_buffer_len: 16 << 10,
            write_buffers_len: 4 << 20,
            write_buffer_len: 256 << 10,
        }
    }
}

/// The kernel's [`Ring`].
pub struct Uring {
    // First, so that it is dropped first: the kernel must have let go of the buffers before they go.
    pub(crate) submission: Submission,
    pub(crate) sockets: Table<SocketEntry>,
    pub(crate) files: Table<FileEntry>,
    pub(crate) ops: InFlight,
    pub(crate) receive_buffers: ReceiveBuffers,
    pub(crate) write_buffers: WriteBuffers,
    /// Receives that ended for want of buffers, oldest first.
    pub(crate) starved: VecDeque<OpId>,
    /// Answers that needed no kernel: handed out by the next wait.
    pub(crate) ready: Vec<Event>,
    /// Kept for its allocation.
    pub(crate) reaped: Vec<Completion>,
    waker: Arc<EventWaker>,
    notes: Vec<String>,
    /// The ring is being dropped: nothing is armed again.
    ending: bool,
}

/// How long a drop waits for operations to end before it gives their memory up.
const ENDING_MAX: Duration = Duration::from_secs(2);

impl Uring {
    /// Sets the ring up, for the calling thread alone.
    pub fn new(config: UringConfig) -> Result<Self, StartError> {
        probe::check_kernel()?;
        let ring = build(&config).map_err(probe::explain)?;
        let count = config.receive_buffers.clamp(1, ReceiveBuffers::COUNT_MAX).next_power_of_two();
        let receive_buffers =
            ReceiveBuffers::register(&ring, count, config.receive_buffer_len).map_err(probe::explain)?;
        let piece = config.write_buffer_len.max(1).next_multiple_of(BLOCK);
        let (write_buffers, note) =
            WriteBuffers::register(&ring, config.write_buffers_len, piece).map_err(probe::explain)?;
        give_up_the_rest(&ring).map_err(probe::explain)?;
        let waker = Arc::new(EventWaker::new().map_err(probe::explain)?);
        let mut uring = Self {
            submission: Submission::new(ring),
            sockets: Table::new(),
            files: Table::new(),
            ops: InFlight::new(),
            receive_buffers,
            write_buffers,
            starved: VecDeque::new(),
            ready: Vec::new(),
            reaped: Vec::new(),
            waker,
            notes: note.into_iter().collect(),
            ending: false,
        };
        uring.arm_waker();
        Ok(uring)
    }

    /// What the operator should know about this ring, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    // ---- operations ----

    /// Takes an operation in and queues its first entry.
    pub(crate) fn start(&mut self, op: Op) -> OpId {
        let id = self.ops.insert(op);
        self.push(id, 0);
        id
    }

    /// Queues (again) an entry of an operation in the slab. No allocation.
    pub(crate) fn push(&mut self, id: OpId, part: u32) {
        let entry = self.entry(id, part);
        // SAFETY: the entry points into heap memory that its operation owns, or into a write buffer that it holds
        // (`Op::entry`), and `ops` owns the operation until its last completion is reaped.
        unsafe { self.submission.push(Unit::One(entry)) };
    }

    /// Queues two entries of an operation, the second to run only after the first succeeded in full.
    pub(crate) fn push_linked(&mut self, id: OpId, first: u32, second: u32) {
        let first = self.entry(id, first).flags(Flags::IO_LINK);
        let second = self.entry(id, second);
        // SAFETY: as in `push`.
        unsafe { self.submission.push(Unit::Linked([first, second])) };
    }

    /// Queues an entry that points to no memory: a cancel or a close.
    pub(crate) fn push_plain(&mut self, entry: io_uring::squeue::Entry) {
        // SAFETY: cancels and closes carry numbers alone; `op`'s functions that make them take nothing else.
        unsafe { self.submission.push(Unit::One(entry)) };
    }

    fn entry(&mut self, id: OpId, part: u32) -> io_uring::squeue::Entry {
        let entry = self.ops.op(id).entry(part, &self.write_buffers);
        entry.user_data(UserData::new(id, part).0)
    }

    // ---- waking ----

    fn arm_waker(&mut self) {
        let fd = self.waker.fd();
        self.start(Op::Wake { fd, counter: AlignedBuffer::new(8) });
    }

    pub(crate) fn on_woken(&mut self, id: OpId, events: &mut Vec<Event>) {
        if self.ending {
            self.ops.remove(id);
            return;
        }
        self.waker.clear();
        events.push(Event::Woken);
        self.push(id, 0);
    }

    // ---- one turn ----

    fn turn(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.feed_starved();
        let timeout = if self.ready.is_empty() { timeout } else { Some(Duration::ZERO) };
        events.append(&mut self.ready);
        let result = self.submission.submit_and_wait(timeout);
        if self.submission.take_cut() {
            self.ops.writes_mut().for_each(|write| write.link_doubtful = true);
        }
        self.reap(events);
        result
    }

    // ---- the end ----

    /// Cancels everything and waits for it; false if something would not end in time.
    fn end_all(&mut self) -> bool {
        self.ending = true;
        for id in std::mem::take(&mut self.starved) {
            self.ops.remove(id);
        }
        self.sockets.entries_mut().for_each(|socket| socket.closed = true);
        self.push_plain(op::cancel_any_entry());
        let deadline = Instant::now() + ENDING_MAX;
        let mut events = Vec::new();
        while !self.ops.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.turn(Some(left), &mut events).is_err() {
                return false;
            }
            events.clear();
        }
        true
    }
}

/// Every operation that an [`Op`] makes.
const OPERATIONS: [u8; 15] = [
    opcode::AcceptMulti::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Close::CODE,
    opcode::Connect::CODE,
    opcode::Fallocate::CODE,
    opcode::Fsync::CODE,
    opcode::OpenAt::CODE,
    opcode::Read::CODE,
    opcode::RecvMulti::CODE,
    opcode::Send::CODE,
    opcode::SendMsg::CODE,
    opcode::SendMsgZc::CODE,
    opcode::UnlinkAt::CODE,
    opcode::Write::CODE,
    opcode::WriteFixed::CODE,
];

/// From here on the kernel refuses any other operation on this ring, and to register anything: what a seccomp filter cannot
/// see. The ring begins to work.
fn give_up_the_rest(ring: &IoUring) -> io::Result<()> {
    let flags = Flags::IO_LINK | Flags::ASYNC | Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS;
    let mut restrictions = vec![Restriction::sqe_flags_allowed(flags.bits())];
    restrictions.extend(OPERATIONS.map(Restriction::sqe_op));
    ring.submitter().register_restrictions(&mut restrictions)?;
    ring.submitter().register_enable_rings()
}

/// A ring that does nothing before [`give_up_the_rest`].
fn build(config: &UringConfig) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_r_disabled()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(config.completion_entries.max(config.submission_entries * 2))
        // A link takes two places at once.
        .build(config.submission_entries.max(8))
}

impl Drop for Uring {
    fn drop(&mut self) {
        if !self.end_all() {
            // The kernel may still read or write the memory of what did not end (a disk that hangs, a zero-copy
            // send whose peer does not acknowledge), so it must never be used for anything else.
            self.ops.leak();
            self.receive_buffers.leak();
            self.write_buffers.leak();
        }
    }
}

impl Ring for Uring {
    fn listen(&mut self, address: SocketAddr) -> io::Result<Socket> {
        self.open_listener(address)
    }

    fn adopt_listener(&mut self, listener: OwnedFd) -> io::Result<Socket> {
        self.take_listener(listener)
    }

    fn local_address(&self, socket: Socket) -> io::Result<SocketAddr> {
        self.address_of(socket)
    }

    fn accept(&mut self, token: Token, listener: Socket) {
        self.start_accept(token, listener);
    }

    fn connect(&mut self, token: Token, peer: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket> {
        self.start_connect(token, peer, source)
    }

    fn connect_locally(&mut self, token: Token, path: &Path) -> io::Result<Socket> {
        self.start_connect_locally(token, path)
    }

    /// One submission entry for the whole life of the connection.
    fn receive(&mut self, token: Token, socket: Socket) {
        self.start_receive(token, socket);
    }

    fn pause(&mut self, socket: Socket) {
        self.pause_receive(socket);
    }

    /// One submission entry, no copy and no allocation in user space.
    fn send(&mut self, token: Token, socket: Socket, outgoing: Outgoing) {
        self.start_send(token, socket, outgoing);
    }

    fn close(&mut self, socket: Socket) {
        self.close_socket(socket);
    }

    /// No copy.
    fn received(&self, data: &Received) -> &[u8] {
        self.receive_buffers.bytes(data)
    }

    /// Two stores.
    fn give_back(&mut self, data: Received) {
        self.receive_buffers.give_back(data.buffer);
    }

    /// One copy into a registered buffer; allocates only when all of those are under way.
    fn write(&mut self, token: Token, file: File, offset: u64, bytes: Vec<u8>, durable: bool) {
        self.start_write(token, file, offset, bytes, durable);
    }

    fn put(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.put_at_once(file, offset, bytes)
    }

    fn append(&mut self, token: Token, file: File, bytes: Vec<u8>) {
        self.start_append(token, file, bytes);
    }

    fn put_at_end(&mut self, file: File, bytes: &[u8]) -> io::Result<usize> {
        self.append_at_once(file, bytes)
    }

    fn read(&mut self, token: Token, file: File, offset: u64, len: usize) {
        self.start_read(token, file, offset, len);
    }

    fn sync(&mut self, token: Token, file: File, metadata: bool) {
        self.start_sync(token, file, metadata);
    }

    fn allocate(&mut self, token: Token, file: File, len: u64) {
        self.start_allocate(token, file, len);
    }

    fn open(&mut self, token: Token, path: &Path, access: Access) {
        self.start_open(token, path, access);
    }

    fn remove(&mut self, token: Token, path: &Path) {
        self.start_remove(token, path);
    }

    fn close_file(&mut self, file: File) {
        self.end_file(file);
    }

    fn list(&mut self, folder: &Path) -> io::Result<Vec<String>> {
        crate::file::list(folder)
    }

    fn open_now(&mut self, path: &Path, access: Access) -> io::Result<File> {
        self.open_at_once(path, access)
    }

    fn open_folder(&mut self, path: &Path) -> io::Result<File> {
        self.open_folder_at_once(path)
    }

    fn file_len(&mut self, file: File) -> io::Result<u64> {
        self.len_of(file)
    }

    fn read_now(&mut self, file: File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.read_at_once(file, offset, bytes)
    }

    fn sync_now(&mut self, file: File) -> io::Result<()> {
        self.sync_at_once(file)
    }

    fn free_space(&mut self, folder: &Path) -> io::Result<u64> {
        crate::file::free_space(folder)
    }

    /// May also return early without an event, when what happened concerns the ring alone.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.turn(timeout, events)
    }

    fn gather(&mut self, want: u32, linger: Duration) {
        self.submission.set_gather(want, linger);
    }

    fn waker(&self) -> Waker {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result_of(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> i32 {
        // SAFETY: neither entry of the test below points to memory.
        unsafe { ring.submission().push(entry) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        ring.completion().next().unwrap().result()
    }

    #[test]
    fn what_is_no_operation_of_ours_is_refused_by_the_kernel() {
        let mut ring = build(&UringConfig::default()).unwrap();
        give_up_the_rest(&ring).unwrap();
        let none = io_uring::types::Fd(-1);
        assert_eq!(result_of(&mut ring, &opcode::Fsync::new(none).build()), -libc::EBADF);
        assert_eq!(result_of(&mut ring, &opcode::Nop::new().build()), -libc::EACCES);
        assert_eq!(ring.submitter().register_files(&[]).unwrap_err().raw_os_error(), Some(libc::EACCES));
    }
}

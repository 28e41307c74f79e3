//! Files: what the calls on them start, and what their completions mean.
//!
//! `O_DIRECT` is asked for and done without where the filesystem refuses it, at the opening or at the first
//! transfer, once for each file. A closed file's descriptor stays until its operations have ended.

use crate::api::{Access, BLOCK, Event, File, Token};
use crate::buffers::AlignedBuffer;
use crate::completion::Completion;
use crate::op::{self, Next, Op, OpId, OpenOp, Part, PartBuffer, ReadOp, SYNC, Span, WriteOp};
use crate::uring::Uring;
use io_uring::squeue::Flags;
use rustix::fs::{Mode, OFlags};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Queued mail is nobody else's business.
pub(crate) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

pub(crate) struct FileEntry {
    fd: OwnedFd,
    access: Access,
    /// Read and written past the page cache.
    direct: bool,
    /// Operations that refer to the file.
    ops: u32,
    closed: bool,
}

pub(crate) fn open_flags(access: Access, direct: bool) -> OFlags {
    let flags = match access {
        Access::Read => OFlags::RDONLY,
        Access::Direct => OFlags::RDWR | OFlags::CREATE,
        Access::Cached => OFlags::RDWR | OFlags::CREATE,
        Access::Append => OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND,
    };
    let direct = if direct { OFlags::DIRECT } else { OFlags::empty() };
    flags | direct | OFlags::CLOEXEC
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

fn stale() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}

impl Uring {
    // ---- operations and their file ----

    fn adopt_file(&mut self, fd: OwnedFd, access: Access, direct: bool) -> File {
        File(self.files.insert(FileEntry { fd, access, direct, ops: 0, closed: false }))
    }

    /// Counts an operation in and gives descriptor, access and whether it goes past the page cache.
    fn enter_file_op(&mut self, file: File) -> io::Result<(RawFd, Access, bool)> {
        let entry = self.files.entry_mut(file.0).filter(|entry| !entry.closed).ok_or_else(stale)?;
        entry.ops += 1;
        Ok((entry.fd.as_raw_fd(), entry.access, entry.direct))
    }

    fn leave_file_op(&mut self, file: File) {
        let entry = self.files.entry_mut(file.0).expect("an entry outlives its operations");
        entry.ops -= 1;
        self.close_if_over(file);
    }

    pub(crate) fn end_file(&mut self, file: File) {
        if let Some(entry) = self.files.entry_mut(file.0) {
            entry.closed = true;
        }
        self.close_if_over(file);
    }

    fn close_if_over(&mut self, file: File) {
        if self.files.entry(file.0).is_some_and(|entry| entry.closed && entry.ops == 0)
            && let Some(entry) = self.files.remove(file.0)
        {
            // In a kernel thread: the last close of a removed file frees its blocks, which takes milliseconds.
            self.push_plain(op::close_entry(entry.fd.into_raw_fd()).flags(Flags::ASYNC));
        }
    }

    /// The filesystem has refused a transfer past the page cache: from now on through it.
    fn fall_back(&mut self, file: File) {
        if let Some(entry) = self.files.entry_mut(file.0)
            && let Ok(flags) = rustix::fs::fcntl_getfl(&entry.fd)
        {
            // If this fails too, the transfer says so when it is tried again.
            let _ = rustix::fs::fcntl_setfl(&entry.fd, flags - OFlags::DIRECT);
            entry.direct = false;
        }
    }

    // ---- write ----

    pub(crate) fn start_write(
        &mut self,
        token: Token,
        file: File,
        offset: u64,
        bytes: Vec<u8>,
        durable: bool,
    ) {
        let aligned = offset.is_multiple_of(BLOCK as u64) && bytes.len().is_multiple_of(BLOCK);
        let entry = match self.enter_file_op(file) {
            // Refused even where it would work: it would fail on the next filesystem.
            Ok((_, Access::Direct, _)) if !aligned => {
                self.leave_file_op(file);
                Err(io::ErrorKind::InvalidInput.into())
            }
            entered => entered,
        };
        match entry {
            Ok((fd, _, direct)) => {
                let mut write = self.ops.spare_write();
                write.begin(token, file, fd, bytes);
                (write.offset, write.direct, write.durable) = (Some(offset), direct, durable);
                self.fill_parts(&mut write);
                self.launch_write(write);
            }
            Err(error) => self.ready.push(Event::Written { token, result: Err(error), bytes }),
        }
    }

    pub(crate) fn start_append(&mut self, token: Token, file: File, bytes: Vec<u8>) {
        match self.enter_file_op(file) {
            Ok((fd, ..)) => {
                let mut write = self.ops.spare_write();
                write.begin(token, file, fd, bytes);
                self.fill_parts(&mut write);
                self.launch_write(write);
            }
            Err(error) => self.ready.push(Event::Written { token, result: Err(error), bytes }),
        }
    }

    /// Copies what goes past the page cache into aligned memory, in pieces; else the bytes stay where they are.
    fn fill_parts(&mut self, write: &mut WriteOp) {
        if !write.direct {
            if !write.bytes.is_empty() {
                write.parts.push(Part::new(PartBuffer::Caller, 0, write.bytes.len()));
            }
            return;
        }
        let piece = self.write_buffers.piece();
        for (index, chunk) in write.bytes.chunks(piece).enumerate() {
            let buffer = match self.write_buffers.fill(chunk) {
                Some(buffer) => PartBuffer::Pool(buffer),
                None => PartBuffer::Aligned(AlignedBuffer::copy_of(chunk)),
            };
            write.parts.push(Part::new(buffer, index * piece, chunk.len()));
        }
    }

    fn launch_write(&mut self, mut write: Box<WriteOp>) {
        let parts = u32::try_from(write.parts.len()).expect("a write has fewer than 2^32 parts");
        let linked = parts == 1 && write.durable;
        write.in_flight = if linked { 2 } else { parts };
        let id = self.ops.insert(Op::Write(write));
        match parts {
            0 => self.advance_write(id, None),
            1 if linked => self.push_linked(id, 0, SYNC),
            _ => (0..parts).for_each(|part| self.push(id, part)),
        }
    }

    pub(crate) fn on_written(&mut self, id: OpId, completion: Completion, events: &mut Vec<Event>) {
        let part = completion.user_data.part();
        let write = self.ops.write(id);
        write.in_flight -= 1;
        let again = if part == SYNC {
            write.on_sync(completion.result);
            false
        } else if completion.result == -libc::EINVAL && write.may_fall_back(part) {
            let file = write.file;
            self.fall_back(file);
            true
        } else {
            write.on_part(part, completion.result)
        };
        if again {
            self.ops.write(id).in_flight += 1;
            self.push(id, part);
        }
        self.advance_write(id, Some(events));
    }

    /// Sends the sync or ends the write, if nothing of it is in flight. Without `events` an end is kept as ready.
    fn advance_write(&mut self, id: OpId, events: Option<&mut Vec<Event>>) {
        let write = self.ops.write(id);
        if write.in_flight > 0 {
            return;
        }
        match write.next() {
            Next::Sync => {
                write.begin_sync();
                write.in_flight = 1;
                self.push(id, SYNC);
            }
            Next::End(result) => {
                let event = self.end_write(id, result);
                events.unwrap_or(&mut self.ready).push(event);
            }
        }
    }

    fn end_write(&mut self, id: OpId, result: io::Result<()>) -> Event {
        let Op::Write(mut write) = self.ops.remove(id) else { unreachable!("dispatched as a write") };
        for part in write.parts.drain(..) {
            if let PartBuffer::Pool(index) = part.buffer {
                self.write_buffers.release(index);
            }
        }
        let (token, file, bytes) = (write.token, write.file, std::mem::take(&mut write.bytes));
        self.ops.keep_write(write);
        self.leave_file_op(file);
        Event::Written { token, result, bytes }
    }

    // ---- read ----

    pub(crate) fn start_read(&mut self, token: Token, file: File, offset: u64, len: usize) {
        if len == 0 {
            return self.ready.push(Event::ReadDone { token, result: Ok(Vec::new()) });
        }
        match self.enter_file_op(file) {
            Ok((fd, _, direct)) => {
                let span = Span::new(offset, len, direct);
                self.start(Op::Read(Box::new(ReadOp::new(token, file, fd, span, direct))));
            }
            Err(error) => self.ready.push(Event::ReadDone { token, result: Err(error) }),
        }
    }

    pub(crate) fn on_read(&mut self, id: OpId, completion: Completion, events: &mut Vec<Event>) {
        let read = self.ops.read(id);
        let (token, file) = (read.token, read.file);
        if completion.result == -libc::EINVAL && read.direct {
            read.direct = false;
            self.fall_back(file);
            return self.push(id, 0);
        }
        let Some(result) = read.on_result(completion.result) else { return self.push(id, 0) };
        self.ops.remove(id);
        self.leave_file_op(file);
        events.push(Event::ReadDone { token, result });
    }

    // ---- sync, allocate, open, remove ----

    pub(crate) fn start_sync(&mut self, token: Token, file: File, metadata: bool) {
        match self.enter_file_op(file) {
            Ok((fd, ..)) => drop(self.start(Op::Sync { token, file, fd, metadata })),
            Err(error) => self.ready.push(Event::Done { token, result: Err(error) }),
        }
    }

    pub(crate) fn start_allocate(&mut self, token: Token, file: File, len: u64) {
        match self.enter_file_op(file) {
            Ok((fd, ..)) => drop(self.start(Op::Allocate { token, file, fd, len })),
            Err(error) => self.ready.push(Event::Done { token, result: Err(error) }),
        }
    }

    pub(crate) fn start_remove(&mut self, token: Token, path: &Path) {
        match c_path(path) {
            Ok(path) => drop(self.start(Op::Remove { token, path })),
            Err(error) => self.ready.push(Event::Done { token, result: Err(error) }),
        }
    }

    pub(crate) fn on_done(&mut self, id: OpId, completion: Completion, events: &mut Vec<Event>) {
        let (token, file, result) = match self.ops.remove(id) {
            Op::Sync { token, file, .. } => (token, Some(file), completion.outcome()),
            Op::Allocate { token, file, len, .. } => {
                (token, Some(file), self.extend_if_unsupported(file, len, completion))
            }
            Op::Remove { token, .. } => (token, None, completion.outcome()),
            _ => unreachable!("dispatched as a sync, allocate or remove"),
        };
        if let Some(file) = file {
            self.leave_file_op(file);
        }
        events.push(Event::Done { token, result });
    }

    /// Where a filesystem cannot reserve space, the file at least gets its length.
    fn extend_if_unsupported(&self, file: File, len: u64, completion: Completion) -> io::Result<()> {
        if completion.result != -libc::EOPNOTSUPP {
            return completion.outcome();
        }
        let entry = self.files.entry(file.0).ok_or_else(stale)?;
        if fd_len(&entry.fd)? < len {
            rustix::fs::ftruncate(&entry.fd, len)?;
        }
        Ok(())
    }

    pub(crate) fn start_open(&mut self, token: Token, path: &Path, access: Access) {
        let direct = access == Access::Direct;
        match c_path(path) {
            Ok(path) => drop(self.start(Op::Open(Box::new(OpenOp { token, path, access, direct })))),
            Err(error) => self.ready.push(Event::Opened { token, result: Err(error) }),
        }
    }

    pub(crate) fn on_opened(&mut self, id: OpId, completion: Completion, events: &mut Vec<Event>) {
        let open = self.ops.open(id);
        if open.direct && completion.result == -libc::EINVAL {
            open.direct = false;
            return self.push(id, 0);
        }
        let (token, access, direct) = (open.token, open.access, open.direct);
        self.ops.remove(id);
        let result = completion.outcome().map(|()| {
            // SAFETY: a successful open makes a new descriptor that nobody else knows of.
            let fd = unsafe { OwnedFd::from_raw_fd(completion.result) };
            self.adopt_file(fd, access, direct)
        });
        events.push(Event::Opened { token, result });
    }

    // ---- at start-up, at once ----

    pub(crate) fn open_at_once(&mut self, path: &Path, access: Access) -> io::Result<File> {
        let open = |direct| rustix::fs::open(path, open_flags(access, direct), FILE_MODE);
        let wished = access == Access::Direct;
        let (fd, direct) = match open(wished) {
            Err(rustix::io::Errno::INVAL) if wished => (open(false)?, false),
            opened => (opened?, wished),
        };
        Ok(self.adopt_file(fd, access, direct))
    }

    pub(crate) fn open_folder_at_once(&mut self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(self.adopt_file(fd, Access::Read, false))
    }

    pub(crate) fn len_of(&self, file: File) -> io::Result<u64> {
        fd_len(&self.files.entry(file.0).ok_or_else(stale)?.fd)
    }

    /// A plain `pwrite`, repeated until all of it is in the page cache.
    pub(crate) fn put_at_once(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let entry = self.files.entry(file.0).ok_or_else(stale)?;
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            done += rustix::io::retry_on_intr(|| rustix::io::pwrite(&entry.fd, &bytes[done..], at))?;
        }
        Ok(())
    }

    /// One plain `write`: the file's lock is held for all of it, so that what several append stays apart.
    pub(crate) fn append_at_once(&self, file: File, bytes: &[u8]) -> io::Result<usize> {
        let entry = self.files.entry(file.0).ok_or_else(stale)?;
        Ok(rustix::io::retry_on_intr(|| rustix::io::write(&entry.fd, bytes))?)
    }

    /// By way of an ordinary read of the ring's own kind of span, in pieces of at most a MiB.
    pub(crate) fn sync_at_once(&self, file: File) -> io::Result<()> {
        let entry = self.files.entry(file.0).ok_or_else(stale)?;
        Ok(rustix::fs::fdatasync(&entry.fd)?)
    }

    pub(crate) fn read_at_once(&self, file: File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        const PIECE: usize = 1 << 20;
        let entry = self.files.entry(file.0).ok_or_else(stale)?;
        let mut done = 0;
        while done < bytes.len() {
            let wanted = (bytes.len() - done).min(PIECE);
            let target = &mut bytes[done..done + wanted];
            let moved = read_piece(entry, offset + done as u64, target)?;
            done += moved;
            if moved < wanted {
                break;
            }
        }
        Ok(done)
    }
}

/// Fills `target` from `offset`; fewer bytes only at the end of the file.
fn read_piece(entry: &FileEntry, offset: u64, target: &mut [u8]) -> io::Result<usize> {
    let span = Span::new(offset, target.len(), entry.direct);
    let mut buffer = vec![0; span.whole + BLOCK];
    let lead = buffer.as_ptr().align_offset(BLOCK);
    let aligned = &mut buffer[lead..lead + span.whole];
    let mut filled = 0;
    while filled < aligned.len() {
        let at = span.start + filled as u64;
        let moved = rustix::io::retry_on_intr(|| rustix::io::pread(&entry.fd, &mut aligned[filled..], at))?;
        filled += moved;
        if moved == 0 || (entry.direct && !filled.is_multiple_of(BLOCK)) {
            break;
        }
    }
    let asked = span.asked(&aligned[..filled]);
    target[..asked.len()].copy_from_slice(asked);
    Ok(asked.len())
}

fn fd_len(fd: &OwnedFd) -> io::Result<u64> {
    u64::try_from(rustix::fs::fstat(fd)?.st_size).map_err(io::Error::other)
}

/// Names that are not UTF-8 are none of ours and left out.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<String>> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

pub(crate) fn free_space(folder: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(folder)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

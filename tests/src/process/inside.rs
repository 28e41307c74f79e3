//! System calls made from inside a running process, as whoever took it over would make them.
//!
//! A thread that waits in a call of its own is stopped and given the registers of another call at the same instruction;
//! it makes one step, and is put back, after which the kernel begins its own call anew. Needs the right to trace the
//! process (root's), and x86-64: registers are the machine's. Only for processes that the test started.

use super::wait::{self, PATIENCE};
use nix::libc::user_regs_struct;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::io::Errno;
use std::ffi::CString;
use std::net::SocketAddrV4;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

/// Numbers and constants of x86-64 (`asm/unistd_64.h`, `fcntl.h`, `sys/socket.h`).
const CLOSE: u64 = 3;
const SOCKET: u64 = 41;
const CONNECT: u64 = 42;
const EXECVE: u64 = 59;
const PTRACE: u64 = 101;
const SETUID: u64 = 105;
const OPENAT: u64 = 257;
const IO_URING_SETUP: u64 = 425;
const AT_FDCWD: u64 = (-100i64).cast_unsigned();
const O_WRONLY_O_CREAT: u64 = 0o101;
const AF_INET: u16 = 2;
const SOCK_STREAM: u64 = 1;
const PTRACE_SEIZE: u64 = 0x4206;

/// Octets of the instruction `syscall`, before which a thread that waits in one goes back.
const CALL_LEN: u64 = 2;

/// Below what the thread uses of its stack, and below the 128 octets there that may hold something.
const SCRATCH: u64 = 1024;

/// A thread that is stopped, until the value goes.
#[derive(Debug)]
pub struct Inside {
    thread: Pid,
    own: user_regs_struct,
    /// One that came meanwhile: it has it when it goes on.
    signal: Option<Signal>,
}

/// The threads of a process that are its own and not the kernel's, by their numbers.
pub fn threads_of(process: u32) -> Vec<u32> {
    let folder = format!("/proc/{process}/task");
    let entries = std::fs::read_dir(&folder).expect("it runs");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_own = |thread: &u32| {
        let name = std::fs::read_to_string(format!("{folder}/{thread}/comm")).unwrap_or_default();
        // Workers of io_uring have no code outside the kernel.
        !name.is_empty() && !name.starts_with("iou-")
    };
    numbers.filter(is_own).collect()
}

impl Inside {
    /// `None`: it has ended.
    pub fn of(thread: u32) -> Option<Inside> {
        let thread = Pid::from_raw(thread.cast_signed());
        let mut found = Stop::Elsewhere;
        wait::until("the thread waits in a system call", PATIENCE, || {
            found = stop_in_call(thread);
            !matches!(found, Stop::Elsewhere)
        });
        let Stop::InCall(own) = found else { return None };
        Some(Inside { thread, own: *own, signal: None })
    }

    pub fn read(&mut self, path: &Path) -> Result<(), Errno> {
        self.open(path, 0)
    }

    /// Makes the file.
    pub fn write(&mut self, path: &Path) -> Result<(), Errno> {
        self.open(path, O_WRONLY_O_CREAT)
    }

    fn open(&mut self, path: &Path, flags: u64) -> Result<(), Errno> {
        let path = self.put_path(path);
        let file = self.call(OPENAT, [AT_FDCWD, path, flags, 0o600])?;
        self.call(CLOSE, [file, 0, 0, 0]).map(drop)
    }

    /// Must be refused: else the process would be that program from then on.
    pub fn execute(&mut self, program: &Path) -> Result<(), Errno> {
        let path = self.put_path(program);
        self.call(EXECVE, [path, 0, 0, 0]).map(drop)
    }

    pub fn connect(&mut self, to: SocketAddrV4) -> Result<(), Errno> {
        let socket = self.call(SOCKET, [u64::from(AF_INET), SOCK_STREAM, 0, 0])?;
        let mut address = Vec::from(AF_INET.to_le_bytes());
        address.extend(to.port().to_be_bytes());
        address.extend(to.ip().octets());
        address.resize(16, 0);
        let at = self.put(&address);
        let connected = self.call(CONNECT, [socket, at, 16, 0]);
        self.call(CLOSE, [socket, 0, 0, 0])?;
        connected.map(drop)
    }

    pub fn become_root(&mut self) -> Result<(), Errno> {
        self.call(SETUID, [0; 4]).map(drop)
    }

    pub fn trace(&mut self, process: u32) -> Result<(), Errno> {
        self.call(PTRACE, [PTRACE_SEIZE, u64::from(process), 0, 0]).map(drop)
    }

    /// A ring without the restrictions of those that are there.
    pub fn make_ring(&mut self) -> Result<(), Errno> {
        let zeros = self.put(&[0; 120]);
        let ring = self.call(IO_URING_SETUP, [1, zeros, 0, 0])?;
        self.call(CLOSE, [ring, 0, 0, 0]).map(drop)
    }

    fn put_path(&self, path: &Path) -> u64 {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no path has a zero");
        self.put(path.as_bytes_with_nul())
    }

    /// Into the thread's memory, from whose address on it stands.
    fn put(&self, octets: &[u8]) -> u64 {
        assert!(octets.len() < 800, "there is no more room");
        let start = (self.own.rsp - SCRATCH) & !7;
        for (piece, at) in octets.chunks(8).zip((start..).step_by(8)) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            let at = std::ptr::without_provenance_mut(usize::try_from(at).expect("64 bits"));
            ptrace::write(self.thread, at, i64::from_ne_bytes(word)).expect("its stack");
        }
        start
    }

    fn call(&mut self, number: u64, arguments: [u64; 4]) -> Result<u64, Errno> {
        let mut registers = self.own;
        registers.rip -= CALL_LEN;
        registers.rax = number;
        // No call that is to begin anew.
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10] = arguments;
        ptrace::setregs(self.thread, registers).expect("it is stopped");
        loop {
            ptrace::step(self.thread, None).expect("it is stopped");
            match waitpid(self.thread, Some(WaitPidFlag::__WALL)).expect("it is traced by us") {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => break,
                WaitStatus::Stopped(_, other) => self.signal = Some(other),
                status => panic!("{status:?}"),
            }
        }
        let result = ptrace::getregs(self.thread).expect("it is stopped").rax.cast_signed();
        match i32::try_from(result).map(i32::checked_neg) {
            Ok(Some(error @ 1..4096)) => Err(Errno::from_raw_os_error(error)),
            _ => Ok(result.cast_unsigned()),
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = ptrace::setregs(self.thread, self.own);
        let _ = ptrace::detach(self.thread, self.signal);
    }
}

enum Stop {
    /// With the registers that it had.
    InCall(Box<user_regs_struct>),
    /// It goes on.
    Elsewhere,
    Ended,
}

fn stop_in_call(thread: Pid) -> Stop {
    match ptrace::seize(thread, ptrace::Options::empty()).and_then(|()| ptrace::interrupt(thread)) {
        Err(nix::Error::ESRCH) => return Stop::Ended,
        result => result.unwrap_or_else(|error| panic!("{thread}: {error}")),
    }
    let signal = match waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it is traced by us") {
        WaitStatus::PtraceEvent(..) => None,
        // It came first, and is its own.
        WaitStatus::Stopped(_, signal) => Some(signal),
        _ => return Stop::Ended,
    };
    let registers = ptrace::getregs(thread).expect("it is stopped");
    let before = usize::try_from(registers.rip - CALL_LEN).expect("64 bits");
    let code = ptrace::read(thread, std::ptr::without_provenance_mut(before)).expect("its code");
    let is_in_call = code.to_le_bytes()[..2] == [0x0f, 0x05] && registers.orig_rax.cast_signed() >= 0;
    if is_in_call && signal.is_none() {
        return Stop::InCall(Box::new(registers));
    }
    ptrace::detach(thread, signal).expect("it is stopped");
    std::thread::sleep(Duration::from_millis(1));
    Stop::Elsewhere
}

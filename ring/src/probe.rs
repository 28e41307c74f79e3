//! Why a ring cannot start: asked before and after the kernel is, answered in one sentence.
//!
//! Trusts the kernel's version number for what it can do: every operation of ours exists since Linux 6.1
//! (`DEFER_TASKRUN` and `SENDMSG_ZC` are the youngest). Distributions do not take operations out.

use std::io;

/// The oldest kernel that will do: major, minor.
const NEEDED: (u32, u32) = (6, 1);

/// A ring could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("this kernel is Linux {found}; ringpost needs 6.1 or newer")]
    KernelTooOld { found: String },
    #[error("this kernel was built without io_uring; ringpost needs it")]
    Missing,
    #[error("io_uring is switched off for this process: kernel.io_uring_disabled is {setting}; set it to 0")]
    Disabled { setting: u32 },
    #[error(
        "io_uring is forbidden to this process, as a container's seccomp filter does; allow its system calls"
    )]
    Forbidden,
    #[error("the kernel has no memory for a ring; lower the ring's sizes or raise RLIMIT_MEMLOCK")]
    OutOfMemory,
    #[error("the process has no file descriptor left for a ring; raise RLIMIT_NOFILE")]
    OutOfDescriptors,
    #[error("the ring could not be set up: {0}")]
    Setup(#[source] io::Error),
}

/// Is the running kernel new enough?
pub(crate) fn check_kernel() -> Result<(), StartError> {
    let found = rustix::system::uname().release().to_string_lossy().into_owned();
    // A version that we cannot read is not a reason to refuse: set-up itself will tell.
    match version(&found) {
        Some(version) if version < NEEDED => Err(StartError::KernelTooOld { found }),
        _ => Ok(()),
    }
}

/// Can a wait gather completions for a while (`min_wait_usec`, Linux 6.12)?
pub(crate) fn has_min_wait() -> bool {
    static KNOWN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *KNOWN.get_or_init(|| {
        let found = rustix::system::uname();
        version(&found.release().to_string_lossy()).is_some_and(|version| version >= (6, 12))
    })
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What the refusal of a set-up call means.
pub(crate) fn explain(error: io::Error) -> StartError {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    match (error.raw_os_error(), setting.and_then(|text| text.trim().parse().ok())) {
        (Some(libc::ENOSYS), _) => StartError::Missing,
        (Some(libc::EPERM | libc::EACCES), Some(setting @ 1..)) => StartError::Disabled { setting },
        (Some(libc::EPERM | libc::EACCES), _) => StartError::Forbidden,
        (Some(libc::ENOMEM), _) => StartError::OutOfMemory,
        (Some(libc::EMFILE | libc::ENFILE), _) => StartError::OutOfDescriptors,
        _ => StartError::Setup(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("6.1-rc3"), Some((6, 1)));
        assert!(version("5.15.0-91-generic") < Some(NEEDED));
        assert!(version("10.0.0") > Some(NEEDED));
        assert_eq!(version("odd"), None);
    }

    #[test]
    fn refusals_are_named() {
        let refused = explain(io::Error::from_raw_os_error(libc::ENOSYS));
        assert!(matches!(refused, StartError::Missing));
        let refused = explain(io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(matches!(refused, StartError::OutOfMemory));
    }
}

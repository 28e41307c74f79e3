//! What a part gives up when it begins, so that whoever takes it over has no more than it needs.
//!
//! In this order of trust: its uid (given by who started it), no new privileges, capabilities, Landlock for files, programs
//! and ports, which io_uring obeys too, and a list of system calls that are refused. All of it holds for every thread made
//! afterwards and for every program started; so it is done first, on the thread that makes the others. The rings of
//! the engine give up operations by themselves (`ring`), and once they are there the engine can make no more.
//!
//! What can be read is said once: a reload reads below /etc, beside the configuration's file, and what was named at the
//! start; a file that it names elsewhere is read by the next start.
//!
//! On a kernel without Landlock the rest holds, and the log says so. Bound: [`PATHS_MAX`] paths.

use crate::config::Config;
use crate::parts::Part;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus,
};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The newest that we know; an older kernel holds as much of it as it can.
const NEWEST: ABI = ABI::V6;

/// Paths that a configuration can name.
const PATHS_MAX: usize = 10_000;

/// Where programs, name services, time zones and authorities are looked up.
const SYSTEM: [&str; 9] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/proc",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/dev",
];

/// Why a part does not begin: it would have more rights than it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    #[error("confine: {0}; `[supervise] confine = false` does without")]
    Landlock(#[from] landlock::RulesetError),
    #[error("confine: {0}; `[supervise] confine = false` does without")]
    Filter(#[from] seccompiler::Error),
    #[error("confine: {0}")]
    System(#[from] rustix::io::Errno),
}

/// What a part keeps.
#[derive(Debug, Default)]
struct Needs {
    reads: Vec<PathBuf>,
    writes: Vec<PathBuf>,
    /// Programs that it starts.
    programs: Vec<PathBuf>,
    /// It starts programs of others: what it gives up they would lack.
    any_program: bool,
    /// Connections of its own to the net.
    net: bool,
    /// Rings.
    rings: bool,
    /// Another uid for what it starts.
    uids: bool,
}

impl Needs {
    fn of(part: Part, config: &Config, config_file: &Path) -> Needs {
        let system = SYSTEM.iter().map(PathBuf::from);
        let folder = config_file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let own = [folder.unwrap_or(Path::new(".")).to_owned()];
        let checkpassword = config.auth.checkpassword.first().map(PathBuf::from);
        match part {
            Part::Engine => Needs {
                reads: system.chain(own).chain(paths_in(config)).collect(),
                writes: engine_writes(config),
                programs: checkpassword.into_iter().collect(),
                net: true,
                rings: true,
                ..Needs::default()
            },
            Part::Local => Needs {
                reads: own.into_iter().chain(["/etc".into(), "/proc/self".into()]).collect(),
                ..Needs::default()
            },
            Part::Pop3 => Needs {
                reads: system.chain(own).chain(paths_in(config)).collect(),
                programs: checkpassword.into_iter().collect(),
                ..Needs::default()
            },
            Part::Launch | Part::Deliver => {
                let connects = config.local.as_ref().is_some_and(|local| local.programs_connect);
                Needs { any_program: true, net: connects, uids: true, ..Needs::default() }
            }
            Part::Mailbox => Needs::default(),
        }
    }
}

/// Files and folders that the configuration names, as far as they are there.
fn paths_in(config: &Config) -> Vec<PathBuf> {
    fn visit(value: &toml::Value, found: &mut Vec<PathBuf>) {
        match value {
            toml::Value::String(text) if text.contains('/') && found.len() < PATHS_MAX => {
                let path = PathBuf::from(text);
                found.extend(Some(path).filter(|path| path.parent().is_some() && path.exists()));
            }
            toml::Value::Array(values) => values.iter().for_each(|value| visit(value, found)),
            toml::Value::Table(table) => table.iter().for_each(|(_, value)| visit(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    // Mail of others is named by a pattern or by the queue; neither is for everybody who reads the file.
    let own = Config { pop3: None, local: None, queue: PathBuf::new(), ..config.clone() };
    if let Ok(value) = toml::Value::try_from(&own) {
        visit(&value, &mut found);
    }
    let files = config
        .pop3
        .iter()
        .flat_map(|pop3| [&pop3.certificate, &pop3.key, &pop3.password_file, &pop3.apop_secrets]);
    found.extend(files.flatten().cloned());
    found
}

fn engine_writes(config: &Config) -> Vec<PathBuf> {
    let folder_of = |path: &PathBuf| path.parent().map(Path::to_owned);
    let mut writes = vec![config.queue.clone(), config.events_folder()];
    writes.extend(config.delivery_log.iter().filter_map(folder_of));
    writes.extend(config.control.iter().filter_map(folder_of));
    let copies = config.events.iter().flat_map(|events| events.files.values());
    writes.extend(copies.filter_map(|copy| folder_of(&copy.path)));
    // Programs of ours write to it, and a resolver's library may.
    writes.push("/dev/null".into());
    writes
}

/// For good, for this thread and all that it starts.
pub(crate) fn confine(part: Part, config: &Config, config_file: &Path) -> Result<(), ConfineError> {
    if !config.supervise.confine {
        tracing::warn!("this part keeps rights that it does not need: [supervise] confine is off");
        return Ok(());
    }
    confine_to(&Needs::of(part, config, config_file))
}

/// The engine has its rings, which give up operations: nobody makes one that has them all. For all its threads.
pub(crate) fn refuse_more_rings() -> Result<(), ConfineError> {
    let rules = [(libc::SYS_io_uring_setup, Vec::new())].into();
    Ok(seccompiler::apply_filter_all_threads(&compile(rules)?)?)
}

/// A process that reads and removes the mail in one folder, and does nothing else.
pub(crate) fn confine_to_maildir(maildir: &Path) -> Result<(), ConfineError> {
    confine_to(&Needs { writes: vec![maildir.to_owned()], ..Needs::default() })
}

fn confine_to(needs: &Needs) -> Result<(), ConfineError> {
    drop_capabilities(needs)?;
    rustix::thread::set_no_new_privs(true)?;
    if !needs.any_program {
        restrict_files(needs)?;
    }
    seccompiler::apply_filter(&filter(needs)?)?;
    Ok(())
}

fn drop_capabilities(needs: &Needs) -> Result<(), ConfineError> {
    let keeps = if needs.uids && rustix::process::geteuid().is_root() {
        // To start processes of users, to stop one that hangs, to see whose a mailbox in a closed home is.
        CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL | CapabilitySet::DAC_READ_SEARCH
    } else {
        CapabilitySet::empty()
    };
    if rustix::process::geteuid().is_root() {
        for capability in CapabilitySet::all().difference(keeps).iter() {
            // One that this kernel does not know is not there.
            let _ = rustix::thread::remove_capability_from_bounding_set(capability);
        }
    }
    let sets = CapabilitySets { effective: keeps, permitted: keeps, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn restrict_files(needs: &Needs) -> Result<(), ConfineError> {
    let all = AccessFs::from_all(NEWEST);
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?;
    if !needs.net {
        ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let ruleset = ruleset.create()?;
    let ruleset = allow(ruleset, &needs.reads, AccessFs::ReadFile | AccessFs::ReadDir)?;
    let ruleset = allow(ruleset, &needs.writes, all & !BitFlags::from(AccessFs::Execute))?;
    // A program brings its loader and libraries.
    let loaders: Vec<PathBuf> = if needs.programs.is_empty() {
        Vec::new()
    } else {
        ["/lib", "/lib64", "/usr", "/bin"].iter().map(PathBuf::from).collect()
    };
    let ruleset = allow(ruleset, &loaders, AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute)?;
    let ruleset = allow(ruleset, &needs.programs, AccessFs::ReadFile | AccessFs::Execute)?;
    if ruleset.restrict_self()?.ruleset == RulesetStatus::NotEnforced {
        tracing::warn!("this kernel has no Landlock: files are kept apart by their owners alone");
    }
    Ok(())
}

/// A path that is not there is not needed.
fn allow(
    mut ruleset: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, ConfineError> {
    for path in paths {
        let Ok(opened) = PathFd::new(path) else { continue };
        // Of a file, what is said of folders does not hold.
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
    }
    Ok(ruleset)
}

/// System calls that nothing of ours makes, and that an intruder would.
const REFUSED: [libc::c_long; 30] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
];

const NEW_UID: [libc::c_long; 7] = [
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
];

const RINGS: [libc::c_long; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

const PROGRAMS: [libc::c_long; 2] = [libc::SYS_execve, libc::SYS_execveat];

fn filter(needs: &Needs) -> Result<BpfProgram, ConfineError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut refuse = |calls: &[libc::c_long]| rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    refuse(&REFUSED);
    if !needs.uids {
        refuse(&NEW_UID);
    }
    if !needs.rings {
        refuse(&RINGS);
    }
    if !needs.any_program && needs.programs.is_empty() {
        refuse(&PROGRAMS);
    }
    if !needs.net {
        // Unix sockets are left.
        let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, libc::AF_UNIX as u64)
            .map_err(seccompiler::Error::Backend)?;
        let rule = SeccompRule::new(vec![other]).map_err(seccompiler::Error::Backend)?;
        rules.insert(libc::SYS_socket, vec![rule]);
    }
    compile(rules)
}

/// Calls that are refused, all others allowed.
fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>) -> Result<BpfProgram, ConfineError> {
    let arch = std::env::consts::ARCH.try_into().map_err(seccompiler::Error::Backend)?;
    let (usual, refusal) = (SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32));
    let filter = SeccompFilter::new(rules, usual, refusal, arch).map_err(seccompiler::Error::Backend)?;
    Ok(filter.try_into().map_err(seccompiler::Error::Backend)?)
}

//! One sync of the whole file system, in place of thousands of single files.
//!
//! A hundred thousand queues that are closed at once have two files each. Synced one by one, on
//! ext4 each waits for a commit of the journal; the file system as a whole needs a few. It is asked
//! for beside the syncs of single files, which go on if it takes its time; and only where there is
//! little that other programs wrote, and room for all files that are written aside.

use core::time::Duration;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Files of a round from which on their file system is synced as a whole.
pub(super) const WHOLE_FROM: usize = 1024;

/// The most files of such a round. They need no descriptors, only a few hundred bytes each.
pub(super) const WHOLE_MAX: usize = 8192;

/// How long the single files are left to it. Then they are synced like those of a small round.
const HEAD_START: Duration = Duration::from_millis(200);

/// A file system that can be synced as a whole, and says so if that failed.
#[derive(Clone, Debug)]
pub(super) struct FileSystem(Arc<fs::File>);

/// The sync of a file system.
#[derive(Debug, Default)]
pub(super) struct WholeSync {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    state: State,
    /// There is nothing left that could wait for it.
    is_unneeded: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    None,
    UnderWay,
    Failed,
    Done,
}

impl FileSystem {
    /// That of a folder. `None` if one sync is not known to be worth those of all its files.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        // What could not be written is told to those that had the folder open by then.
        let folder = fs::File::open(folder).ok()?;
        is_fit(&folder).then(|| Self(Arc::new(folder)))
    }

    /// Whether a sync of it now is about our files and hardly about others', and there is room for
    /// a large round.
    pub(super) fn is_calm(&self) -> bool {
        is_calm(&self.0)
    }
}

impl WholeSync {
    /// Begins, in a thread that nobody waits for. What is written before is synced when
    /// [`is_done`](Self::is_done).
    pub(super) fn begin(file_system: &FileSystem) -> Arc<Self> {
        let sync = Arc::new(Self::default());
        sync.lock().state = State::UnderWay;
        let (own, FileSystem(folder)) = (Arc::clone(&sync), file_system.clone());
        let thread = thread::Builder::new().name("nsqd-sync".into()).spawn(move || {
            own.end(if sync_all(&folder) { State::Done } else { State::Failed });
        });
        if thread.is_err() {
            sync.end(State::Failed);
        }
        sync
    }

    /// Whether what was written before it began is synced.
    pub(super) fn is_done(&self) -> bool {
        self.lock().state == State::Done
    }

    /// Whether it goes on.
    pub(super) fn is_under_way(&self) -> bool {
        self.lock().state == State::UnderWay
    }

    /// Whether something could not be written, of whatever file: that is told once, so that a later
    /// sync of the whole says nothing about it.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().state == State::Failed
    }

    /// Waits for its end, but not long.
    pub(super) fn wait(&self) {
        let goes_on =
            |progress: &mut Progress| progress.state == State::UnderWay && !progress.is_unneeded;
        let _ = self.changed.wait_timeout_while(self.lock(), HEAD_START, goes_on);
    }

    /// Lets those go that wait: there is nothing left to sync.
    pub(super) fn dismiss(&self) {
        self.lock().is_unneeded = true;
        self.changed.notify_all();
    }

    fn end(&self, state: State) {
        self.lock().state = state;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(target_os = "linux")]
fn sync_all(folder: &fs::File) -> bool {
    rustix::fs::syncfs(folder).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn sync_all(_folder: &fs::File) -> bool {
    false
}

/// Before Linux 5.8 nobody heard of what could not be written.
#[cfg(target_os = "linux")]
fn is_fit(folder: &fs::File) -> bool {
    let kernel = rustix::system::uname();
    let release = kernel.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let kind = rustix::fs::fstat(folder).ok().and_then(|about| {
        let device = (rustix::fs::major(about.st_dev), rustix::fs::minor(about.st_dev));
        kind_of(&fs::read_to_string("/proc/self/mountinfo").ok()?, device)
    });
    version >= (5, 8) && kind.is_some_and(|kind| KINDS.contains(&kind.as_str()))
}

#[cfg(not(target_os = "linux"))]
fn is_fit(_folder: &fs::File) -> bool {
    false
}

/// The kind of the file system on a device, of those in `mounts` (proc_pid_mountinfo(5)).
#[cfg(target_os = "linux")]
fn kind_of(mounts: &str, (major, minor): (u32, u32)) -> Option<String> {
    let device = format!("{major}:{minor}");
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&device))?;
    let (_, behind) = mount.split_once(" - ")?;
    behind.split(' ').next().map(str::to_owned)
}

/// Those that flush the disk's own cache when they are synced as a whole. One over a network or in
/// another process may not pass the sync on, and ext2 alone flushes for single files only.
#[cfg(target_os = "linux")]
const KINDS: [&str; 6] = ["ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs"];

#[cfg(target_os = "linux")]
fn is_calm(folder: &fs::File) -> bool {
    let has_room =
        rustix::fs::fstatvfs(folder).is_ok_and(|about| about.f_bavail > 2 * WHOLE_MAX as u64);
    has_room && fs::read_to_string("/proc/meminfo").is_ok_and(|text| dirty_kib(&text) <= DIRTY_MAX)
}

#[cfg(not(target_os = "linux"))]
fn is_calm(_folder: &fs::File) -> bool {
    false
}

/// What is not on disks yet, in KiB (proc_meminfo(5)).
#[cfg(target_os = "linux")]
fn dirty_kib(meminfo: &str) -> u64 {
    let of = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let number = rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()?;
        matches!(name, "Dirty" | "Writeback").then_some(number)
    };
    meminfo.lines().filter_map(of).sum()
}

/// What may wait for the disks when a whole sync begins, in KiB: a few seconds of work at most.
#[cfg(target_os = "linux")]
const DIRTY_MAX: u64 = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_ends_and_its_end_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let Some(file_system) = FileSystem::of(folder.path()) else { return };
        let sync = WholeSync::begin(&file_system);
        while sync.is_under_way() {
            sync.wait();
        }
        assert!(sync.is_done());
    }

    #[test]
    fn nobody_waits_for_one_that_is_not_needed() {
        let sync = WholeSync::default();
        sync.lock().state = State::UnderWay;
        sync.dismiss();
        sync.wait();
        assert!(sync.is_under_way());
    }

    #[test]
    fn what_was_not_begun_is_not_waited_for() {
        let sync = WholeSync::default();
        sync.wait();
        assert!(!sync.is_done() && !sync.is_under_way());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_system_says_is_read() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw,discard\n\
                      35 22 0:30 / /tmp rw - tmpfs none rw\n";
        assert_eq!(kind_of(mounts, (8, 1)).as_deref(), Some("ext4"));
        assert_eq!(kind_of(mounts, (0, 30)).as_deref(), Some("tmpfs"));
        assert_eq!(kind_of(mounts, (8, 2)), None);
        let memory =
            "MemFree:  9 kB\nDirty:            300 kB\nWriteback:  20 kB\nWritebackTmp: 5 kB\n";
        assert_eq!(dirty_kib(memory), 320);
    }

    #[test]
    fn a_folder_that_is_missing_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(FileSystem::of(&folder.path().join("missing")).is_none());
    }
}

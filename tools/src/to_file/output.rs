//! The file that a topic's messages go to, and when it is another one.
//!
//! Nothing here knows of consumers. A message is safe when [`Output::sync`] has returned after it
//! was written; any error is final, because nobody knows what the disk has then.

use core::time::Duration;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Zoned;

use super::naming::{self, Naming};

/// What is the same for all topics.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) output_dir: PathBuf,
    /// Where files are while they are written to; may be `output_dir`.
    pub(super) work_dir: PathBuf,
    /// The level, if files are to be packed.
    pub(super) gzip: Option<u32>,
    /// No file without a message.
    pub(super) skips_empty: bool,
    /// Bytes of messages after which a file is full; 0: never.
    pub(super) rotate_size: u64,
    /// Time after which a file is done; zero: never.
    pub(super) rotate_interval: Duration,
}

/// The time, in both ways.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) wall: Zoned,
    pub(super) instant: Instant,
}

/// The files of one topic, one after the other.
#[derive(Debug)]
pub(super) struct Output {
    settings: Arc<Settings>,
    naming: Naming,
    open: Option<Open>,
}

/// The file that is written to.
#[derive(Debug)]
struct Open {
    /// Its name without the revision.
    name: String,
    revision: u32,
    /// Where it is.
    path: PathBuf,
    opened_at: Instant,
    /// Bytes of messages in it.
    len: u64,
    sink: Sink,
    /// Whether something was written since it was last synced.
    is_dirty: bool,
}

#[derive(Debug)]
enum Sink {
    Plain(BufWriter<File>),
    /// A member that is being written.
    Packing(Box<GzEncoder<File>>, Compression),
    /// Between two members.
    Packed(File, Compression),
}

impl Settings {
    fn has_work_dir(&self) -> bool {
        self.work_dir != self.output_dir
    }

    /// Whether a name needs a place for a revision, because there may be several files of that
    /// name.
    pub(super) fn needs_revision(&self) -> bool {
        self.gzip.is_some()
            || self.rotate_size > 0
            || !self.rotate_interval.is_zero()
            || self.has_work_dir()
    }

    /// Whether a file is written by one run only, from its beginning to its end.
    fn wants_new_files(&self) -> bool {
        self.gzip.is_some() || !self.rotate_interval.is_zero()
    }
}

impl Output {
    pub(super) fn new(settings: Arc<Settings>, naming: Naming) -> Self {
        Self { settings, naming, open: None }
    }

    /// Writes a message and the end of its line. Returns whether the file before it was closed, so
    /// that everything that was written to it is safe.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub(super) fn write(&mut self, body: &[u8], now: &Moment) -> io::Result<bool> {
        let has_closed = self.rotate(now, true)?;
        let Some(open) = &mut self.open else { return Err(ErrorKind::NotFound.into()) };
        open.write(body).map_err(named(&open.path))?;
        Ok(has_closed)
    }

    /// Closes a file that is over, and opens the next one unless empty files are not wanted.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(super) fn tick(&mut self, now: &Moment) -> io::Result<()> {
        self.rotate(now, !self.settings.skips_empty).map(drop)
    }

    /// Lets others see what was written, as far as it is not packed; it is not safe by that.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.open {
            Some(Open { sink: Sink::Plain(file), path, .. }) => file.flush().map_err(named(path)),
            Some(_) | None => Ok(()),
        }
    }

    /// Makes everything that was written safe.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.sync().map_err(named(&open.path))
    }

    /// Makes everything safe and closes the file, so that somebody may take it away.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(super) fn close(&mut self) -> io::Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.finish().map_err(named(&open.path))?;
        if self.settings.has_work_dir() {
            self.hand_over(&open)?;
        }
        Ok(())
    }

    fn rotate(&mut self, now: &Moment, wants_file: bool) -> io::Result<bool> {
        let name = self.naming.name(&now.wall);
        let mut next = 0;
        let mut has_closed = false;
        if let Some(open) = &self.open {
            let age = now.instant.saturating_duration_since(open.opened_at);
            let Settings { rotate_size, rotate_interval, .. } = *self.settings;
            let is_full = rotate_size > 0 && open.len > rotate_size;
            let is_old = !rotate_interval.is_zero() && age > rotate_interval;
            if name == open.name && !is_full && !is_old {
                return Ok(false);
            }
            if name == open.name {
                next = open.revision + 1;
            }
            self.close()?;
            has_closed = true;
        }
        if wants_file {
            self.open = Some(self.open_from(name, next, now)?);
        }
        Ok(has_closed)
    }

    /// Opens the first revision from this one on that may be written to.
    fn open_from(&self, name: String, first: u32, now: &Moment) -> io::Result<Open> {
        let settings = &*self.settings;
        for revision in first..REVISIONS_MAX {
            let relative = self.relative(&name, revision)?;
            let path = settings.work_dir.join(&relative);
            // What is in the output folder is done, whoever did it.
            if settings.has_work_dir() && exists(&settings.output_dir.join(&relative))? {
                continue;
            }
            make_parent(&path)?;
            let mut options = OpenOptions::new();
            options.append(true).read(true);
            if settings.wants_new_files() {
                options.create_new(true);
            } else {
                options.create(true);
            }
            let mut file = match options.open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(named(&path)(error)),
            };
            let len = file.metadata().map_err(named(&path))?.len();
            if settings.rotate_size > 0 && len > settings.rotate_size {
                continue;
            }
            end_line(&mut file, len).map_err(named(&path))?;
            // A file is safe when its name is.
            sync_parent(&path)?;
            let sink = match settings.gzip {
                Some(level) => Sink::Packed(file, Compression::new(level)),
                None => Sink::Plain(BufWriter::with_capacity(BUFFER_LEN, file)),
            };
            let (opened_at, is_dirty) = (now.instant, false);
            return Ok(Open { name, revision, path, opened_at, len, sink, is_dirty });
        }
        Err(io::Error::other(format!("{name}: all revisions are taken")))
    }

    /// Moves a file that is done to the output folder. A file that is there is left alone, however
    /// it came there.
    fn hand_over(&self, open: &Open) -> io::Result<()> {
        for revision in open.revision..REVISIONS_MAX {
            let path = self.settings.output_dir.join(self.relative(&open.name, revision)?);
            make_parent(&path)?;
            match fs::hard_link(&open.path, &path) {
                Ok(()) => {
                    sync_parent(&path)?;
                    return fs::remove_file(&open.path).map_err(named(&open.path));
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(named(&path)(error)),
            }
        }
        Err(io::Error::other(format!("{}: all revisions are taken", open.name)))
    }

    fn relative(&self, name: &str, revision: u32) -> io::Result<PathBuf> {
        let path = naming::path(name, revision, self.settings.needs_revision());
        path.ok_or_else(|| io::Error::other(format!("{name} is no name of a file below a folder")))
    }
}

impl Open {
    fn write(&mut self, body: &[u8]) -> io::Result<()> {
        self.is_dirty = true;
        self.len += body.len() as u64 + 1;
        let sink = self.sink.member()?;
        sink.write_all(body)?;
        sink.write_all(b"\n")
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.is_dirty {
            self.sink.sync()?;
            self.is_dirty = false;
        }
        Ok(())
    }

    /// The last sync. A packed file without a message is one that unpacks to nothing.
    fn finish(&mut self) -> io::Result<()> {
        if self.len == 0 {
            self.sink.member()?;
            self.is_dirty = true;
        }
        self.sync()
    }
}

impl Sink {
    /// What messages are written to.
    fn member(&mut self) -> io::Result<&mut dyn Write> {
        if let Self::Packed(file, level) = self {
            let (file, level) = (file.try_clone()?, *level);
            *self = Self::Packing(Box::new(GzEncoder::new(file, level)), level);
        }
        match self {
            Self::Plain(file) => Ok(file),
            Self::Packing(encoder, _) => Ok(encoder),
            Self::Packed(..) => Err(ErrorKind::Other.into()),
        }
    }

    /// A packed file can be read up to here, and by a crash no further: the member ends, and the
    /// next one follows it.
    fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => {
                file.flush()?;
                file.get_ref().sync_all()
            }
            Self::Packing(encoder, level) => {
                encoder.try_finish()?;
                let (file, level) = (encoder.get_ref().try_clone()?, *level);
                file.sync_all()?;
                *self = Self::Packed(file, level);
                Ok(())
            }
            Self::Packed(file, _) => file.sync_all(),
        }
    }
}

/// Ends the line that a crash left open, so that it does not run into the next message.
fn end_line(file: &mut File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

fn exists(path: &Path) -> io::Result<bool> {
    path.try_exists().map_err(named(path))
}

fn make_parent(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o770);
    builder.create(folder).map_err(named(folder))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(named(folder))
}

fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Six digits of them.
const REVISIONS_MAX: u32 = 1_000_000;

/// Bytes that are written to a file at a time.
const BUFFER_LEN: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use flate2::read::MultiGzDecoder;

    use super::super::naming::Parts;
    use super::*;

    struct Bench {
        folder: tempfile::TempDir,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), start: Instant::now() }
        }

        fn settings(&self) -> Settings {
            Settings {
                output_dir: self.folder.path().join("out"),
                work_dir: self.folder.path().join("out"),
                gzip: None,
                skips_empty: false,
                rotate_size: 0,
                rotate_interval: Duration::ZERO,
            }
        }

        fn output(&self, settings: &Settings) -> Output {
            let parts = Parts {
                format: "<TOPIC><REV>.<DATETIME>.log",
                datetime: "%H",
                host: "",
                hostname: "h",
                is_gzip: settings.gzip.is_some(),
            };
            Output::new(Arc::new(settings.clone()), Naming::new(&parts, "t"))
        }

        /// So many seconds after seven o'clock.
        fn at(&self, seconds: i64) -> Moment {
            let seven: Zoned = "2026-11-22T07:00:00+00:00[UTC]".parse().unwrap();
            Moment {
                wall: seven + jiff::SignedDuration::from_secs(seconds),
                instant: self.start + Duration::from_secs(seconds.unsigned_abs()),
            }
        }

        /// All files, unpacked, by name.
        fn files(&self, folder: &str) -> Vec<(String, String)> {
            let Ok(folder) = fs::read_dir(self.folder.path().join(folder)) else { return vec![] };
            let mut files: Vec<_> = folder
                .map(|entry| {
                    let path = entry.unwrap().path();
                    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                    let mut text = String::new();
                    let mut file = File::open(&path).unwrap();
                    if name.ends_with(".gz") {
                        MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
                    } else {
                        file.read_to_string(&mut text).unwrap();
                    }
                    (name, text)
                })
                .collect();
            files.sort();
            files
        }
    }

    fn files<const N: usize>(files: [(&str, &str); N]) -> Vec<(String, String)> {
        files.map(|(name, text)| (name.into(), text.into())).into()
    }

    #[test]
    fn a_file_per_hour_that_is_appended_to() {
        let bench = Bench::new();
        let mut output = bench.output(&bench.settings());
        assert!(!output.write(b"a", &bench.at(0)).unwrap());
        assert!(!output.write(b"b", &bench.at(3599)).unwrap());
        assert!(output.write(b"c", &bench.at(3600)).unwrap(), "what is before is safe");
        output.close().unwrap();
        // Another run, in the same hour.
        let mut output = bench.output(&bench.settings());
        output.write(b"d", &bench.at(3700)).unwrap();
        output.close().unwrap();
        assert_eq!(bench.files("out"), files([("t.07.log", "a\nb\n"), ("t.08.log", "c\nd\n")]));
    }

    #[test]
    fn a_line_that_a_crash_cut_is_ended() {
        let bench = Bench::new();
        fs::create_dir(bench.folder.path().join("out")).unwrap();
        fs::write(bench.folder.path().join("out/t.07.log"), "whole\nha").unwrap();
        let mut output = bench.output(&bench.settings());
        output.write(b"half", &bench.at(0)).unwrap();
        output.close().unwrap();
        assert_eq!(bench.files("out"), files([("t.07.log", "whole\nha\nhalf\n")]));
    }

    #[test]
    fn a_file_ends_with_the_message_that_fills_it() {
        let bench = Bench::new();
        let settings = Settings { rotate_size: 30, ..bench.settings() };
        let mut output = bench.output(&settings);
        for _ in 0..4 {
            output.write(&[b'x'; 15], &bench.at(0)).unwrap();
        }
        output.close().unwrap();
        let line = format!("{}\n", "x".repeat(15));
        let full = line.repeat(2);
        assert_eq!(
            bench.files("out"),
            files([("t-000000.07.log", full.as_str()), ("t-000001.07.log", &full)])
        );
        // Another run leaves the full ones alone.
        let mut output = bench.output(&settings);
        output.write(b"y", &bench.at(0)).unwrap();
        output.close().unwrap();
        assert_eq!(bench.files("out").last().unwrap(), &("t-000002.07.log".into(), "y\n".into()));
    }

    #[test]
    fn a_file_ends_with_its_interval_and_empty_ones_may_be_left_out() {
        for skips_empty in [false, true] {
            let bench = Bench::new();
            let rotate_interval = Duration::from_secs(60);
            let settings = Settings { rotate_interval, skips_empty, ..bench.settings() };
            let mut output = bench.output(&settings);
            output.tick(&bench.at(0)).unwrap();
            output.write(b"a", &bench.at(60)).unwrap();
            output.tick(&bench.at(130)).unwrap();
            output.write(b"b", &bench.at(400)).unwrap();
            output.close().unwrap();
            let all =
                [("t-000000.07.log", "a\n"), ("t-000001.07.log", ""), ("t-000002.07.log", "b\n")];
            let some = [("t-000000.07.log", "a\n"), ("t-000001.07.log", "b\n")];
            let expected = if skips_empty { files(some) } else { files(all) };
            assert_eq!(bench.files("out"), expected);
        }
    }

    #[test]
    fn packed_files_can_be_read_up_to_each_sync() {
        let bench = Bench::new();
        let settings = Settings { gzip: Some(6), ..bench.settings() };
        let mut output = bench.output(&settings);
        output.tick(&bench.at(0)).unwrap();
        output.write(b"a", &bench.at(0)).unwrap();
        output.sync().unwrap();
        assert_eq!(bench.files("out"), files([("t-000000.07.log.gz", "a\n")]));
        output.write(b"b", &bench.at(1)).unwrap();
        output.sync().unwrap();
        output.sync().unwrap();
        assert_eq!(bench.files("out"), files([("t-000000.07.log.gz", "a\nb\n")]));
        // It dies; the next run takes a file of its own, and one without a message is whole as
        // well.
        drop(output);
        let mut output = bench.output(&settings);
        output.tick(&bench.at(2)).unwrap();
        output.close().unwrap();
        assert_eq!(
            bench.files("out"),
            files([("t-000000.07.log.gz", "a\nb\n"), ("t-000001.07.log.gz", "")])
        );
    }

    #[test]
    fn a_work_folder_has_what_is_not_done_and_nothing_is_overwritten() {
        let bench = Bench::new();
        let work_dir = bench.folder.path().join("work");
        let settings = Settings { work_dir, ..bench.settings() };
        let mut output = bench.output(&settings);
        output.write(b"a", &bench.at(0)).unwrap();
        output.sync().unwrap();
        assert_eq!(bench.files("out"), []);
        assert_eq!(bench.files("work"), files([("t-000000.07.log", "a\n")]));
        // Somebody takes the name.
        fs::create_dir(bench.folder.path().join("out")).unwrap();
        fs::write(bench.folder.path().join("out/t-000000.07.log"), "other\n").unwrap();
        output.close().unwrap();
        assert_eq!(bench.files("work"), []);
        let first = [("t-000000.07.log", "other\n"), ("t-000001.07.log", "a\n")];
        assert_eq!(bench.files("out"), files(first));
        output.write(b"b", &bench.at(1)).unwrap();
        output.close().unwrap();
        output.close().unwrap();
        assert_eq!(bench.files("out").last().unwrap(), &("t-000002.07.log".into(), "b\n".into()));
    }

    #[test]
    fn errors_name_the_path() {
        let bench = Bench::new();
        fs::write(bench.folder.path().join("out"), "no folder").unwrap();
        let mut output = bench.output(&bench.settings());
        let error = output.write(b"a", &bench.at(0)).unwrap_err().to_string();
        assert!(error.contains("out"), "{error}");
    }
}

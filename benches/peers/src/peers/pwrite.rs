//! The records of Towline, written by pwrite into a file that was filled with zeros before: what
//! the mapping is worth. One lock to write, one to sync, so that a sync covers all who wait.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use towline_protocol::epoch::Epoch;
use towline_protocol::id::LogId;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{HeaderSeed, RECORD_HEADER_LEN, RecordHeader, RecordKind};

use crate::peer::Peer;

/// So much is zeroed in advance.
const READY: u64 = 64 << 20;

pub(crate) struct Pwrite {
    file: File,
    path: PathBuf,
    seed: HeaderSeed,
    tail: Mutex<Tail>,
    /// How far the file is synced.
    synced: Mutex<u64>,
}

struct Tail {
    end: u64,
    buffer: Vec<u8>,
}

impl Pwrite {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("log");
        let is_new = !path.exists();
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
        if is_new {
            // Page by page, as a larger write would make large folios, which a sync writes whole.
            for at in (0..READY).step_by(4_096) {
                file.write_all_at(&[0; 4_096], at)?;
            }
            file.sync_all()?;
        }
        let seed = HeaderSeed::new(LogId(1), Epoch::NONE, Lsn::ZERO, 1);
        let tail = Tail { end: 0, buffer: Vec::new() };
        let mut log = Self { file, path, seed, tail: Mutex::new(tail), synced: Mutex::new(0) };
        if !is_new {
            let end = log.scan(&mut |_| ())?;
            log.tail.get_mut().unwrap_or_else(PoisonError::into_inner).end = end;
        }
        Ok(log)
    }

    fn put(&self, payload: &[u8]) -> Result<u64> {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let Tail { end, buffer } = &mut *tail;
        let lsn = Lsn::new(*end);
        let header = RecordHeader::new(RecordKind::Data, 0, lsn, Lsn::ZERO, payload);
        buffer.clear();
        buffer.extend_from_slice(&header.encode(self.seed));
        buffer.extend_from_slice(payload);
        self.file.write_all_at(buffer, *end)?;
        *end = header.end().get();
        Ok(*end)
    }

    fn sync(&self, wanted: u64) -> Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced < wanted {
            let end = self.tail.lock().unwrap_or_else(PoisonError::into_inner).end;
            self.file.sync_data()?;
            *synced = end;
        }
        Ok(())
    }

    /// Reads to the first place where no record is, and says where that is.
    fn scan(&self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut reader = BufReader::with_capacity(64 << 10, File::open(&self.path)?);
        let mut lsn = Lsn::ZERO;
        let mut payload = Vec::new();
        loop {
            let mut header = [0; RECORD_HEADER_LEN];
            if reader.read_exact(&mut header).is_err() {
                return Ok(lsn.get());
            }
            let Ok(header) = RecordHeader::decode(&header, lsn, self.seed) else {
                return Ok(lsn.get());
            };
            payload.resize(usize::try_from(header.stored_len())? - RECORD_HEADER_LEN, 0);
            reader.read_exact(&mut payload)?;
            let payload = &payload[..header.len as usize];
            if header.check_payload(payload).is_err() {
                bail!("the payload at {lsn} is damaged");
            }
            each(payload);
            lsn = header.end();
        }
    }
}

impl Peer for Pwrite {
    fn append(&self, payload: &[u8]) -> Result<()> {
        self.put(payload).map(|_| ())
    }

    fn commit(&self, payload: &[u8]) -> Result<()> {
        let end = self.put(payload)?;
        self.sync(end)
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.scan(each).map(|_| ())
    }
}

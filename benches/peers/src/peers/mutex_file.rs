//! What one writes first: a file behind a lock, synced under it.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};

use crate::peer::Peer;

/// Length and checksum.
const HEADER_LEN: usize = 8;

pub(crate) struct MutexFile {
    file: Mutex<(File, Vec<u8>)>,
    path: PathBuf,
}

impl MutexFile {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("log");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self { file: Mutex::new((file, Vec::new())), path })
    }

    fn write(&self, payload: &[u8], sync: bool) -> Result<()> {
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, buffer) = &mut *held;
        buffer.clear();
        buffer.extend_from_slice(&u32::try_from(payload.len())?.to_le_bytes());
        buffer.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        buffer.extend_from_slice(payload);
        file.write_all(buffer)?;
        if sync {
            file.sync_data()?;
        }
        Ok(())
    }
}

impl Peer for MutexFile {
    fn append(&self, payload: &[u8]) -> Result<()> {
        self.write(payload, false)
    }

    fn commit(&self, payload: &[u8]) -> Result<()> {
        self.write(payload, true)
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        let file = File::open(&self.path)?;
        let mut left = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(64 << 10, file);
        let mut payload = Vec::new();
        while left > 0 {
            let mut header = [0; HEADER_LEN];
            reader.read_exact(&mut header)?;
            let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
            payload.resize(u32::from_le_bytes([l0, l1, l2, l3]) as usize, 0);
            reader.read_exact(&mut payload)?;
            let crc = u32::from_le_bytes([c0, c1, c2, c3]);
            ensure!(crc32fast::hash(&payload) == crc, "a checksum does not match");
            each(&payload);
            left = left.saturating_sub((HEADER_LEN + payload.len()) as u64);
        }
        Ok(())
    }
}

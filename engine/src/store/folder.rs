//! The store's folder: a lock, the trees, and the name of the one that counts.
//!
//! ```text
//! LOCK            held for as long as the store is open
//! CURRENT         the name of the tree's folder, replaced by rename when a snapshot is restored
//! tree-<number>   an LSM tree; any but the current one is what an unfinished restore left
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::StoreError;

const LOCK: &str = "LOCK";
const CURRENT: &str = "CURRENT";
const TREE_PREFIX: &str = "tree-";
/// The file in which the tree names its own version; without it, the tree would be made anew.
const TREE_CURRENT: &str = "current";
/// Where the tree keeps what was flushed.
const TREE_TABLES: &str = "tables";

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(path).map_err(StoreError::io(path))?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(StoreError::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(StoreError::io(&lock_path)(error)),
        }
    }

    /// The number of the tree that counts; `None` in a new folder.
    pub(super) fn current(&self) -> Result<Option<u64>, StoreError> {
        let path = self.path.join(CURRENT);
        if !path.try_exists().map_err(StoreError::io(&path))? {
            return self.check_new().map(|()| None);
        }
        let text = fs::read(&path).map_err(StoreError::io(&path))?;
        let number = std::str::from_utf8(&text).ok().and_then(parse_tree_name);
        let number = number.ok_or_else(|| StoreError::Damaged {
            path: path.clone(),
            reason: "it names no tree".to_owned(),
        })?;
        let tree = self.tree_path(number);
        if !tree.join(TREE_CURRENT).is_file() {
            let reason = format!("the tree that {CURRENT} names is missing or empty");
            return Err(StoreError::Damaged { path: tree, reason });
        }
        Ok(Some(number))
    }

    /// A folder that names no tree must hold none either, but for the empty one of a store whose
    /// making was cut short.
    fn check_new(&self) -> Result<(), StoreError> {
        for (path, _) in self.trees()? {
            let tables = path.join(TREE_TABLES);
            if fs::read_dir(&tables).is_ok_and(|mut tables| tables.next().is_some()) {
                let reason = format!("there is a tree, and no {CURRENT} to name it");
                return Err(StoreError::Damaged { path, reason });
            }
        }
        Ok(())
    }

    fn trees(&self) -> Result<Vec<(PathBuf, u64)>, StoreError> {
        let mut trees = vec![];
        for entry in fs::read_dir(&self.path).map_err(StoreError::io(&self.path))? {
            let entry = entry.map_err(StoreError::io(&self.path))?;
            let number = entry.file_name().to_str().and_then(parse_tree_name);
            trees.extend(number.map(|number| (entry.path(), number)));
        }
        Ok(trees)
    }

    /// Makes the tree `number` the one that counts, for good: both its files and its name are on
    /// disk on return.
    pub(super) fn set_current(&self, number: u64) -> Result<(), StoreError> {
        let path = self.path.join(CURRENT);
        let fresh = self.path.join("CURRENT.new");
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(format!("{TREE_PREFIX}{number}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(StoreError::io(&path))
    }

    /// Removes every tree but `keep`: what an unfinished restore, or a finished one, left.
    pub(super) fn remove_trees_except(&self, keep: Option<u64>) -> Result<(), StoreError> {
        for (path, number) in self.trees()? {
            if Some(number) != keep {
                fs::remove_dir_all(&path).map_err(StoreError::io(&path))?;
            }
        }
        Ok(())
    }

    pub(super) fn tree_path(&self, number: u64) -> PathBuf {
        self.path.join(format!("{TREE_PREFIX}{number}"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn parse_tree_name(name: &str) -> Option<u64> {
    name.trim_end().strip_prefix(TREE_PREFIX)?.parse().ok()
}

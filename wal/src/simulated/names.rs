//! The names on the disk, and the changes of them that are not durable yet.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::inode::Inode;

/// What has a name.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Folder,
    File(Arc<Mutex<Inode>>),
}

/// Paths are [`plain`], so that their bytes tell them apart; and a folder comes before what lies in
/// it.
type Table = BTreeMap<OsString, Node>;

/// One change: what lost its name and what got one.
#[derive(Debug)]
struct Change {
    taken: Option<PathBuf>,
    given: Option<(PathBuf, Node)>,
}

impl Change {
    fn folders(&self) -> impl Iterator<Item = &Path> {
        let paths = self.taken.iter().chain(self.given.iter().map(|(path, _)| path));
        paths.map(|path| folder_of(path))
    }

    fn apply(&self, table: &mut Table) {
        if let Some(path) = &self.taken {
            table.remove(path.as_os_str());
        }
        if let Some((path, node)) = &self.given {
            table.insert(path.clone().into_os_string(), node.clone());
        }
    }
}

/// All names of a disk.
#[derive(Debug, Default)]
pub(super) struct Names {
    seen: Table,
    durable: Table,
    /// The changes that no sync of a folder has covered, oldest first.
    journal: Vec<Change>,
}

/// A path in the one form the tables use.
pub(super) fn plain(path: &Path) -> Cow<'_, Path> {
    let bytes = path.as_os_str().as_bytes();
    let is_odd = |pair: &[u8]| pair[0] == b'/' && matches!(pair[1], b'/' | b'.');
    if bytes.windows(2).any(is_odd) || bytes.starts_with(b".") || bytes.ends_with(b"/") {
        let parts = path.components().filter(|part| !matches!(part, Component::CurDir));
        Cow::Owned(parts.collect())
    } else {
        Cow::Borrowed(path)
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn is_root(path: &Path) -> bool {
    path.parent().is_none()
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<&Node> {
        self.seen.get(path.as_os_str())
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Arc<Mutex<Inode>>> {
        match self.seen.get(path.as_os_str()) {
            Some(Node::File(inode)) => Ok(Arc::clone(inode)),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn check_folder(&self, path: &Path) -> io::Result<()> {
        match self.seen.get(path.as_os_str()) {
            _ if is_root(path) => Ok(()),
            Some(Node::Folder) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.check_folder(dir)?;
        let mut first = dir.as_os_str().to_owned();
        first.push(if is_root(dir) { "" } else { "/" });
        let behind = (Bound::Included(first.as_os_str()), Bound::Unbounded);
        let below = self.seen.range::<OsStr, _>(behind).map(|(path, _)| path);
        let below = below.take_while(|path| path.as_bytes().starts_with(first.as_bytes()));
        let here = below.map(Path::new).filter(|path| folder_of(path) == dir);
        Ok(here.map(Path::to_owned).collect())
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        if let Some((path, _)) = &change.given {
            self.check_folder(folder_of(path))?;
        }
        change.apply(&mut self.seen);
        self.journal.push(change);
        Ok(())
    }

    pub(super) fn give(&mut self, path: &Path, node: Node) -> io::Result<()> {
        self.change(Change { taken: None, given: Some((path.to_owned(), node)) })
    }

    pub(super) fn take(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.change(Change { taken: Some(path.to_owned()), given: None })
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = Node::File(self.file(from)?);
        self.change(Change { taken: Some(from.to_owned()), given: Some((to.to_owned(), node)) })
    }

    /// Makes the changes of a folder durable, and of other folders only what these need: the
    /// changes before one that touches both.
    pub(super) fn sync(&mut self, dir: &Path) -> io::Result<()> {
        self.check_folder(dir)?;
        let mut synced: BTreeSet<PathBuf> = BTreeSet::from([dir.to_owned()]);
        let mut covered = vec![false; self.journal.len()];
        for (change, covered) in self.journal.iter().zip(&mut covered).rev() {
            if change.folders().any(|folder| synced.contains(folder)) {
                synced.extend(change.folders().map(Path::to_owned));
                *covered = true;
            }
        }
        let mut covered = covered.into_iter();
        let durable = &mut self.durable;
        self.journal.retain(|change| {
            let is_covered = covered.next().unwrap_or_default();
            if is_covered {
                change.apply(durable);
            }
            !is_covered
        });
        Ok(())
    }

    /// Shows the changes that are not durable as well.
    pub(super) fn show_all(&mut self) {
        self.seen = self.durable.clone();
        for change in &self.journal {
            change.apply(&mut self.seen);
        }
    }

    /// Makes everything durable.
    pub(super) fn sync_all(&mut self) {
        self.durable = self.seen.clone();
        self.journal.clear();
    }

    /// The power fails: of each folder's changes the oldest are kept. `keeps` is asked for every
    /// change that all earlier ones of its folders were kept before.
    pub(super) fn power_cut(&mut self, keeps: impl FnMut(usize) -> bool) {
        let kept = self.kept(keeps);
        for (change, _) in std::mem::take(&mut self.journal).iter().zip(kept).filter(|it| it.1) {
            change.apply(&mut self.durable);
        }
        // What lies in a folder goes with its name. A folder comes before what lies in it.
        let mut reached = Table::new();
        for (path, node) in std::mem::take(&mut self.durable) {
            let folder = folder_of(Path::new(&path));
            if is_root(folder) || matches!(reached.get(folder.as_os_str()), Some(Node::Folder)) {
                reached.insert(path, node);
            }
        }
        self.seen = reached.clone();
        self.durable = reached;
    }

    /// Which of the changes that are not synced a power cut leaves.
    pub(super) fn kept(&self, mut keeps: impl FnMut(usize) -> bool) -> Vec<bool> {
        let mut ended: BTreeSet<&Path> = BTreeSet::new();
        let kept = self.journal.iter().enumerate().map(|(at, change)| {
            let is_behind = change.folders().any(|folder| ended.contains(folder));
            let is_kept = !is_behind && keeps(at);
            if !is_kept {
                ended.extend(change.folders());
            }
            is_kept
        });
        kept.collect()
    }

    /// How many changes are not synced.
    pub(super) fn unsynced(&self) -> usize {
        self.journal.len()
    }

    /// Whether the disk and the changes are the same; `same` says so of files.
    pub(super) fn is_same(
        &self,
        other: &Self,
        same: impl Fn(&Arc<Mutex<Inode>>, &Arc<Mutex<Inode>>) -> bool,
    ) -> bool {
        let is_same_node = |one: &Node, two: &Node| match (one, two) {
            (Node::File(one), Node::File(two)) => same(one, two),
            (Node::Folder, Node::Folder) => true,
            _ => false,
        };
        let mut names = self.durable.iter().zip(&other.durable);
        let mut changes = self.journal.iter().zip(&other.journal);
        (self.durable.len(), self.journal.len()) == (other.durable.len(), other.journal.len())
            && names.all(|(one, two)| one.0 == two.0 && is_same_node(one.1, two.1))
            && changes.all(|(one, two)| {
                let is_same_gift = match (&one.given, &two.given) {
                    (Some(one), Some(two)) => one.0 == two.0 && is_same_node(&one.1, &two.1),
                    (one, two) => one.is_none() && two.is_none(),
                };
                one.taken == two.taken && is_same_gift
            })
    }

    /// What is on the disk, and the changes that are not, of other files: `file` says which one
    /// stands for which.
    pub(super) fn copied(
        &self,
        mut file: impl FnMut(&Arc<Mutex<Inode>>) -> Arc<Mutex<Inode>>,
    ) -> Self {
        let mut node = |node: &Node| match node {
            Node::Folder => Node::Folder,
            Node::File(inode) => Node::File(file(inode)),
        };
        let durable = self.durable.iter().map(|(path, held)| (path.clone(), node(held))).collect();
        let journal = self.journal.iter().map(|change| Change {
            taken: change.taken.clone(),
            given: change.given.as_ref().map(|(path, held)| (path.clone(), node(held))),
        });
        let journal = journal.collect();
        Self { seen: Table::new(), durable, journal }
    }

    /// Every file that has a name, or has one on the disk; some twice.
    pub(super) fn inodes(&self) -> impl Iterator<Item = &Arc<Mutex<Inode>>> {
        let changed = self.journal.iter().filter_map(|change| change.given.as_ref());
        let nodes = self.seen.values().chain(self.durable.values());
        nodes.chain(changed.map(|(_, node)| node)).filter_map(|node| match node {
            Node::File(inode) => Some(inode),
            Node::Folder => None,
        })
    }

    pub(super) fn durable_files(&self) -> impl Iterator<Item = (&Path, &Arc<Mutex<Inode>>)> {
        self.durable.iter().filter_map(|(path, node)| match node {
            Node::File(inode) => Some((Path::new(path), inode)),
            Node::Folder => None,
        })
    }
}

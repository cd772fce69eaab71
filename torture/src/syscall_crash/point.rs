//! One fault at one call of one life.

use std::process::Command;

/// What happens at a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    Kill,
    Eio,
    Enospc,
    /// A write says that it has taken nothing.
    Short,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Kill, Self::Eio, Self::Enospc, Self::Short];

    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Eio => "eio",
            Self::Enospc => "enospc",
            Self::Short => "short",
        }
    }

    /// What strace calls it.
    const fn injected(self) -> &'static str {
        match self {
            Self::Kill => "signal=KILL",
            Self::Eio => "error=EIO",
            Self::Enospc => "error=ENOSPC",
            Self::Short => "retval=0",
        }
    }

    fn fits(self, call: &str) -> bool {
        self != Self::Short || matches!(call, "write" | "pwrite64")
    }
}

/// One fault to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Point {
    /// At the so-many-th occurrence of a call.
    Call { seed: u64, call: String, when: u64, fault: Fault },
    /// No file may be longer than so many blocks of 512 bytes: the kernel cuts writes short.
    Limit { blocks: u64 },
}

impl Point {
    pub(super) const fn limit(blocks: u64) -> Self {
        Self::Limit { blocks }
    }

    /// Every fault at every occurrence of a call.
    pub(super) fn all(seed: u64, call: &str, count: u64) -> impl Iterator<Item = Self> {
        let faults = Fault::ALL.into_iter().filter(|fault| fault.fits(call));
        let faults: Vec<_> = faults.collect();
        let call = call.to_owned();
        (1..=count).flat_map(move |when| {
            let point =
                |fault: &Fault| Self::Call { seed, call: call.clone(), when, fault: *fault };
            faults.iter().map(point).collect::<Vec<_>>()
        })
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Call { seed, call, when, fault } => {
                format!("{seed}:{call}:{when}:{}", fault.name())
            }
            Self::Limit { blocks } => format!("limit:{blocks}"),
        }
    }

    /// The call that fails.
    pub(super) fn call(&self) -> Option<&str> {
        match self {
            Self::Call { call, .. } => Some(call),
            Self::Limit { .. } => None,
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let words: Vec<&str> = name.split(':').collect();
        match words.as_slice() {
            ["limit", blocks] => Some(Self::Limit { blocks: blocks.parse().ok()? }),
            [seed, call, when, fault] => {
                let fault = Fault::ALL.into_iter().find(|it| it.name() == *fault)?;
                let (seed, when) = (seed.parse().ok()?, when.parse().ok()?);
                Some(Self::Call { seed, call: (*call).to_owned(), when, fault })
            }
            _ => None,
        }
    }

    pub(super) const fn seed(&self) -> u64 {
        match self {
            Self::Call { seed, .. } => *seed,
            Self::Limit { blocks } => *blocks,
        }
    }

    /// Whether the life can not end well. A folder that can not be made may be there already, and
    /// a lock that is not let go of goes with its process; a disk that is full takes what has a
    /// place reserved.
    pub(super) fn is_fatal(&self) -> bool {
        match self {
            Self::Call { call, fault, .. } => match fault {
                Fault::Kill => true,
                Fault::Enospc => false,
                Fault::Eio | Fault::Short => !matches!(call.as_str(), "mkdir" | "flock"),
            },
            Self::Limit { .. } => true,
        }
    }

    /// The life, with the fault in it.
    pub(super) fn command(&self, life: Vec<String>) -> Command {
        match self {
            Self::Call { call, when, fault, .. } => {
                let mut strace = Command::new("strace");
                strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
                strace.arg(format!("trace={call}")).arg("-e");
                strace.arg(format!("inject={call}:{}:when={when}", fault.injected())).args(life);
                strace
            }
            Self::Limit { blocks } => {
                let mut shell = Command::new("sh");
                let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
                shell.args(["-c", &script, "sh"]).args(life);
                shell
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_reads_back_from_its_name_and_only_writes_are_short() {
        let writes: Vec<_> = Point::all(3, "pwrite64", 2).collect();
        let syncs: Vec<_> = Point::all(3, "fdatasync", 2).collect();
        assert_eq!((writes.len(), syncs.len()), (8, 6));
        for point in writes.into_iter().chain(syncs).chain([Point::limit(7)]) {
            assert_eq!(Point::parse(&point.name()), Some(point));
        }
        assert_eq!(Point::parse("3:write:1:loud"), None);
    }
}

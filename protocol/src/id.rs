//! Who is who: clusters, logs, nodes and their incarnations.

use std::fmt;
use std::str::FromStr;

/// Names a cluster for ever; random, made once by its founding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

/// Names one log of a cluster; random, made with the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u128);

/// Names one life of a node's disk. A node whose disk was lost or is no longer trusted takes a new
/// one, and counts in no quorum until the others have granted it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u64);

macro_rules! hex_id {
    ($name:ident, $digits:literal, $inner:ty) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                <$inner>::from_str_radix(text, 16).map(Self)
            }
        }
    };
}

hex_id!(ClusterId, "32", u128);
hex_id!(LogId, "32", u128);
hex_id!(Incarnation, "16", u64);

/// A node's name inside its cluster: 1 to 16 of `a-z`, `0-9` and `-`.
///
/// It is written on the node's disk when the cluster is founded and never taken from the host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; Self::MAX_LEN]);

/// Text that does not name a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no node name: use 1 to 16 of a-z, 0-9 and '-'")]
pub struct InvalidNodeId(pub String);

impl NodeId {
    /// The longest name, in bytes; also the width of a name in every format, padded with zeros.
    pub const MAX_LEN: usize = 16;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(Self::MAX_LEN);
        std::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }

    /// The name as every format stores it: padded with zeros.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::MAX_LEN] {
        self.0
    }

    /// Reads a name as a format stores it.
    ///
    /// # Errors
    /// [`InvalidNodeId`] if it is empty, has a foreign character, or bytes behind its padding.
    pub fn from_bytes(bytes: [u8; Self::MAX_LEN]) -> Result<Self, InvalidNodeId> {
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(Self::MAX_LEN);
        let named = bytes[..len]
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
        if len == 0 || !named || bytes[len..].iter().any(|&byte| byte != 0) {
            return Err(InvalidNodeId(String::from_utf8_lossy(&bytes).into_owned()));
        }
        Ok(Self(bytes))
    }
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > Self::MAX_LEN || text.contains('\0') {
            return Err(InvalidNodeId(text.to_owned()));
        }
        let mut bytes = [0; Self::MAX_LEN];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self::from_bytes(bytes).map_err(|_| InvalidNodeId(text.to_owned()))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_their_stored_form() {
        for name in ["a", "node-7", "exactly-16-bytes"] {
            let id: NodeId = name.parse().unwrap();
            assert_eq!(id.as_str(), name);
            assert_eq!(NodeId::from_bytes(id.to_bytes()), Ok(id));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "A", "a b", "../a", "seventeen-bytes-x", "a\0b"] {
            assert!(name.parse::<NodeId>().is_err(), "{name:?}");
        }
        assert!(NodeId::from_bytes(*b"a\0\0b\0\0\0\0\0\0\0\0\0\0\0\0").is_err());
    }
}

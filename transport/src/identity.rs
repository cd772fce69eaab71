//! A node's name in its certificate: `<node>.<cluster id in hex>.towline`.

use towline_protocol::id::{ClusterId, NodeId};

const SUFFIX: &str = "towline";
const CLUSTER_DIGITS: usize = 32;

/// Who a certificate says its owner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// The node.
    pub node: NodeId,
    /// The cluster the node belongs to.
    pub cluster: ClusterId,
}

/// A node whose name cannot stand in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node name \"{0}\" cannot stand in a certificate: it must not begin or end with '-'")]
pub struct InvalidName(pub NodeId);

impl PeerIdentity {
    /// The name that stands in the node's certificate.
    ///
    /// # Errors
    /// [`InvalidName`] for a node whose name begins or ends with `-`, which no DNS name may.
    pub fn dns_name(&self) -> Result<String, InvalidName> {
        let node = self.node.as_str();
        if node.starts_with('-') || node.ends_with('-') {
            return Err(InvalidName(self.node));
        }
        Ok(format!("{node}.{}.{SUFFIX}", self.cluster))
    }

    /// Reads a name as [`Self::dns_name`] writes it, and nothing else.
    #[must_use]
    pub fn from_dns_name(name: &str) -> Option<Self> {
        let (node, rest) = name.split_once('.')?;
        let (cluster, suffix) = rest.split_once('.')?;
        let hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if suffix != SUFFIX || cluster.len() != CLUSTER_DIGITS || !cluster.bytes().all(hex) {
            return None;
        }
        Some(Self { node: node.parse().ok()?, cluster: cluster.parse().ok()? })
    }
}

impl std::fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} of cluster {}", self.node, self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_certificate() {
        let identity = PeerIdentity { node: "node-7".parse().unwrap(), cluster: ClusterId(0xabc) };
        let name = identity.dns_name().unwrap();
        assert_eq!(name, "node-7.00000000000000000000000000000abc.towline");
        assert_eq!(PeerIdentity::from_dns_name(&name), Some(identity));
    }

    #[test]
    fn other_names_are_nobody() {
        for name in [
            "",
            "a",
            "a.b.towline",
            "a.00000000000000000000000000000abc.example",
            "a.00000000000000000000000000000ABC.towline",
            "a.+0000000000000000000000000000abc.towline",
            "a.b.00000000000000000000000000000abc.towline",
            "*.00000000000000000000000000000abc.towline",
        ] {
            assert_eq!(PeerIdentity::from_dns_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_hyphen_at_the_edge_is_told_before_a_certificate_is_made() {
        let identity = PeerIdentity { node: "-a".parse().unwrap(), cluster: ClusterId(1) };
        assert_eq!(identity.dns_name(), Err(InvalidName(identity.node)));
    }
}

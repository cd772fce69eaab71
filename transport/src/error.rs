//! Why two nodes are not connected, in words a person can act on.

use std::net::SocketAddr;

use rustls::CertificateError;
use towline_protocol::id::{ClusterId, NodeId};

use crate::identity::{InvalidName, PeerIdentity};
use crate::settings::InvalidConfig;

/// The longest text kept from a peer, in characters; it ends up in logs.
const PEER_TEXT_MAX: usize = 256;
/// Where QUIC puts the TLS alerts among its error codes.
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;

/// An endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket could not be used.
    #[error("cannot use the UDP socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The settings make no sense.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
}

/// Why this node refused a peer's certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another authority signed it.
    #[error(
        "certificate of another authority: issue the peer's with this cluster's CA, or correct \
         the address if it is another cluster's node"
    )]
    ForeignAuthority,
    /// It is no longer valid.
    #[error(
        "certificate of peer expired on {0}: issue a new one with the cluster's CA (or correct \
         this host's clock)"
    )]
    Expired(String),
    /// It is not valid yet.
    #[error("certificate of peer is not valid before {0}: check the clocks of both hosts")]
    NotYetValid(String),
    /// It names no node.
    #[error(
        "certificate names no node of a cluster: issue one for <node>.<cluster id>.towline \
         with the cluster's CA"
    )]
    NoIdentity,
    /// It belongs to a node of another cluster.
    #[error("peer belongs to cluster {found}, this node to {own}: correct the peer's address")]
    OtherCluster {
        /// The peer's cluster.
        found: ClusterId,
        /// This node's cluster.
        own: ClusterId,
    },
    /// It belongs to another node than the one that was dialled.
    #[error(
        "node {found} answered where {expected} was expected: correct the address of {expected}"
    )]
    OtherNode {
        /// Who answered.
        found: NodeId,
        /// Who was dialled.
        expected: NodeId,
    },
    /// Anything else TLS does not accept.
    #[error("certificate not accepted: {0}")]
    Unacceptable(String),
}

impl Refusal {
    pub(crate) fn from_tls(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(certificate) = error else {
            return Self::Unacceptable(error.to_string());
        };
        match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::ForeignAuthority
            }
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired(date(*not_after)),
            CertificateError::NotValidYetContext { not_before, .. } => {
                Self::NotYetValid(date(*not_before))
            }
            other => Self::Unacceptable(other.to_string()),
        }
    }
}

fn date(at: rustls::pki_types::UnixTime) -> String {
    let seconds = i64::try_from(at.as_secs()).ok();
    seconds
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .map_or_else(|| "an unreadable date".to_owned(), |at| at.date().to_string())
}

/// Why a connection was not made, for the dialling and for the accepting side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answered, or the handshake did not end in time.
    #[error("no answer from {addr} in {after_ms} ms: check that it runs and that UDP passes")]
    NoAnswer {
        /// The peer.
        addr: SocketAddr,
        /// How long this side waited, in milliseconds.
        after_ms: u64,
    },
    /// This side refused the peer.
    #[error("refused {addr}: {reason}")]
    Refused {
        /// The peer.
        addr: SocketAddr,
        /// Why.
        reason: Refusal,
    },
    /// The peer refused this side.
    #[error("{addr} refused this node: {reason}")]
    RefusedByPeer {
        /// The peer.
        addr: SocketAddr,
        /// Why, as far as the peer said so.
        reason: String,
    },
    /// The peer closed the connection, or it broke, before it was made.
    #[error("connection with {addr} was lost in the handshake: {cause}")]
    Lost {
        /// The peer.
        addr: SocketAddr,
        /// How it ended.
        cause: Closed,
    },
    /// The node to dial has a name that no certificate can carry.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The address cannot be dialled from this socket.
    #[error("cannot dial {addr}: {reason}")]
    Address {
        /// The address.
        addr: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// This endpoint was closed.
    #[error("this node's endpoint is closed")]
    EndpointClosed,
}

impl ConnectError {
    /// What a handshake's end means, given what this side thought of the peer's certificate.
    pub(crate) fn from_handshake(
        addr: SocketAddr,
        after_ms: u64,
        verdict: Option<&Result<PeerIdentity, Refusal>>,
        error: &quinn::ConnectionError,
    ) -> Self {
        if let Some(Err(reason)) = verdict {
            let reason = reason.clone();
            return Self::Refused { addr, reason };
        }
        match error {
            quinn::ConnectionError::TimedOut => Self::NoAnswer { addr, after_ms },
            quinn::ConnectionError::ConnectionClosed(close) => {
                let code = u64::from(close.error_code);
                if code == u64::from(quinn::TransportErrorCode::CONNECTION_REFUSED) {
                    let reason = "it has too many handshakes pending or is stopping: try again";
                    let reason = reason.to_owned();
                    return Self::RefusedByPeer { addr, reason };
                }
                if !TLS_ALERTS.contains(&code) {
                    let cause = Closed::from(error);
                    return Self::Lost { addr, cause };
                }
                let reason = alert_text(code - TLS_ALERTS.start, &close.reason);
                Self::RefusedByPeer { addr, reason }
            }
            quinn::ConnectionError::TransportError(broken)
                if TLS_ALERTS.contains(&u64::from(broken.code)) =>
            {
                let reason = Refusal::Unacceptable(printable(broken.reason.as_bytes()));
                Self::Refused { addr, reason }
            }
            other => Self::Lost { addr, cause: Closed::from(other) },
        }
    }
}

/// What a TLS alert received from a peer means for the operator of this node.
fn alert_text(alert: u64, said: &[u8]) -> String {
    let meaning = match alert {
        48 => {
            "it does not know the authority of this node's certificate: issue this node's with \
             the CA of the peer's cluster, or correct the address"
        }
        45 => {
            "this node's certificate is expired or not yet valid: issue a new one with the \
             cluster's CA and check both clocks"
        }
        42 | 49 => {
            "this node is not the one it expected there, or belongs to another cluster: \
             correct the addresses"
        }
        116 => "it got no certificate: this node's is missing or of another authority",
        120 => "it does not speak this version of the protocol: upgrade the older node",
        _ => "it did not accept the handshake",
    };
    format!("{meaning} (TLS alert {alert}, it said: \"{}\")", printable(said))
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The peer closed it.
    #[error("closed by the peer with code {code}: {text}")]
    ByPeer {
        /// The code it gave.
        code: u64,
        /// The text it gave.
        text: String,
    },
    /// This side closed it.
    #[error("closed by this node")]
    Here,
    /// The peer fell silent for longer than the idle timeout.
    #[error("the peer fell silent")]
    Silent,
    /// The peer no longer knows the connection: it was restarted.
    #[error("the peer no longer knows the connection: it was restarted")]
    Forgotten,
    /// The peer broke the protocol, or the connection ran out of something.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl From<&quinn::ConnectionError> for Closed {
    fn from(error: &quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::ApplicationClosed(close) => {
                Self::ByPeer { code: close.error_code.into_inner(), text: printable(&close.reason) }
            }
            E::ConnectionClosed(close) => {
                let text = printable(&close.reason);
                Self::Broken(format!("the peer reports {}: {text}", close.error_code))
            }
            E::LocallyClosed => Self::Here,
            E::TimedOut => Self::Silent,
            E::Reset => Self::Forgotten,
            other => Self::Broken(printable(other.to_string().as_bytes())),
        }
    }
}

/// A peer's text without what could disturb a log or a terminal.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .take(PEER_TEXT_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_text_cannot_disturb_a_log() {
        assert_eq!(printable(b"a\nb\x1b[31m"), "a b [31m");
        assert_eq!(printable(&[b'x'; 10_000]).len(), PEER_TEXT_MAX);
    }
}

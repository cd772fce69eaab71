//! Towline's transport: mutually authenticated QUIC connections between the nodes of one cluster.
//!
//! An [`Endpoint`] sits on one UDP socket, dials and accepts. A [`Connection`] has proved which
//! node
//! of which cluster is at its other end and carries streams of length-prefixed frames. This crate
//! alone knows QUIC and TLS; none of their types are in its interface, except for [`simulation`].
#![forbid(unsafe_code)]

mod certs;
mod connection;
mod endpoint;
mod error;
mod frames;
mod identity;
mod settings;
mod tls;

pub use certs::{CertificateAuthority, CertificateError, IssuedCertificate};
pub use connection::{Connection, Priority};
pub use endpoint::Endpoint;
pub use error::{BindError, Closed, ConnectError, Refusal};
pub use frames::{
    CONTROL_FRAME_MAX, FrameError, FrameReceiver, FrameSender, RECEIVE_STEP, RECORDS_FRAME_MAX,
};
pub use identity::{InvalidName, PeerIdentity};
pub use settings::{InvalidConfig, TransportConfig};
pub use tls::{Credentials, CredentialsError};

/// What a simulated network implements to stand in for a UDP socket.
pub mod simulation {
    pub use quinn::udp::{RecvMeta, Transmit};
    pub use quinn::{AsyncUdpSocket, UdpPoller};
}

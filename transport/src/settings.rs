//! The settings of QUIC, each with its reason.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, VarInt};

/// The smallest packet that every QUIC path must carry, in bytes.
const MTU_MIN: u16 = 1200;
/// Ten packets of this size, the most that are handed to the kernel at once, stay under the 65,507
/// bytes past which such a batch is lost without an error.
const MTU_MAX: u16 = 6000;
/// Past 4 MiB, the chunks a lossy path leaves in one stream can exceed what the QUIC library keeps,
/// and it then ends the whole connection.
const STREAM_WINDOW_MAX: u32 = 4 << 20;
/// Datagrams are not used.
const DATAGRAM_BUFFER: usize = 64 << 10;
const BIDI_STREAMS_MAX: u8 = 4;
const UNI_STREAMS_MAX: u8 = 32;

/// How an endpoint treats its connections. The defaults suit a network of 1500-byte packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportConfig {
    /// The largest packet sent or taken, in bytes of UDP payload: 1452 fits Ethernet. More (up to
    /// 6000) is for jumbo frames or loopback, and only counts if both peers set it.
    pub mtu: u16,
    /// How much one stream may have in flight, in bytes; at most 4 MiB.
    pub stream_window: u32,
    /// How much a peer may have in flight on all streams of a connection, in bytes.
    pub receive_window: u32,
    /// How much a connection sends unacknowledged, in bytes; bounds the memory per peer.
    pub send_window: u32,
    /// How much a connection sends before the first acknowledgement, in bytes.
    pub initial_window: u32,
    /// Silence after which a peer is given up, in milliseconds.
    pub idle_timeout_ms: u32,
    /// Silence after which this side asks for a sign of life, in milliseconds.
    pub keep_alive_ms: u32,
    /// How long a handshake may take, on either side, in milliseconds.
    pub handshake_timeout_ms: u32,
    /// The socket's buffers asked of the kernel, in bytes; it may grant less.
    pub socket_buffer: u32,
    /// Seeds what of QUIC need not be secret, for simulations. Never set it in production.
    pub rng_seed: Option<[u8; 32]>,
}

/// Settings that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("transport setting {field} = {value}: it must be {rule}")]
pub struct InvalidConfig {
    /// The setting.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// What it must be.
    pub rule: &'static str,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            mtu: 1452,
            stream_window: STREAM_WINDOW_MAX,
            receive_window: 16 << 20,
            // Below what a socket with buffers of the size below can queue, so that one connection
            // cannot overflow its peer's: on a local network that is nearly all loss there is.
            send_window: 3 << 20,
            initial_window: 256 << 10,
            idle_timeout_ms: 5_000,
            keep_alive_ms: 1_000,
            handshake_timeout_ms: 5_000,
            socket_buffer: 4 << 20,
            rng_seed: None,
        }
    }
}

impl TransportConfig {
    pub(crate) fn check(&self) -> Result<(), InvalidConfig> {
        let rules = [
            (
                "mtu",
                u64::from(self.mtu),
                (MTU_MIN..=MTU_MAX).contains(&self.mtu),
                "from 1200 to 6000 bytes",
            ),
            (
                "stream_window",
                u64::from(self.stream_window),
                (1 << 16..=STREAM_WINDOW_MAX).contains(&self.stream_window),
                "from 64 KiB to 4 MiB",
            ),
            (
                "receive_window",
                u64::from(self.receive_window),
                self.receive_window >= self.stream_window && self.receive_window <= 256 << 20,
                "from stream_window to 256 MiB",
            ),
            (
                "send_window",
                u64::from(self.send_window),
                (1 << 16..=64 << 20).contains(&self.send_window),
                "from 64 KiB to 64 MiB",
            ),
            (
                "keep_alive_ms",
                u64::from(self.keep_alive_ms),
                self.keep_alive_ms > 0 && self.keep_alive_ms < self.idle_timeout_ms,
                "more than 0 and less than idle_timeout_ms",
            ),
            (
                "handshake_timeout_ms",
                u64::from(self.handshake_timeout_ms),
                self.handshake_timeout_ms > 0,
                "more than 0",
            ),
        ];
        match rules.into_iter().find(|(_, _, kept, _)| !kept) {
            Some((field, value, _, rule)) => Err(InvalidConfig { field, value, rule }),
            None => Ok(()),
        }
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.handshake_timeout_ms))
    }

    pub(crate) fn endpoint(&self) -> quinn::EndpointConfig {
        let mut config = quinn::EndpointConfig::default();
        config
            .max_udp_payload_size(self.mtu.max(1472))
            .expect("1472 to 6000 is a valid payload size");
        config.rng_seed(self.rng_seed);
        config
    }

    pub(crate) fn connection(&self) -> Arc<quinn::TransportConfig> {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(u64::from(self.initial_window));
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu);
        let mut config = quinn::TransportConfig::default();
        config
            .initial_mtu(self.mtu)
            // The floor after packets of the full size vanished.
            .min_mtu(MTU_MIN)
            .mtu_discovery_config(Some(discovery))
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            // Unlimited unless set.
            .receive_window(VarInt::from_u32(self.receive_window))
            .send_window(u64::from(self.send_window))
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(self.idle_timeout_ms))))
            .keep_alive_interval(Some(Duration::from_millis(u64::from(self.keep_alive_ms))))
            .max_concurrent_bidi_streams(VarInt::from(BIDI_STREAMS_MAX))
            .max_concurrent_uni_streams(VarInt::from(UNI_STREAMS_MAX))
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(DATAGRAM_BUFFER)
            // Streams of one priority go one after the other: whole frames arrive sooner.
            .send_fairness(false)
            .ack_frequency_config(None)
            .congestion_controller_factory(Arc::new(cubic));
        Arc::new(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_the_traps_are_not() {
        assert_eq!(TransportConfig::default().check(), Ok(()));
        let jumbo = TransportConfig { mtu: 9000, ..TransportConfig::default() };
        assert_eq!(jumbo.check().unwrap_err().field, "mtu");
        let silent = TransportConfig { keep_alive_ms: 5_000, ..TransportConfig::default() };
        assert_eq!(silent.check().unwrap_err().field, "keep_alive_ms");
        assert!(u32::from(MTU_MAX) * 10 <= 65_507);
    }
}

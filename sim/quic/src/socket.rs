//! What QUIC takes for a UDP socket.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};
use towline_transport::simulation::{AsyncUdpSocket, RecvMeta, Transmit, UdpPoller};

use crate::network::Network;

/// One life of a host's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    network: Network,
    host: SocketAddr,
    life: u64,
    arrival: Mutex<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Takes the address of `host`.
    pub(crate) fn plug(network: &Network, host: SocketAddr) -> Arc<Self> {
        let life = network.plug(host);
        let arrival = Mutex::new(Box::pin(tokio::time::sleep_until(Instant::now())));
        Arc::new(Self { network: network.clone(), host, life, arrival })
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.network.send(self.host, self.life, transmit.destination, transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        received: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        while taken < buffers.len().min(received.len()) {
            let datagram = match self.network.take(self.host, self.life, context.waker()) {
                Ok(datagram) => datagram,
                Err(_) if taken > 0 => break,
                Err(None) => return Poll::Pending,
                Err(Some(wait)) => {
                    let mut arrival = self.arrival.lock().unwrap_or_else(PoisonError::into_inner);
                    arrival.as_mut().reset(Instant::now() + wait);
                    match arrival.as_mut().poll(context) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(()) => continue,
                    }
                }
            };
            let len = datagram.content.len();
            buffers[taken][..len].copy_from_slice(&datagram.content);
            received[taken] =
                RecvMeta { addr: datagram.from, len, stride: len, ecn: None, dst_ip: None };
            taken += 1;
        }
        Poll::Ready(Ok(taken))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.host)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

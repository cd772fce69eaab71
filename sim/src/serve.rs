//! Connections that carry records: the sender's side.

use bytes::{BufMut, Bytes, BytesMut};
use towline_protocol::frame::{Body, Hello, RECORDS_HEADER_LEN, Records, Refusal, Welcome};
use towline_wal::{Chunk, Level, WalError};

use crate::Plant;
use crate::net::{LinkId, Packet};
use crate::node::{Running, Serve};
use crate::session::control;
use crate::world::World;

/// How many bytes of records go into one frame, at least.
const FRAME_AIM: usize = 4 << 10;

impl World {
    pub(crate) fn welcome(
        &mut self,
        link: LinkId,
        node: usize,
        hello: &Hello,
    ) -> Result<(), WalError> {
        let now_ms = self.local_ms(node);
        let forgot = self.nodes.iter().any(|node| node.replaced || node.store.rotten);
        let up = self.running(node);
        let mut answer = up.machine.handle_hello(hello, now_ms);
        let epoch = up.machine.fence();
        match &mut answer {
            Welcome::Stream { from, digest, .. } => {
                *digest = up.wal.digest_at(*from)?;
                let cursor = up.wal.cursor(*from, Level::Appended)?;
                up.serving.insert(link, Serve { epoch, cursor, number: 0 });
            }
            Welcome::Truncate { to, digest } => *digest = up.wal.digest_at(*to)?,
            Welcome::Refuse(refusal, reason) => {
                let grave = matches!(refusal, Refusal::LostAcked | Refusal::Diverged);
                assert!(!grave || forgot, "a sound node was refused: {reason}");
            }
            _ => {}
        }
        self.send(link, node, control(epoch, 0, Body::Welcome(answer)));
        self.ship(node)
    }

    pub(crate) fn close_served(&mut self, node: usize) {
        let keeps = self.plant == Some(Plant::AckAfterFence);
        let Some(up) = self.up(node) else { return };
        for link in std::mem::take(&mut up.serving).into_keys() {
            if !keeps {
                self.net.close(link);
            }
        }
    }

    /// Sends every peer the records it has not been sent, whether they are flushed here or not.
    pub(crate) fn ship(&mut self, node: usize) -> Result<(), WalError> {
        let Self { nodes, net, .. } = self;
        let Some(up) = nodes[node].up.as_mut() else { return Ok(()) };
        if up.serving.is_empty() {
            return Ok(());
        }
        let fence = up.machine.fence();
        let Running { serving, .. } = &mut **up;
        serving.retain(|link, serve| serve.epoch == fence && net.is_open(*link));
        let mut packets = Vec::new();
        for (link, serve) in serving {
            while let Some(chunk) = serve.cursor.next_chunk(FRAME_AIM)? {
                serve.number += 1;
                packets.push((*link, Packet::Records(framed(serve, &chunk))));
            }
        }
        for (link, packet) in packets {
            self.send(link, node, packet);
        }
        Ok(())
    }

    /// The primary's news, to everybody it serves.
    pub(crate) fn beat(&mut self, node: usize) -> Result<(), WalError> {
        self.ship(node)?;
        let Some(up) = self.up(node) else { return Ok(()) };
        let Some((epoch, number, news)) = up.machine.heartbeat() else { return Ok(()) };
        let links: Vec<LinkId> = up.serving.keys().copied().collect();
        let packet = control(epoch, number, Body::Heartbeat(news));
        for link in links {
            self.send(link, node, packet.clone());
        }
        Ok(())
    }
}

fn framed(serve: &Serve, chunk: &Chunk) -> Bytes {
    let Serve { epoch, number, .. } = *serve;
    let header = Records { epoch, number, segment: chunk.segment, from: chunk.from }.encode();
    let mut frame = BytesMut::with_capacity(RECORDS_HEADER_LEN + chunk.bytes.len());
    frame.put(header);
    frame.put_slice(&chunk.bytes);
    frame.freeze()
}

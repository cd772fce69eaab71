//! Connections that carry records: a replica's and a candidate's side, and the sender's.

use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{Body, Frame, Hello, Purpose, Refusal, Welcome};
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{Decision, RoleView};

use super::Plant;
use super::disk::Rec;
use super::net::{LinkId, Packet};
use super::node::{Follow, LOG, Node, Phase, Serve, TIMING, index, name};
use super::world::{Event, World};

/// A connection that says nothing for so long is given up.
const SILENCE_MS: u64 = 8 * TIMING.heartbeat_ms;
const CHUNK: usize = 16;

fn control(epoch: Epoch, number: u64, body: Body) -> Packet {
    Packet::Control(Frame { log: LOG, epoch, number, body }.encode())
}

impl World {
    pub(crate) fn hello(&mut self, node: usize, peer: usize, purpose: Purpose) {
        if peer == node {
            return;
        }
        self.unfollow(node);
        let link = self.net.open(node, peer);
        let now_ms = self.now_ms;
        let Node { disk, up, .. } = &mut self.nodes[node];
        let Some(up) = up else { return };
        disk.durable = disk.records.len();
        up.machine.handle_flushed(disk.durable_end());
        let phase = Phase::Dialed;
        up.follow =
            Some(Follow { link, peer, purpose, phase, early: Vec::new(), heard_ms: now_ms });
        let hello = up.machine.hello(purpose);
        let packet = control(up.machine.fence(), 0, Body::Hello(Box::new(hello)));
        self.send(link, node, packet);
    }

    pub(crate) fn take_packet(&mut self, link: LinkId, to: usize, packet: Packet) {
        if !self.net.is_open(link) || self.nodes[to].up.is_none() {
            return self.net.close(link);
        }
        let zombie = self.up(to).and_then(|up| up.zombie).filter(|(of, _)| *of == link);
        if let (Some((_, epoch)), Packet::Records(_, records)) = (zombie, &packet) {
            return self.take_as_zombie(link, to, epoch, records);
        }
        match packet {
            Packet::Control(bytes) => {
                let frame = Frame::decode(&bytes).expect("what was encoded can be decoded");
                self.take_control(link, to, &frame);
            }
            Packet::Records(epoch, records) => self.take_records(link, to, epoch, records),
        }
    }

    fn take_control(&mut self, link: LinkId, to: usize, frame: &Frame) {
        let now_ms = self.now_ms;
        match &frame.body {
            Body::Hello(hello) => self.welcome(link, to, hello),
            Body::Welcome(welcome) => self.take_welcome(link, to, frame.epoch, welcome.clone()),
            Body::Ack(ack) => {
                let from = self.net.peer(link, to).expect("the connection is open");
                let up = self.up(to).expect("it runs");
                if up.machine.handle_ack(name(from), frame.epoch, ack, now_ms) {
                    self.ship(to);
                }
            }
            Body::Heartbeat(news) => {
                let up = self.up(to).expect("it runs");
                let Some(follow) = up.follow.as_mut().filter(|follow| follow.link == link) else {
                    return;
                };
                follow.heard_ms = now_ms;
                if up.machine.handle_heartbeat(frame, news, now_ms) {
                    self.acknowledge(to);
                }
            }
            other => panic!("{other:?} on a connection for records"),
        }
    }

    fn welcome(&mut self, link: LinkId, node: usize, hello: &Hello) {
        let now_ms = self.now_ms;
        let Node { disk, up, .. } = &mut self.nodes[node];
        let up = up.as_mut().expect("it runs");
        let mut answer = up.machine.handle_hello(hello, now_ms);
        let epoch = up.machine.fence();
        match &mut answer {
            Welcome::Stream { from: at, digest, until } => {
                *digest = disk.digest_at(*at).expect("logs match at a record's end");
                let until = until.map(|until| disk.count_to(until));
                up.serving.insert(link, Serve { epoch, sent: disk.count_to(*at), until });
            }
            Welcome::Truncate { to, digest } => {
                *digest = disk.digest_at(*to).expect("logs match at a record's end");
            }
            Welcome::Refuse(refusal, reason) => {
                let grave = matches!(refusal, Refusal::LostAcked | Refusal::Diverged);
                assert!(!grave, "a sound node was refused: {reason}");
            }
            _ => {}
        }
        self.send(link, node, control(epoch, 0, Body::Welcome(answer)));
        self.ship(node);
    }

    fn take_welcome(&mut self, link: LinkId, node: usize, epoch: Epoch, answer: Welcome) {
        let life = self.nodes[node].life;
        let Node { disk, up, .. } = &mut self.nodes[node];
        let up = up.as_mut().expect("it runs");
        let Some(follow) = up.follow.as_mut().filter(|follow| follow.link == link) else { return };
        let purpose = follow.purpose;
        let from = name(follow.peer);
        let decision = up.machine.handle_welcome(from, epoch, purpose, answer);
        match decision {
            Decision::Stream { from: at, digest, .. } | Decision::Cut { to: at, digest, .. } => {
                assert_eq!(disk.digest_at(at), Some(digest), "logs differ where they must match");
                follow.phase = Phase::Deciding(decision, false);
                self.soon(4, Event::Decide(node, life, link));
            }
            Decision::Quarantined(reason) => panic!("quarantined: {reason}"),
            Decision::Redial(Some(other)) if purpose == Purpose::Stream => {
                self.hello(node, index(other), purpose);
            }
            Decision::Redial(_) | Decision::Refused(..) | Decision::Snapshot { .. } => {
                self.unfollow(node);
            }
        }
    }

    /// A welcome is acted on: first the fence is written, then the log is touched.
    pub(crate) fn decide(&mut self, node: usize, link: LinkId) {
        let life = self.nodes[node].life;
        let Node { disk, up, .. } = &mut self.nodes[node];
        let up = up.as_mut().expect("it runs");
        let Some(follow) = up.follow.as_mut().filter(|follow| follow.link == link) else { return };
        let Phase::Deciding(decision, fenced) = &mut follow.phase else { return };
        let (Decision::Stream { epoch, .. } | Decision::Cut { epoch, .. }) = *decision else {
            return;
        };
        if !*fenced {
            if self.plant != Some(Plant::FenceNotWritten) {
                disk.fence = disk.fence.max(epoch);
            }
            *fenced = true;
            return self.soon(4, Event::Decide(node, life, link));
        }
        let (stream, decision) = (follow.purpose == Purpose::Stream, decision.clone());
        let fits = match stream {
            true => up.is_following() && up.machine.fence() <= epoch,
            false => up.machine.role() == RoleView::Candidate && up.machine.fence() == epoch,
        };
        if !fits {
            return self.unfollow(node);
        }
        match decision {
            Decision::Cut { to, .. } => self.cut(node, to),
            Decision::Stream { until, .. } => self.begin(node, epoch, until),
            _ => {}
        }
    }

    fn cut(&mut self, node: usize, to: Lsn) {
        let plant = self.plant;
        let Node { disk, up, .. } = &mut self.nodes[node];
        let up = up.as_mut().expect("it runs");
        let follow = up.follow.as_ref().expect("a cut is decided by a welcome");
        let (peer, purpose) = (follow.peer, follow.purpose);
        let deeper = disk.end_of(disk.count_to(to).saturating_sub(1));
        let to = if plant == Some(Plant::CutTooDeep) { deeper } else { to };
        assert!(to >= up.applied, "a cut to {to}, below what is applied ({})", up.applied);
        if plant == Some(Plant::CutNotMade) {
            let mut history = disk.history.clone();
            history.cut(to);
            up.machine.handle_cut(to, history, disk.terms());
        } else {
            disk.cut(to);
            up.machine.handle_cut(to, disk.history.clone(), disk.terms());
        }
        self.checks.cut(node, to);
        self.hello(node, peer, purpose);
    }

    fn begin(&mut self, node: usize, epoch: Epoch, until: Option<Lsn>) {
        let now_ms = self.now_ms;
        let up = self.up(node).expect("it runs");
        let follow = up.follow.as_mut().expect("a stream is decided by a welcome");
        let (link, peer) = (follow.link, follow.peer);
        follow.phase = Phase::Streaming { epoch, until };
        follow.heard_ms = now_ms;
        let early = std::mem::take(&mut follow.early);
        if follow.purpose == Purpose::Stream && !up.machine.begin_session(name(peer), epoch, now_ms)
        {
            return self.unfollow(node);
        }
        self.acknowledge(node);
        for packet in early {
            self.take_packet(link, node, packet);
        }
        self.end_fetch(node, link);
    }

    fn take_records(&mut self, link: LinkId, node: usize, epoch: Epoch, records: Vec<Rec>) {
        let now_ms = self.now_ms;
        let Node { disk, up, .. } = &mut self.nodes[node];
        let up = up.as_mut().expect("it runs");
        let Some(follow) = up.follow.as_mut().filter(|follow| follow.link == link) else { return };
        follow.heard_ms = now_ms;
        let Phase::Streaming { epoch: of, until } = follow.phase else {
            return follow.early.push(Packet::Records(epoch, records));
        };
        // A real receiver may look at the fence a moment before it appends.
        let takes = match follow.purpose {
            Purpose::Stream => up.machine.accepts(epoch) || self.rng.chance(50),
            _ => up.machine.role() == RoleView::Candidate && up.machine.fence() == of,
        };
        if epoch != of || !takes {
            return self.unfollow(node);
        }
        let fake = self.plant == Some(Plant::FetchNotMade) && until.is_some();
        for rec in records.iter().filter(|rec| !fake || rec.start.is_some()) {
            disk.receive(rec);
        }
        up.machine.handle_history(disk.history.clone(), disk.terms());
        up.machine.handle_appended(disk.end());
        self.start_flush(node);
        self.end_fetch(node, link);
    }

    fn take_as_zombie(&mut self, link: LinkId, node: usize, epoch: Epoch, records: &[Rec]) {
        let Node { disk, up, identity, .. } = &mut self.nodes[node];
        let up = up.as_mut().expect("it runs");
        if disk.history.last_epoch() != epoch {
            return;
        }
        let end = disk.end();
        disk.records.extend(records.iter().filter(|rec| rec.header.lsn >= end).cloned());
        disk.durable = disk.records.len();
        up.machine.handle_flushed(disk.end());
        let (end, applied) = (disk.end(), up.applied);
        let incarnation = identity.incarnation;
        let ack = towline_protocol::frame::Ack {
            incarnation,
            received: end,
            flushed: end,
            applied,
            seen: 0,
        };
        self.send(link, node, control(epoch, 0, Body::Ack(ack)));
    }

    /// A fetch is over once all of it is here; then it is flushed.
    fn end_fetch(&mut self, node: usize, link: LinkId) {
        let Node { disk, up, life, .. } = &self.nodes[node];
        let Some(follow) = up.as_ref().and_then(|up| up.follow.as_ref()) else { return };
        let Phase::Streaming { until: Some(until), .. } = follow.phase else { return };
        let (done, life) = (disk.end() >= until, *life);
        if done || self.plant == Some(Plant::FetchNotMade) {
            self.soon(6, Event::Fetched(node, life, link));
        }
    }

    pub(crate) fn fetched(&mut self, node: usize, link: LinkId) {
        let now_ms = self.now_ms;
        let lie = self.plant == Some(Plant::FetchNotMade);
        let Node { disk, up, .. } = &mut self.nodes[node];
        let up = up.as_mut().expect("it runs");
        let Some(follow) = up.follow.take_if(|follow| follow.link == link) else { return };
        disk.durable = disk.records.len();
        let end = match follow.phase {
            Phase::Streaming { until: Some(until), .. } if lie => until,
            _ => disk.durable_end(),
        };
        up.machine.handle_history(disk.history.clone(), disk.terms());
        up.machine.handle_fetched(end, now_ms);
        self.net.close(link);
    }

    /// Ends the connection this node takes records from.
    pub(crate) fn unfollow(&mut self, node: usize) {
        let now_ms = self.now_ms;
        let Some(up) = self.up(node) else { return };
        let Some(follow) = up.follow.take() else { return };
        if let Phase::Streaming { epoch, .. } = follow.phase {
            up.machine.end_session(name(follow.peer), epoch);
        }
        if let Purpose::Fetch(epoch) = follow.purpose {
            up.machine.handle_fetch_failed(epoch, "the connection broke".to_owned(), now_ms);
        }
        self.net.close(follow.link);
    }

    pub(crate) fn drop_silent(&mut self, node: usize) {
        let now_ms = self.now_ms;
        let open = |world: &Self, link| world.net.is_open(link);
        let Some(follow) = self.nodes[node].up.as_ref().and_then(|up| up.follow.as_ref()) else {
            return;
        };
        let silent = now_ms.saturating_sub(follow.heard_ms) > SILENCE_MS;
        if silent || !open(self, follow.link) {
            self.unfollow(node);
        }
    }

    pub(crate) fn close_served(&mut self, node: usize) {
        let Some(up) = self.up(node) else { return };
        for link in std::mem::take(&mut up.serving).into_keys() {
            if self.plant != Some(Plant::AckAfterFence) {
                self.net.close(link);
            }
        }
    }

    /// Sends every peer the records it has not been sent, whether they are flushed here or not.
    pub(crate) fn ship(&mut self, node: usize) {
        let Node { disk, up, .. } = &mut self.nodes[node];
        let Some(up) = up else { return };
        let fence = up.machine.fence();
        let mut packets = Vec::new();
        up.serving.retain(|link, serve| serve.epoch == fence && self.net.is_open(*link));
        for (link, serve) in &mut up.serving {
            let end = serve.until.unwrap_or(disk.records.len());
            for chunk in disk.records[serve.sent.min(end)..end].chunks(CHUNK) {
                packets.push((*link, Packet::Records(serve.epoch, chunk.to_vec())));
            }
            serve.sent = end;
        }
        for (link, packet) in packets {
            self.send(link, node, packet);
        }
    }

    /// The primary's news, to everybody it serves.
    pub(crate) fn beat(&mut self, node: usize) {
        self.ship(node);
        let Some(up) = self.up(node) else { return };
        let Some((epoch, number, news)) = up.machine.heartbeat() else { return };
        let links: Vec<LinkId> = up.serving.keys().copied().collect();
        for link in links {
            self.send(link, node, control(epoch, number, Body::Heartbeat(news)));
        }
    }

    pub(crate) fn acknowledge(&mut self, node: usize) {
        let Node { disk, up, .. } = &self.nodes[node];
        let Some(up) = up else { return };
        let Some(link) = up.follow.as_ref().map(|follow| follow.link) else { return };
        let Some((epoch, ack)) = up.machine.ack() else { return };
        let honest = self.plant.is_some() || ack.flushed <= disk.durable_end();
        assert!(honest, "an ack of {} with {} on disk", ack.flushed, disk.durable_end());
        self.send(link, node, control(epoch, 0, Body::Ack(ack)));
    }
}

//! Connections that carry records: the side of the replica, or of the candidate that fetches.

use bytes::Bytes;
use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{Ack, Body, Frame, Purpose, Records, Welcome};
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{Decision, RoleView};
use towline_wal::{Level, WalError};

use crate::Plant;
use crate::net::{LinkId, Packet};
use crate::node::{Follow, LOG, Phase, TIMING, index, name};
use crate::world::{Event, World};

/// A connection that says nothing for so long is given up.
const SILENCE_MS: u64 = 8 * TIMING.heartbeat_ms;

pub(crate) fn control(epoch: Epoch, number: u64, body: Body) -> Packet {
    Packet::Control(Frame { log: LOG, epoch, number, body }.encode())
}

impl World {
    pub(crate) fn hello(
        &mut self,
        node: usize,
        peer: usize,
        purpose: Purpose,
    ) -> Result<(), WalError> {
        if peer == node {
            return Ok(());
        }
        self.unfollow(node);
        let link = self.net.open(node, peer);
        let now_ms = self.now_ms;
        let up = self.running(node);
        let flushed = up.wal.flush()?;
        up.machine.handle_flushed(flushed);
        let phase = Phase::Dialed;
        up.follow =
            Some(Follow { link, peer, purpose, phase, early: Vec::new(), heard_ms: now_ms });
        let hello = up.machine.hello(purpose);
        let packet = control(up.machine.fence(), 0, Body::Hello(Box::new(hello)));
        self.send(link, node, packet);
        Ok(())
    }

    pub(crate) fn take_packet(
        &mut self,
        link: LinkId,
        to: usize,
        packet: Packet,
    ) -> Result<(), WalError> {
        let arrives = self.net.is_open(link) || self.nodes[to].wakes;
        if !arrives || self.nodes[to].up.is_none() {
            self.net.close(link);
            return Ok(());
        }
        match packet {
            Packet::Control(bytes) => {
                let frame = Frame::decode(&bytes).expect("what was encoded can be decoded");
                self.say(|_| format!("n{to} link {link} takes {:?}", frame.body));
                self.take_control(link, to, &frame)
            }
            Packet::Records(bytes) => {
                let zombie = self.running(to).zombie.filter(|(of, _)| *of == link);
                match zombie {
                    Some((_, epoch)) => self.take_as_zombie(link, to, epoch, &bytes),
                    None => self.take_records(link, to, bytes),
                }
            }
        }
    }

    fn take_control(&mut self, link: LinkId, to: usize, frame: &Frame) -> Result<(), WalError> {
        let (true_ms, now_ms) = (self.now_ms, self.local_ms(to));
        match &frame.body {
            Body::Hello(hello) => self.welcome(link, to, hello)?,
            Body::Welcome(welcome) => {
                self.take_welcome(link, to, frame.epoch, welcome.clone())?;
            }
            Body::Ack(ack) => {
                let from = self.net.peer(link, to).expect("the connection is open");
                if self.running(to).machine.handle_ack(name(from), frame.epoch, ack, now_ms) {
                    self.ship(to)?;
                }
            }
            Body::Heartbeat(news) => {
                let up = self.running(to);
                let Some(follow) = up.follow.as_mut().filter(|follow| follow.link == link) else {
                    return Ok(());
                };
                follow.heard_ms = true_ms;
                let streams = matches!(follow.phase, Phase::Streaming { until: None, .. });
                if up.machine.handle_heartbeat(frame, news, now_ms) {
                    self.acknowledge(to);
                } else if streams {
                    self.unfollow(to); // It campaigned meanwhile; it dials again.
                }
            }
            other => panic!("{other:?} on a connection for records"),
        }
        Ok(())
    }

    fn take_welcome(
        &mut self,
        link: LinkId,
        node: usize,
        epoch: Epoch,
        answer: Welcome,
    ) -> Result<(), WalError> {
        let life = self.nodes[node].life;
        let up = self.running(node);
        let Some(follow) = up.follow.as_mut().filter(|follow| follow.link == link) else {
            return Ok(());
        };
        let purpose = follow.purpose;
        let from = name(follow.peer);
        let decision = up.machine.handle_welcome(from, epoch, purpose, answer);
        match decision {
            Decision::Stream { from: at, digest, .. } | Decision::Cut { to: at, digest, .. } => {
                let own = up.wal.digest_at(at)?;
                assert_eq!(own, digest, "logs differ where they must match, at {at}");
                if let Some(follow) = &mut up.follow {
                    follow.phase = Phase::Deciding(decision, false);
                }
                self.soon(4, Event::Decide(node, life, link));
            }
            Decision::Quarantined(reason) => {
                assert!(self.checks.is_given_up(node), "quarantined: {reason}");
                self.unfollow(node);
            }
            Decision::Redial(Some(other)) if purpose == Purpose::Stream => {
                self.hello(node, index(other), purpose)?;
            }
            Decision::Refused(refusal, _) => {
                self.nodes[node].refused = Some(refusal);
                self.unfollow(node);
            }
            Decision::Redial(_) | Decision::Snapshot { .. } => self.unfollow(node),
        }
        Ok(())
    }

    /// A welcome is acted on: first the fence is written, then the log is touched.
    pub(crate) fn decide(&mut self, node: usize, link: LinkId) -> Result<(), WalError> {
        let life = self.nodes[node].life;
        let writes_fence = self.plant != Some(Plant::FenceNotWritten);
        let up = self.running(node);
        let Some(follow) = up.follow.as_mut().filter(|follow| follow.link == link) else {
            return Ok(());
        };
        let Phase::Deciding(decision, fenced) = &mut follow.phase else { return Ok(()) };
        let (Decision::Stream { epoch, .. } | Decision::Cut { epoch, .. }) = *decision else {
            return Ok(());
        };
        if !*fenced {
            *fenced = true;
            if writes_fence {
                up.persist_fence(epoch)?;
                up.machine.handle_adopted(epoch);
            }
            self.soon(4, Event::Decide(node, life, link));
            return Ok(());
        }
        let (stream, decision) = (follow.purpose == Purpose::Stream, decision.clone());
        let fits = match stream {
            true => up.is_following() && up.machine.fence() <= epoch,
            false => up.tries(epoch),
        };
        match decision {
            Decision::Cut { to, .. } if fits => self.cut(node, to),
            Decision::Stream { until, .. } if fits => self.begin(node, epoch, until),
            _ => {
                self.unfollow(node);
                Ok(())
            }
        }
    }

    fn cut(&mut self, node: usize, to: Lsn) -> Result<(), WalError> {
        let plant = self.plant;
        let up = self.running(node);
        let follow = up.follow.as_ref().expect("a cut is decided by a welcome");
        let (peer, purpose) = (follow.peer, follow.purpose);
        let to = match plant {
            Some(Plant::CutTooDeep) => self.checks.end_before(node, to),
            _ => to,
        };
        self.unfollow(node);
        self.close_served(node);
        self.checks.cut(node, to);
        let up = self.running(node);
        if plant == Some(Plant::CutNotMade) {
            let mut history = up.wal.history();
            history.cut(to);
            let terms = up.wal.terms();
            up.machine.handle_cut(to, history, terms);
        } else {
            up.wal.shutdown()?;
            self.nodes[node].store.cut(to)?;
            let wal = self.nodes[node].store.open()?;
            let up = self.running(node);
            up.applier = wal.cursor(up.engine.applied, Level::Appended)?;
            up.wal = wal;
            up.flushing = false;
            up.machine.handle_cut(to, up.wal.history(), up.wal.terms());
            let (life, wal) = (self.nodes[node].life, self.running(node).wal.clone());
            self.nodes[node].life = life;
            self.checks.reopened(node, &wal);
        }
        self.hello(node, peer, purpose)
    }

    fn begin(&mut self, node: usize, epoch: Epoch, until: Option<Lsn>) -> Result<(), WalError> {
        let (true_ms, now_ms) = (self.now_ms, self.local_ms(node));
        let up = self.running(node);
        let follow = up.follow.as_mut().expect("a stream is decided by a welcome");
        let (link, peer) = (follow.link, follow.peer);
        follow.phase = Phase::Streaming { epoch, until };
        follow.heard_ms = true_ms;
        let early = std::mem::take(&mut follow.early);
        let streams = follow.purpose == Purpose::Stream;
        if streams && !up.machine.begin_session(name(peer), epoch, now_ms) {
            self.unfollow(node);
            return Ok(());
        }
        self.acknowledge(node);
        for packet in early {
            self.take_packet(link, node, packet)?;
        }
        self.end_fetch(node, link);
        Ok(())
    }

    fn take_records(&mut self, link: LinkId, node: usize, bytes: Bytes) -> Result<(), WalError> {
        let true_ms = self.now_ms;
        let careless = self.rng.chance(50);
        let fake = self.plant == Some(Plant::FetchNotMade);
        let up = self.running(node);
        let Some(follow) = up.follow.as_mut().filter(|follow| follow.link == link) else {
            return Ok(());
        };
        follow.heard_ms = true_ms;
        let Phase::Streaming { epoch: of, until } = follow.phase else {
            follow.early.push(Packet::Records(bytes));
            return Ok(());
        };
        let (records, chunk) = Records::decode(&bytes).expect("what was encoded can be decoded");
        let (peer, purpose) = (follow.peer, follow.purpose);
        // A real receiver may look at the fence a moment before it appends.
        let takes = match purpose {
            Purpose::Stream => up.machine.accepts(records.epoch) || careless,
            _ => up.tries(of),
        };
        if records.epoch != of || !takes {
            self.unfollow(node);
            return Ok(());
        }
        if fake && until.is_some() {
            self.end_fetch(node, link);
            return Ok(());
        }
        let before = up.wal.last_epoch();
        match up.wal.receive(records.segment, records.from, &chunk) {
            // What rotted at the peer is noticed here, and kept out.
            Err(WalError::Record { .. }) if self.nodes[peer].store.rotten => {
                self.unfollow(node);
                return Ok(());
            }
            received => received?,
        };
        let up = self.running(node);
        if up.wal.last_epoch() != before {
            up.learn();
        }
        let end = up.wal.appended();
        up.machine.handle_appended(end);
        self.start_flush(node);
        self.end_fetch(node, link);
        Ok(())
    }

    fn take_as_zombie(
        &mut self,
        link: LinkId,
        node: usize,
        epoch: Epoch,
        bytes: &Bytes,
    ) -> Result<(), WalError> {
        let up = self.running(node);
        if up.wal.last_epoch() != epoch {
            return Ok(());
        }
        let (records, chunk) = Records::decode(bytes).expect("what was encoded can be decoded");
        if up.wal.receive(records.segment, records.from, &chunk).is_err() {
            return Ok(());
        }
        let flushed = up.wal.flush()?;
        up.machine.handle_flushed(flushed);
        let incarnation = up.machine.identity().incarnation;
        let applied = up.engine.applied;
        let ack = Ack { incarnation, received: flushed, flushed, applied, seen: 0 };
        self.send(link, node, control(epoch, 0, Body::Ack(ack)));
        Ok(())
    }

    /// A fetch is over once all of it is here; then it is flushed.
    fn end_fetch(&mut self, node: usize, link: LinkId) {
        let life = self.nodes[node].life;
        let fake = self.plant == Some(Plant::FetchNotMade);
        let up = self.running(node);
        let Some(follow) = &up.follow else { return };
        let Phase::Streaming { until: Some(until), .. } = follow.phase else { return };
        if fake || up.wal.appended() >= until {
            self.soon(6, Event::Fetched(node, life, link));
        }
    }

    pub(crate) fn fetched(&mut self, node: usize, link: LinkId) -> Result<(), WalError> {
        let now_ms = self.local_ms(node);
        let fake = self.plant == Some(Plant::FetchNotMade);
        let up = self.running(node);
        let Some(follow) = up.follow.take_if(|follow| follow.link == link) else { return Ok(()) };
        let flushed = up.wal.flush()?;
        let end = match follow.phase {
            Phase::Streaming { until: Some(until), .. } if fake => until,
            _ => flushed,
        };
        up.learn();
        up.machine.handle_fetched(end, now_ms);
        self.net.close(link);
        Ok(())
    }

    /// Ends the connection this node takes records from.
    pub(crate) fn unfollow(&mut self, node: usize) {
        let now_ms = self.local_ms(node);
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
        let Some(follow) = self.nodes[node].up.as_ref().and_then(|up| up.follow.as_ref()) else {
            return;
        };
        let silent = self.now_ms.saturating_sub(follow.heard_ms) > SILENCE_MS;
        if silent || !self.net.is_open(follow.link) {
            self.unfollow(node);
        }
    }

    pub(crate) fn acknowledge(&mut self, node: usize) {
        let Some(up) = &self.nodes[node].up else { return };
        let Some(link) = up.follow.as_ref().map(|follow| follow.link) else { return };
        let Some((epoch, ack)) = up.machine.ack() else { return };
        let honest = self.plant.is_some() || ack.flushed <= up.wal.flushed();
        assert!(honest, "an ack of {} with {} on disk", ack.flushed, up.wal.flushed());
        self.send(link, node, control(epoch, 0, Body::Ack(ack)));
    }

    /// The first words of a replica without a primary.
    pub(crate) fn dial(&mut self, node: usize) -> Result<(), WalError> {
        let follow_heard = self.rng.chance(70);
        let peers = self.nodes[node].peers.len() as u64;
        if peers == 0 {
            return Ok(());
        }
        let random = self.nodes[node].peers[self.rng.below(peers) as usize];
        let up = self.running(node);
        let free = up.follow.is_none() && up.current.is_none() && up.actions.is_empty();
        if !free || up.machine.role() != (RoleView::Replica { streaming: false }) {
            return Ok(());
        }
        let heard = up.machine.primary().map(index).filter(|_| follow_heard);
        self.hello(node, heard.unwrap_or(random), Purpose::Stream)
    }
}

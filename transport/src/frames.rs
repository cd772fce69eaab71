//! Frames over a stream: a length, four bytes little endian, and that many bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

use crate::error::Closed;

pub use towline_protocol::frame::{CONTROL_FRAME_MAX, RECORDS_FRAME_MAX};

/// What a receiver sets aside for a frame before its bytes arrive, in bytes. Past it, the buffer
/// grows with what arrived, so a length that lies costs a peer as much as it costs this node.
pub const RECEIVE_STEP: usize = 256 << 10;

const HEADER: usize = 4;
/// Frames up to this size are copied into one chunk with their header, in bytes.
const COALESCED_MAX: usize = 1024;
/// Received chunks taken from the connection at once.
const CHUNKS: usize = 32;

/// A frame was not sent or not received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is longer than it may be.
    #[error("a frame of {len} bytes is over the bound of {max}")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The bound, in bytes.
        max: usize,
    },
    /// The stream ended inside it.
    #[error("the stream ended inside a frame, after {got} of its bytes (header included)")]
    Truncated {
        /// How much of it arrived, in bytes.
        got: usize,
    },
    /// The peer ended the stream with a code.
    #[error("the peer gave the stream up with code {0}")]
    Reset(u64),
    /// A send before this one was cancelled half-way, or the stream was ended by this side.
    #[error("the stream was ended here, or a frame was left half sent")]
    Ended,
    /// The connection ended.
    #[error("the connection is gone: {0}")]
    Closed(Closed),
}

/// Sends frames. Dropping it ends the stream behind the last byte.
#[derive(Debug)]
pub struct FrameSender {
    stream: SendStream,
    interrupted: bool,
}

impl FrameSender {
    pub(crate) const fn new(stream: SendStream) -> Self {
        Self { stream, interrupted: false }
    }

    /// Sends one frame made of `parts`, without copying large ones. Waits while the peer's window
    /// is full.
    ///
    /// Not cancel-safe: after a cancelled send, every other one is [`FrameError::Ended`], so the
    /// peer sees a truncated frame and never a wrong one.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn send(&mut self, parts: &[Bytes]) -> Result<(), FrameError> {
        let len = parts.iter().map(Bytes::len).sum();
        if len > RECORDS_FRAME_MAX {
            let max = RECORDS_FRAME_MAX;
            return Err(FrameError::TooLarge { len, max });
        }
        if self.interrupted {
            return Err(FrameError::Ended);
        }
        let coalesced = len <= COALESCED_MAX;
        let mut head = BytesMut::with_capacity(if coalesced { HEADER + len } else { HEADER });
        head.put_u32_le(len as u32);
        let mut chunks = Vec::with_capacity(1 + parts.len());
        if coalesced {
            parts.iter().for_each(|part| head.put_slice(part));
            chunks.push(head.freeze());
        } else {
            chunks.push(head.freeze());
            chunks.extend_from_slice(parts);
        }
        self.interrupted = true;
        self.stream.write_all_chunks(&mut chunks).await.map_err(|error| match error {
            WriteError::Stopped(code) => FrameError::Reset(code.into_inner()),
            WriteError::ConnectionLost(lost) => FrameError::Closed(Closed::from(&lost)),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => FrameError::Ended,
        })?;
        self.interrupted = false;
        Ok(())
    }

    /// Ends the stream behind what was sent; the peer's receiver gets `None` then.
    pub fn finish(&mut self) {
        // Already ended is as good.
        let _ = self.stream.finish();
        self.interrupted = true;
    }

    /// Gives the stream up: what the peer has not received yet is dropped.
    pub fn reset(&mut self, code: u32) {
        let _ = self.stream.reset(VarInt::from_u32(code));
        self.interrupted = true;
    }
}

/// Receives frames.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: RecvStream,
    assembly: Assembly,
}

impl FrameReceiver {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, assembly: Assembly::default() }
    }

    /// The next frame, of at most `max_len` bytes; `None` once the peer finished the stream.
    ///
    /// Cancel-safe: what arrived of a frame is kept for the next call.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is of no use after one.
    pub async fn recv(&mut self, max_len: usize) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.assembly.next(max_len)? {
                return Ok(Some(frame));
            }
            let read = self.stream.read_chunks(&mut self.assembly.chunks).await;
            match read {
                Ok(Some(count)) => self.assembly.refilled(count),
                Ok(None) => return self.assembly.end().map(|()| None),
                Err(ReadError::Reset(code)) => return Err(FrameError::Reset(code.into_inner())),
                Err(ReadError::ConnectionLost(lost)) => {
                    return Err(FrameError::Closed(Closed::from(&lost)));
                }
                Err(_) => return Err(FrameError::Ended),
            }
        }
    }

    /// Tells the peer that no more will be read.
    pub fn stop(&mut self, code: u32) {
        // Already ended is as good.
        let _ = self.stream.stop(VarInt::from_u32(code));
    }
}

/// Puts frames together from the chunks a stream hands out.
#[derive(Debug, Default)]
struct Assembly {
    chunks: [Bytes; CHUNKS],
    next: usize,
    filled: usize,
    header: [u8; HEADER],
    header_len: usize,
    body: BytesMut,
}

impl Assembly {
    fn refilled(&mut self, count: usize) {
        debug_assert_eq!(self.next, self.filled, "chunks would be lost");
        (self.next, self.filled) = (0, count);
    }

    fn next(&mut self, max: usize) -> Result<Option<Bytes>, FrameError> {
        while self.next < self.filled {
            let chunk = &mut self.chunks[self.next];
            let taken = chunk.len().min(HEADER - self.header_len);
            self.header[self.header_len..self.header_len + taken].copy_from_slice(&chunk[..taken]);
            self.header_len += taken;
            chunk.advance(taken);
            if self.header_len == HEADER {
                let len = u32::from_le_bytes(self.header) as usize;
                if len > max {
                    return Err(FrameError::TooLarge { len, max });
                }
                let taken = chunk.len().min(len - self.body.len());
                grow(&mut self.body, taken, len);
                self.body.extend_from_slice(&chunk[..taken]);
                chunk.advance(taken);
                if self.body.len() == len {
                    self.header_len = 0;
                    return Ok(Some(std::mem::take(&mut self.body).freeze()));
                }
            }
            if chunk.is_empty() {
                // Not kept: it may pin a whole batch of packets.
                *chunk = Bytes::new();
                self.next += 1;
            }
        }
        Ok(None)
    }

    fn end(&self) -> Result<(), FrameError> {
        match self.header_len + self.body.len() {
            0 => Ok(()),
            got => Err(FrameError::Truncated { got }),
        }
    }
}

/// Makes room for `more` bytes of a frame of `len`: doubling, never past its end.
fn grow(body: &mut BytesMut, more: usize, len: usize) {
    let have = body.len();
    if body.capacity() - have < more {
        let room = (2 * have).max(RECEIVE_STEP).max(have + more).min(len);
        body.reserve(room - have);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(assembly: &mut Assembly, chunk: &[u8]) {
        assembly.chunks[0] = Bytes::copy_from_slice(chunk);
        assembly.refilled(1);
    }

    #[test]
    fn frames_come_together_however_they_are_cut() {
        let mut stream = Vec::new();
        for len in [0_usize, 1, 5, 300] {
            stream.extend_from_slice(&(len as u32).to_le_bytes());
            stream.extend(std::iter::repeat_n(len as u8, len));
        }
        for cut in 1..stream.len() {
            let mut assembly = Assembly::default();
            let mut lens = Vec::new();
            for chunk in stream.chunks(cut) {
                feed(&mut assembly, chunk);
                while let Some(frame) = assembly.next(300).unwrap() {
                    assert!(frame.iter().all(|&byte| byte == frame.len() as u8));
                    lens.push(frame.len());
                }
            }
            assert_eq!(lens, [0, 1, 5, 300], "cut every {cut}");
            assert_eq!(assembly.end(), Ok(()));
        }
    }

    #[test]
    fn a_length_that_lies_costs_no_memory() {
        let mut assembly = Assembly::default();
        feed(&mut assembly, &u32::MAX.to_le_bytes());
        let refused = assembly.next(CONTROL_FRAME_MAX).unwrap_err();
        assert!(matches!(refused, FrameError::TooLarge { .. }));
        assert_eq!(assembly.body.capacity(), 0);

        let mut assembly = Assembly::default();
        feed(&mut assembly, &(RECORDS_FRAME_MAX as u32).to_le_bytes());
        assert_eq!(assembly.next(RECORDS_FRAME_MAX), Ok(None));
        let mut sent = 0;
        while sent < 4 << 20 {
            feed(&mut assembly, &[0; 1400]);
            assert_eq!(assembly.next(RECORDS_FRAME_MAX), Ok(None));
            sent += 1400;
            assert!(assembly.body.capacity() <= 2 * sent + RECEIVE_STEP);
        }
        assert_eq!(assembly.end(), Err(FrameError::Truncated { got: sent + HEADER }));
    }
}

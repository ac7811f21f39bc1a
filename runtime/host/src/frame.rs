//! What goes over a connection once a command is attached to a workload, or to a further process in a
//! sandbox: pieces of its streams, each behind five bytes that say which and how long; and the end of such a
//! connection that never waits.

use sbx_core::Exit;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Bytes in front of a piece: its kind, and its length (big-endian).
const HEAD: usize = 5;
/// The longest piece.
const LONGEST: usize = 1 << 20;

/// A piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To the workload's standard input.
    Input(Vec<u8>),
    /// There is no more input.
    InputEnd,
    /// The attached terminal's size: columns and lines.
    Size(u16, u16),
    /// A signal for the workload, by Linux' number.
    Signal(i32),
    /// From its standard output.
    Output(Vec<u8>),
    /// From its standard error.
    Error(Vec<u8>),
    /// It has ended.
    End(End),
}

/// How a workload ended, for those who are attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The reason.
    pub exit: Exit,
    /// Sentences worth telling, that reason's own not among them.
    pub notes: Vec<String>,
}

/// A connection that does not speak so.
#[derive(Debug, thiserror::Error)]
#[error("the other end of the connection does not speak sbx's language")]
pub struct Garbled;

impl Frame {
    /// The piece as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let words = |a: u16, b: u16| [a.to_be_bytes(), b.to_be_bytes()].concat();
        let (kind, body) = match self {
            Self::Input(bytes) => (0, bytes.clone()),
            Self::InputEnd => (1, Vec::new()),
            Self::Size(columns, lines) => (2, words(*columns, *lines)),
            Self::Signal(number) => (3, number.to_be_bytes().to_vec()),
            Self::Output(bytes) => (4, bytes.clone()),
            Self::Error(bytes) => (5, bytes.clone()),
            Self::End(end) => (6, serde_json::to_vec(end).unwrap_or_default()),
        };
        let mut frame = vec![kind];
        frame.extend((body.len() as u32).to_be_bytes());
        frame.extend(body);
        frame
    }

    fn decode(kind: u8, body: &[u8]) -> Result<Self, Garbled> {
        Ok(match (kind, body) {
            (0, _) => Self::Input(body.into()),
            (1, []) => Self::InputEnd,
            (2, [a, b, c, d]) => {
                Self::Size(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
            }
            (3, [a, b, c, d]) => Self::Signal(i32::from_be_bytes([*a, *b, *c, *d])),
            (4, _) => Self::Output(body.into()),
            (5, _) => Self::Error(body.into()),
            (6, _) => Self::End(serde_json::from_slice(body).map_err(|_| Garbled)?),
            _ => return Err(Garbled),
        })
    }
}

/// Takes pieces out of what was received.
#[derive(Debug, Default)]
pub struct Decoder(Vec<u8>);

impl Decoder {
    /// Takes what was received.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// How much was received and is no whole piece yet.
    pub fn waiting(&self) -> usize {
        self.0.len()
    }

    /// The next piece that is whole.
    ///
    /// # Errors
    /// When that is none.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Garbled> {
        let Some(head) = self.0.first_chunk::<HEAD>() else { return Ok(None) };
        let [kind, a, b, c, d] = *head;
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > LONGEST {
            return Err(Garbled);
        }
        let Some(body) = self.0.get(HEAD..HEAD + len) else { return Ok(None) };
        let frame = Frame::decode(kind, body)?;
        self.0.drain(..HEAD + len);
        Ok(Some(frame))
    }
}

/// An end of a connection that never waits: what the other does not read is kept, and how much that may
/// be is for the owner to see to.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    input: Decoder,
    out: VecDeque<u8>,
    gone: bool,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Connection {
    /// The connection over a stream that does not block.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, input: Decoder::default(), out: VecDeque::new(), gone: false }
    }

    /// Whether the other end is gone, or has sent what is no piece.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// How many bytes the other has yet to read.
    pub fn owed(&self) -> usize {
        self.out.len()
    }

    /// How many bytes have come that are no whole piece yet, or were not asked for.
    pub fn waiting(&self) -> usize {
        self.input.waiting()
    }

    /// Sends a piece, as far as the other end takes it now.
    pub fn send(&mut self, frame: &Frame) {
        self.send_raw(&frame.encode());
    }

    /// Sends what is no piece, or one that is encoded already.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.out.extend(bytes);
        self.flush();
    }

    /// A line that has come in place of pieces, without its end.
    pub fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.input.0.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.input.0.drain(..=end).collect();
        line.pop();
        Some(line)
    }

    /// The stream, for another who goes on with it.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn stream(&self) -> std::io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// Goes on with what waits.
    pub fn flush(&mut self) {
        while let (piece @ [_, ..], _) = self.out.as_slices() {
            match self.stream.write(piece) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.gone = true;
                    self.out.clear();
                }
            }
        }
    }

    /// Reads once what has come.
    pub fn receive(&mut self) {
        let mut room = [0; 16 << 10];
        match self.stream.read(&mut room) {
            Ok(count @ 1..) => self.input.add(&room[..count]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => self.gone = true,
        }
    }

    /// Puts a piece back that cannot be made use of yet.
    pub fn put_back(&mut self, frame: &Frame) {
        self.input.0.splice(0..0, frame.encode());
    }

    /// The next piece that has come.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.input.next_frame().unwrap_or_else(|_| {
            self.gone = true;
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received_however_it_is_cut() {
        let frames = [
            Frame::Input(b"typed".to_vec()),
            Frame::InputEnd,
            Frame::Size(80, 25),
            Frame::Signal(15),
            Frame::Output(vec![0, 255]),
            Frame::Error(Vec::new()),
            Frame::End(End { exit: Exit::Code(3), notes: vec!["a".into()] }),
        ];
        let all: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for piece in [1, 3, all.len()] {
            let (mut decoder, mut received) = (Decoder::default(), Vec::new());
            for bytes in all.chunks(piece) {
                decoder.add(bytes);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    received.push(frame);
                }
            }
            assert_eq!((received.as_slice(), decoder.waiting()), (frames.as_slice(), 0));
        }
    }

    #[test]
    fn what_is_no_piece_is_refused() {
        for wrong in
            [&[9, 0, 0, 0, 0][..], &[2, 0, 0, 0, 1, 0], &[0, 255, 0, 0, 0], &[6, 0, 0, 0, 1, b'x']]
        {
            let mut decoder = Decoder::default();
            decoder.add(wrong);
            assert!(decoder.next_frame().is_err(), "{wrong:?}");
        }
    }
}

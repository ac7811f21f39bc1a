//! Frames: how messages follow each other in a stream of bytes.
//!
//! A frame is the length of the message in four bytes, lowest first, and the message. The length counts
//! only the message and is from 1 to [`Message::MAX`].

use alloc::vec::Vec;
use core::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes before each message.
const HEADER: usize = 4;

/// How much room the decoder offers while it does not know of a longer message.
const ROOM: usize = 16 << 10;

/// What can be sent one way.
pub trait Message: Serialize + DeserializeOwned {
    /// The longest encoding in bytes.
    const MAX: usize;
}

/// Why bytes are no frame, or a message cannot become one. After any of these from a [`Decoder`] the
/// stream is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The message is longer than its direction allows.
    #[error("a message of {length} bytes is longer than the {max} allowed")]
    TooLong {
        /// What it would be, in bytes.
        length: usize,
        /// What it may be, in bytes.
        max: usize,
    },
    /// The bytes mean no message.
    #[error("the bytes are no message")]
    Malformed,
}

/// Appends the frame of `message` to `to`.
///
/// # Errors
/// When the message is too long; `to` is then as it was.
pub fn encode<M: Message>(message: &M, to: &mut Vec<u8>) -> Result<(), Error> {
    let start = to.len();
    to.extend_from_slice(&[0; HEADER]);
    let mut all = match postcard::to_extend(message, core::mem::take(to)) {
        Ok(all) => all,
        // Nothing that these messages hold can fail to be written to memory.
        Err(_) => return Err(Error::Malformed),
    };
    let length = all.len() - start - HEADER;
    let result = match u32::try_from(length) {
        Ok(header) if length <= M::MAX => {
            all[start..start + HEADER].copy_from_slice(&header.to_le_bytes());
            Ok(())
        }
        _ => {
            all.truncate(start);
            Err(Error::TooLong { length, max: M::MAX })
        }
    };
    *to = all;
    result
}

/// Takes a stream of bytes apart into messages. It keeps at most one frame of [`Message::MAX`] bytes and
/// 16 KiB.
#[derive(Debug)]
pub struct Decoder<M> {
    /// Bytes that came, from `start` to `end`; room after them.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    message: PhantomData<M>,
}

impl<M: Message> Default for Decoder<M> {
    fn default() -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0, message: PhantomData }
    }
}

impl<M: Message> Decoder<M> {
    /// Where the next bytes go. Never empty if [`Decoder::next`] last returned nothing.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // A length that is not allowed is refused by `next`; until then it asks for no room.
        let frame = self.length().filter(|&length| length <= M::MAX).unwrap_or(0) + HEADER;
        let size = frame.max(ROOM);
        // A long frame's room is not kept for ever.
        if self.buffer.len() < size || self.buffer.len() > size.max(self.end) {
            self.buffer.resize(size.max(self.end), 0);
            self.buffer.shrink_to(size);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes of the room were filled.
    pub fn filled(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.buffer.len());
    }

    /// The next message, if all of it came.
    ///
    /// # Errors
    /// When the bytes are no message; the stream is then of no more use.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<M>, Error> {
        let Some(length) = self.length() else { return Ok(None) };
        if length > M::MAX {
            return Err(Error::TooLong { length, max: M::MAX });
        }
        let begin = self.start + HEADER;
        let Some(body) = self.buffer[..self.end].get(begin..begin + length) else {
            return Ok(None);
        };
        let (message, rest) = postcard::take_from_bytes(body).map_err(|_| Error::Malformed)?;
        if !rest.is_empty() {
            return Err(Error::Malformed);
        }
        self.start = begin + length;
        Ok(Some(message))
    }

    /// The length of the message that comes next, if known.
    fn length(&self) -> Option<usize> {
        let (header, _) = self.buffer[self.start..self.end].split_first_chunk::<HEADER>()?;
        usize::try_from(u32::from_le_bytes(*header)).ok()
    }
}

/// Bytes in one piece, where serde would take each as a number of its own.
pub(crate) mod bytes {
    use alloc::vec::Vec;
    use core::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(data: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(data)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, data: &[u8]) -> Result<Vec<u8>, E> {
                Ok(data.to_vec())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

/// Several of them.
pub(crate) mod byte_strings {
    use alloc::vec::Vec;

    use serde::de::{Deserialize, Deserializer};
    use serde::ser::Serializer;

    #[derive(serde::Serialize)]
    struct Borrowed<'a>(#[serde(with = "super::bytes")] &'a [u8]);

    #[derive(serde::Deserialize)]
    struct Owned(#[serde(with = "super::bytes")] Vec<u8>);

    pub(crate) fn serialize<S: Serializer>(list: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|item| Borrowed(item)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let list = Vec::<Owned>::deserialize(from)?;
        Ok(list.into_iter().map(|item| item.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec;

    use super::*;
    use crate::{DATA_MAX, Output, Process, Status, TO_HOST_MAX, ToGuest, ToHost};

    /// Gives the decoder `bytes` in pieces of at most `piece`, and returns all messages.
    fn decode<M: Message>(bytes: &[u8], piece: usize) -> Result<Vec<M>, Error> {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = decoder.room();
            let count = room.len().min(piece).min(rest.len());
            assert!(count > 0, "no room although a message is wanted");
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            decoder.filled(count);
            assert!(decoder.buffer.len() <= M::MAX + HEADER + ROOM);
            while let Some(message) = decoder.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    fn output(length: usize) -> ToHost {
        ToHost::Output { id: u32::MAX, output: Output::Stderr, data: vec![7; length] }
    }

    #[test]
    fn messages_survive_any_cut() {
        let messages = vec![
            ToHost::Ready,
            output(1),
            output(DATA_MAX),
            ToHost::Failed { what: String::from("no") },
            ToHost::Exited { id: 1, status: Status::Signal(9), oom: true },
        ];
        let mut bytes = Vec::new();
        for message in &messages {
            encode(message, &mut bytes).unwrap();
        }
        for piece in [1, 2, 3, 5, 4096, usize::MAX] {
            assert_eq!(
                decode::<ToHost>(&bytes, piece).as_ref(),
                Ok(&messages),
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn bytes_that_are_no_text_survive() {
        let process = Process { argv: vec![vec![0xff, 0], vec![]], ..Process::default() };
        let message = ToGuest::Exec { id: 3, process };
        let mut bytes = Vec::new();
        encode(&message, &mut bytes).unwrap();
        assert_eq!(decode::<ToGuest>(&bytes, 7), Ok(vec![message]));
    }

    #[test]
    fn a_message_too_long_is_refused_by_both_sides() {
        let mut bytes = vec![1];
        let result = encode(&output(TO_HOST_MAX), &mut bytes);
        assert!(matches!(result, Err(Error::TooLong { .. })));
        assert_eq!(bytes, [1], "what was there before stays, and nothing else");

        for length in [u32::MAX, u32::try_from(TO_HOST_MAX).unwrap() + 1] {
            let result = decode::<ToHost>(&length.to_le_bytes(), 1);
            assert!(matches!(result, Err(Error::TooLong { .. })), "{length}");
        }
    }

    #[test]
    fn malformed_messages_are_refused() {
        // No message at all, an unknown one, one that ends too early, one with more behind it, one that
        // claims more data than there is.
        let bad: &[&[u8]] = &[&[], &[99], &[2], &[0, 0], &[4, 1, 0, 200, 1, 0]];
        for body in bad {
            let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
            bytes.extend_from_slice(body);
            assert_eq!(decode::<ToHost>(&bytes, 64), Err(Error::Malformed), "{body:?}");
        }
    }

    #[test]
    fn random_bytes_never_panic_and_never_grow_the_decoder() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..2000 {
            let mut bytes = Vec::new();
            // Small lengths, so that the messages are looked at too.
            for _ in 0..8 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let body = state.to_le_bytes();
                let length = usize::from(body[7] % 8);
                bytes.extend_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
                bytes.extend_from_slice(&body[..length]);
            }
            let _ = decode::<ToHost>(&bytes, 13);
            let _ = decode::<ToGuest>(&bytes, 13);
        }
    }
}

//! A packet's header (virtio 1.2 section 5.10.6): 44 little-endian bytes before the payload. Written by
//! hand since it is the only thing of the protocol that has a layout. Nothing here judges what it reads.

/// Bytes of a header.
pub(super) const HEADER: usize = 44;
/// The largest payload that is taken or sent; Linux sends no larger one.
pub(super) const PAYLOAD: usize = 64 << 10;
/// The only type of socket there is here (5.10.6.1).
pub(super) const STREAM: u16 = 1;

/// What a packet is for.
pub(super) mod op {
    pub(in super::super) const REQUEST: u16 = 1;
    pub(in super::super) const RESPONSE: u16 = 2;
    pub(in super::super) const RST: u16 = 3;
    pub(in super::super) const SHUTDOWN: u16 = 4;
    pub(in super::super) const RW: u16 = 5;
    pub(in super::super) const CREDIT_UPDATE: u16 = 6;
    pub(in super::super) const CREDIT_REQUEST: u16 = 7;
}

/// The sender of a `SHUTDOWN` will receive no more.
pub(super) const NO_RECEIVE: u32 = 1;
/// The sender of a `SHUTDOWN` will send no more.
pub(super) const NO_SEND: u32 = 2;

/// A header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Bytes of payload.
    pub(super) len: u32,
    /// The type of socket.
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    /// Bytes of the sender's buffer.
    pub(super) buf_alloc: u32,
    /// Bytes that have left the sender's buffer since the connection began, wrapping.
    pub(super) fwd_cnt: u32,
}

impl Header {
    pub(super) fn parse(raw: &[u8; HEADER]) -> Self {
        let half = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            src_cid: long(0),
            dst_cid: long(8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        }
    }

    pub(super) fn bytes(&self) -> [u8; HEADER] {
        let mut raw = [0; HEADER];
        raw[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        raw[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        raw[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        raw[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        raw[24..28].copy_from_slice(&self.len.to_le_bytes());
        raw[28..30].copy_from_slice(&self.kind.to_le_bytes());
        raw[30..32].copy_from_slice(&self.op.to_le_bytes());
        raw[32..36].copy_from_slice(&self.flags.to_le_bytes());
        raw[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        raw[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        raw
    }

    /// The `RST` that answers this packet, from whom it was meant for.
    pub(super) fn refusal(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: op::RST,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_the_specification_says() {
        let raw: [u8; HEADER] = std::array::from_fn(|at| u8::try_from(at).unwrap() + 1);
        let header = Header::parse(&raw);
        assert_eq!(header.src_cid, 0x0807_0605_0403_0201);
        assert_eq!(header.dst_cid, 0x100f_0e0d_0c0b_0a09);
        assert_eq!((header.src_port, header.dst_port), (0x1413_1211, 0x1817_1615));
        assert_eq!((header.len, header.kind, header.op), (0x1c1b_1a19, 0x1e1d, 0x201f));
        assert_eq!(header.flags, 0x2423_2221);
        assert_eq!((header.buf_alloc, header.fwd_cnt), (0x2827_2625, 0x2c2b_2a29));
        assert_eq!(header.bytes(), raw);
    }
}

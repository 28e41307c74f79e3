//! Packets between the processes that deliver: a few fields of octets, and a descriptor if there is one.
//!
//! Over a Unix socket of the kind that keeps packets apart, so neither side parses a stream. Each field has its length
//! before it. Bounds: [`PACKET_MAX`] octets, [`FIELDS_MAX`] fields, one descriptor; anything else is an error, and the
//! descriptor that came with it is closed.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Octets of a packet: an address, what a program said, an operator's settings.
pub(crate) const PACKET_MAX: usize = 64 << 10;

pub(crate) const FIELDS_MAX: usize = 16;

/// What one side sends the other.
#[derive(Debug, Default)]
pub(crate) struct Packet {
    pub(crate) fields: Vec<Vec<u8>>,
    pub(crate) descriptor: Option<OwnedFd>,
}

impl Packet {
    /// The fields as text, if there are that many and all are.
    pub(crate) fn texts<const N: usize>(&self) -> Option<[&str; N]> {
        let texts: Option<Vec<&str>> =
            self.fields.iter().map(|field| std::str::from_utf8(field).ok()).collect();
        texts?.try_into().ok()
    }
}

/// Two ends that are each other's.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

pub(crate) fn send(
    socket: impl AsFd,
    fields: &[&[u8]],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = encode(fields)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor]);
    if let Some(descriptors) = &descriptors {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        debug_assert!(fits, "there is room for one");
    }
    let sent = sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
}

/// `None`: the other side has gone.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<Packet>> {
    let mut bytes = vec![0; PACKET_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    let mut descriptor = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptor = descriptors.last();
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(invalid("a packet is too long"));
    }
    let fields = decode(&bytes[..received.bytes]).ok_or_else(|| invalid("a packet is broken"))?;
    Ok(Some(Packet { fields, descriptor }))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn encode(fields: &[&[u8]]) -> io::Result<Vec<u8>> {
    let len = fields.iter().map(|field| 4 + field.len()).sum::<usize>();
    if fields.is_empty() || fields.len() > FIELDS_MAX || len > PACKET_MAX {
        return Err(invalid("that is too much for a packet"));
    }
    let mut bytes = Vec::with_capacity(len);
    for field in fields {
        let len = u32::try_from(field.len()).map_err(|_| invalid("a field is too long"))?;
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(field);
    }
    Ok(bytes)
}

/// `None`: that is no packet.
fn decode(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        if fields.len() == FIELDS_MAX {
            return None;
        }
        fields.push(field.to_vec());
        bytes = rest;
    }
    Some(fields)
}

/// For the fuzzer: any octets as a packet.
pub fn fuzz_packet(bytes: &[u8]) {
    if let Some(fields) = decode(bytes).filter(|fields| !fields.is_empty()) {
        let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        assert_eq!(encode(&fields).expect("it was a packet"), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _};

    #[test]
    fn fields_and_a_descriptor_arrive_as_they_were_sent() {
        let (one, other) = pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        file.rewind().unwrap();
        send(&one, &[b"deliver", b"", b"ann"], Some(file.as_fd())).unwrap();
        send(&one, &[b"again"], None).unwrap();
        let packet = receive(&other).unwrap().unwrap();
        assert_eq!(packet.texts(), Some(["deliver", "", "ann"]));
        let mut content = String::new();
        File::from(packet.descriptor.unwrap()).read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        let packet = receive(&other).unwrap().unwrap();
        assert_eq!((packet.texts::<2>(), packet.descriptor.is_none()), (None, true));
        drop(one);
        assert!(receive(&other).unwrap().is_none());
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let (one, _other) = pair().unwrap();
        assert!(send(&one, &[&vec![0; PACKET_MAX]], None).is_err());
        assert!(send(&one, &[&[0u8][..]; FIELDS_MAX + 1], None).is_err());
        assert!(send(&one, &[], None).is_err());
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(0u8..4, 0..60)) {
            fuzz_packet(&bytes);
        }
    }
}

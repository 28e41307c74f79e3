//! Sockets of the kernel's ring over loopback, against ordinary sockets.

#![allow(clippy::result_large_err)] // `wait_for` hands an unwanted event back.

mod common;

use bytes::Bytes;
use common::*;
use ring::{Event, Outgoing, Peer, Piece, Ring, Socket, Token, Uring};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

/// Accepts one connection on the ring's listener, made by an ordinary client.
fn accepted(ring: &mut Uring, listener: Socket) -> (Socket, TcpStream, SocketAddr) {
    let client = TcpStream::connect(ring.local_address(listener).expect("address")).expect("connect");
    let (socket, peer) = wait_for(ring, |event| match event {
        Event::Accepted { socket, peer: Peer::Net(peer), .. } => Ok((socket, peer)),
        other => Err(other),
    });
    (socket, client, peer)
}

/// Receives until the stream ends, giving each buffer back at once.
fn receive_all(ring: &mut Uring, socket: Socket) -> Vec<u8> {
    ring.receive(Token(50), socket);
    let (mut bytes, mut events) = (Vec::new(), Vec::new());
    loop {
        ring.wait(Some(PATIENCE), &mut events).expect("wait");
        for event in events.drain(..) {
            match event {
                Event::Received { data, .. } => {
                    bytes.extend_from_slice(ring.received(&data));
                    ring.give_back(data);
                }
                Event::ReceiveEnded { result, .. } => {
                    result.expect("the stream's end");
                    return bytes;
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
}

#[test]
fn echoes_what_a_client_sends() {
    let mut ring = ring();
    let listener = ring.listen(any_port()).unwrap();
    ring.accept(Token(1), listener);
    let (socket, mut client, peer) = accepted(&mut ring, listener);
    assert_eq!(peer, client.local_addr().unwrap());
    ring.receive(Token(2), socket);
    for round in 0..100u32 {
        let line = format!("line {round}\r\n");
        client.write_all(line.as_bytes()).unwrap();
        let data = wait_for(&mut ring, |event| match event {
            Event::Received { token: Token(2), data } => Ok(data),
            other => Err(other),
        });
        let outgoing = own(ring.received(&data));
        ring.give_back(data);
        ring.send(Token(3), socket, outgoing);
        wait_for(&mut ring, sent).0.unwrap();
        let mut back = vec![0; line.len()];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, line.as_bytes());
    }
}

#[test]
fn one_accept_serves_many_connections() {
    let mut ring = ring();
    let listener = ring.listen(any_port()).unwrap();
    ring.accept(Token(1), listener);
    let first = accepted(&mut ring, listener);
    let second = accepted(&mut ring, listener);
    assert_ne!(first.0, second.0);
}

#[test]
fn a_stream_longer_than_all_buffers_arrives_whole() {
    let mut ring = small_ring(2, 4096);
    let (socket, mut peer) = connected(&mut ring);
    let bytes = pattern(1 << 20);
    let expected = bytes.clone();
    let writer = thread::spawn(move || peer.write_all(&bytes).unwrap());
    assert_eq!(receive_all(&mut ring, socket), expected);
    writer.join().unwrap();
}

#[test]
fn one_message_after_the_other_takes_few_of_many_buffers() {
    let mut ring = ring();
    let (socket, mut peer) = connected(&mut ring);
    ring.receive(Token(1), socket);
    let mut used = BTreeSet::new();
    for _ in 0..500 {
        peer.write_all(b"NOOP\r\n").unwrap();
        used.insert(give_back_one(&mut ring));
    }
    assert!(used.len() <= 64, "{} buffers were touched", used.len());
}

fn give_back_one(ring: &mut Uring) -> u16 {
    let data = wait_for(ring, |event| match event {
        Event::Received { data, .. } => Ok(data),
        other => Err(other),
    });
    let buffer = data.buffer;
    ring.give_back(data);
    buffer
}

#[test]
fn burst_gets_as_many_buffers_as_there_are() {
    let mut ring = small_ring(256, 512);
    let connections: Vec<_> = (0..256).map(|_| connected(&mut ring)).collect();
    for (socket, _) in &connections {
        ring.receive(Token(1), *socket);
    }
    ring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    // Twice: the second time they are all with the kernel, and go by turns.
    for _ in 0..2 {
        connections.iter().for_each(|(_, peer)| (&mut &*peer).write_all(b"at once").unwrap());
        let (mut held, mut events, mut rounds) = (Vec::new(), Vec::new(), 0);
        while held.len() < connections.len() {
            rounds += 1;
            assert!(rounds < 1000, "{} of 256 came", held.len());
            ring.wait(Some(PATIENCE), &mut events).unwrap();
            held.extend(events.drain(..).map(|event| match event {
                Event::Received { data, .. } => data,
                other => panic!("unexpected: {other:?}"),
            }));
        }
        let buffers: BTreeSet<u16> = held.iter().map(|data| data.buffer).collect();
        assert_eq!(buffers.len(), 256, "each is somebody's");
        held.into_iter().for_each(|data| ring.give_back(data));
    }
}

#[test]
fn a_receive_without_buffers_goes_on_when_they_are_back() {
    let mut ring = small_ring(2, 4096);
    let (socket, mut peer) = connected(&mut ring);
    let (other, mut other_peer) = connected(&mut ring);
    let bytes = pattern(64 << 10);
    peer.write_all(&bytes).unwrap();
    other_peer.write_all(b"also waiting").unwrap();
    ring.receive(Token(1), socket);
    ring.receive(Token(2), other);
    let (mut got, mut got_other) = (Vec::new(), Vec::new());
    let mut rounds = 0;
    while got.len() < bytes.len() || got_other.len() < 12 {
        rounds += 1;
        assert!(rounds < 1000, "the receives have stopped");
        // Held until nothing comes any more: the kernel runs out of buffers each time.
        let held = events_within(&mut ring, Duration::from_millis(5));
        for event in held {
            let Event::Received { token, data } = event else { panic!("unexpected: {event:?}") };
            let target = if token == Token(1) { &mut got } else { &mut got_other };
            target.extend_from_slice(ring.received(&data));
            ring.give_back(data);
        }
    }
    assert_eq!(got, bytes);
    assert_eq!(got_other, b"also waiting");
}

#[test]
fn a_starved_receive_can_be_paused_and_closed() {
    let mut ring = small_ring(1, 4096);
    let (socket, mut peer) = connected(&mut ring);
    let (second, mut second_peer) = connected(&mut ring);
    peer.write_all(&pattern(8192)).unwrap();
    second_peer.write_all(b"x").unwrap();
    ring.receive(Token(1), socket);
    let mut events = events_within(&mut ring, Duration::from_millis(50));
    let Some(Event::Received { data, .. }) = events.pop() else { panic!("the first buffer is filled") };
    assert!(events.is_empty());
    ring.pause(socket);
    let result = wait_for(&mut ring, |event| match event {
        Event::ReceiveEnded { token: Token(1), result } => Ok(result),
        other => Err(other),
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
    ring.receive(Token(2), second);
    assert!(events_within(&mut ring, Duration::from_millis(50)).is_empty());
    ring.close(second);
    ring.give_back(data);
    assert!(events_within(&mut ring, Duration::from_millis(50)).is_empty());
    drop(second_peer);
    drop(peer);
    assert_eq!(receive_all(&mut ring, socket), &pattern(8192)[4096..]);
}

#[test]
fn a_long_send_to_a_slow_reader_arrives_whole() {
    let mut ring = ring();
    let (socket, mut peer) = connected(&mut ring);
    let body = Bytes::from(pattern(8 << 20));
    let mut outgoing = Outgoing { own: b"head\r\n.\r\n".to_vec(), ..Outgoing::default() };
    outgoing.pieces.push(Piece::Own(0..6));
    outgoing.pieces.push(Piece::Shared(body.clone()));
    outgoing.pieces.push(Piece::Own(6..9));
    ring.send(Token(7), socket, outgoing);
    let reader = thread::spawn(move || {
        let (mut bytes, mut piece) = (Vec::new(), vec![0; 60_000]);
        while bytes.len() < (8 << 20) + 9 {
            let len = peer.read(&mut piece).unwrap();
            assert_ne!(len, 0);
            bytes.extend_from_slice(&piece[..len]);
            thread::yield_now();
        }
        bytes
    });
    let (result, outgoing, copied) = wait_for(&mut ring, sent);
    result.unwrap();
    assert_eq!(outgoing.pieces.len(), 3);
    assert_eq!(copied, None);
    let bytes = reader.join().unwrap();
    assert!(bytes[..6] == *b"head\r\n" && bytes[6..bytes.len() - 3] == body && bytes.ends_with(b".\r\n"));
}

#[test]
fn more_pieces_than_one_call_takes_go_out_in_order() {
    let mut ring = ring();
    let (socket, mut peer) = connected(&mut ring);
    let bytes = pattern(5000);
    let mut outgoing = Outgoing { own: bytes.clone(), ..Outgoing::default() };
    outgoing.pieces.extend((0..2500).map(|i| Piece::Own(i * 2..i * 2 + 2)));
    ring.send(Token(7), socket, outgoing);
    wait_for(&mut ring, sent).0.unwrap();
    let mut got = vec![0; 5000];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
}

#[test]
fn an_empty_send_is_answered() {
    let mut ring = ring();
    let (socket, _peer) = connected(&mut ring);
    ring.send(Token(7), socket, Outgoing::default());
    wait_for(&mut ring, sent).0.unwrap();
}

#[test]
fn zero_copy_says_that_loopback_copied() {
    let mut ring = ring();
    let (socket, mut peer) = connected(&mut ring);
    let body = Bytes::from(pattern(3 << 20));
    let mut outgoing = Outgoing { zero_copy: true, ..Outgoing::default() };
    outgoing.pieces.push(Piece::Shared(body.clone()));
    ring.send(Token(7), socket, outgoing);
    let reader = thread::spawn(move || {
        let mut bytes = vec![0; 3 << 20];
        peer.read_exact(&mut bytes).unwrap();
        (bytes, peer)
    });
    let (result, _, copied) = wait_for(&mut ring, sent);
    result.unwrap();
    assert_eq!(copied, Some(true));
    assert_eq!(reader.join().unwrap().0, body);
}

#[test]
fn a_close_with_only_a_receive_tells_the_peer_at_once() {
    let mut ring = ring();
    let (socket, mut peer) = connected(&mut ring);
    ring.receive(Token(2), socket);
    assert!(events_within(&mut ring, Duration::from_millis(20)).is_empty());
    ring.close(socket);
    assert!(events_within(&mut ring, Duration::from_millis(20)).is_empty());
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    // The stale name meets nothing.
    ring.send(Token(3), socket, own(b"late"));
    assert_eq!(wait_for(&mut ring, sent).0.unwrap_err().kind(), ErrorKind::NotConnected);
    ring.receive(Token(4), socket);
    ring.pause(socket);
    ring.close(socket);
    assert!(ring.local_address(socket).is_err());
    assert!(events_within(&mut ring, Duration::from_millis(20)).is_empty());
}

#[test]
fn bytes_received_before_a_close_are_not_handed_out_after_it() {
    let mut ring = small_ring(4, 4096);
    for _ in 0..20 {
        let (socket, mut peer) = connected(&mut ring);
        ring.receive(Token(2), socket);
        ring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        peer.write_all(&pattern(4096)).unwrap();
        ring.close(socket);
        assert!(events_within(&mut ring, Duration::from_millis(2)).is_empty());
    }
    // The buffers of those are back: a stream still gets through.
    let (socket, mut peer) = connected(&mut ring);
    let writer = thread::spawn(move || peer.write_all(&pattern(100_000)).unwrap());
    assert_eq!(receive_all(&mut ring, socket), pattern(100_000));
    writer.join().unwrap();
}

#[test]
fn what_was_sent_before_a_close_arrives() {
    let mut ring = ring();
    let (socket, mut peer) = connected(&mut ring);
    ring.receive(Token(2), socket);
    ring.send(Token(1), socket, own(b"221 Bye\r\n"));
    wait_for(&mut ring, sent).0.unwrap();
    ring.close(socket);
    ring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    let mut text = String::new();
    peer.read_to_string(&mut text).unwrap();
    assert_eq!(text, "221 Bye\r\n");
}

#[test]
fn a_paused_receive_leaves_bytes_in_the_kernel() {
    let mut ring = ring();
    let (socket, mut peer) = connected(&mut ring);
    ring.receive(Token(1), socket);
    ring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    ring.pause(socket);
    ring.pause(socket);
    let result = wait_for(&mut ring, |event| match event {
        Event::ReceiveEnded { token: Token(1), result } => Ok(result),
        other => Err(other),
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
    peer.write_all(b"later").unwrap();
    drop(peer);
    assert!(events_within(&mut ring, Duration::from_millis(50)).is_empty());
    assert_eq!(receive_all(&mut ring, socket), b"later");
}

#[test]
fn a_second_receive_is_refused_and_the_first_goes_on() {
    let mut ring = ring();
    let (socket, mut peer) = connected(&mut ring);
    ring.receive(Token(1), socket);
    ring.receive(Token(2), socket);
    let result = wait_for(&mut ring, |event| match event {
        Event::ReceiveEnded { token: Token(2), result } => Ok(result),
        other => Err(other),
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::AlreadyExists);
    peer.write_all(b"x").unwrap();
    let data = wait_for(&mut ring, |event| match event {
        Event::Received { token: Token(1), data } => Ok(data),
        other => Err(other),
    });
    assert_eq!(ring.received(&data), b"x");
}

#[test]
fn a_reset_is_an_error_of_the_receive() {
    let mut ring = ring();
    let (socket, peer) = connected(&mut ring);
    ring.receive(Token(1), socket);
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    let result = wait_for(&mut ring, |event| match event {
        Event::ReceiveEnded { result, .. } => Ok(result),
        other => Err(other),
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionReset);
    ring.send(Token(2), socket, own(b"nobody there"));
    assert!(wait_for(&mut ring, sent).0.is_err());
}

#[test]
fn a_refused_connect_says_so() {
    let mut ring = ring();
    // Of an address that is no other test's.
    let free = TcpListener::bind(("127.0.44.1", 0)).unwrap().local_addr().unwrap();
    let socket = ring.connect(Token(4), free, None).unwrap();
    let result = wait_for(&mut ring, |event| match event {
        Event::Connected { token: Token(4), result } => Ok(result),
        other => Err(other),
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    ring.close(socket);
}

#[test]
fn a_connect_uses_its_source_address() {
    let mut ring = ring();
    let listener = TcpListener::bind(any_port()).unwrap();
    let source: IpAddr = "127.0.0.9".parse().unwrap();
    let socket = ring.connect(Token(4), listener.local_addr().unwrap(), Some(source)).unwrap();
    let (_, peer) = {
        wait_for(&mut ring, |event| match event {
            Event::Connected { result, .. } => Ok(result),
            other => Err(other),
        })
        .unwrap();
        listener.accept().unwrap()
    };
    assert_eq!(peer.ip(), source);
    assert_eq!(ring.local_address(socket).unwrap(), peer);
}

#[test]
fn closing_a_listener_ends_its_accept_in_silence() {
    let mut ring = ring();
    let listener = ring.listen(any_port()).unwrap();
    let address = ring.local_address(listener).unwrap();
    ring.accept(Token(1), listener);
    assert!(events_within(&mut ring, Duration::from_millis(10)).is_empty());
    ring.close(listener);
    assert!(events_within(&mut ring, Duration::from_millis(10)).is_empty());
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn two_listeners_share_a_port() {
    let mut ring = ring();
    let first = ring.listen(any_port()).unwrap();
    let address = ring.local_address(first).unwrap();
    ring.listen(address).unwrap();
}

#[test]
fn a_unix_listener_says_which_user_connects() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("submit.sock");
    let bound = UnixListener::bind(&path).unwrap();
    // As it comes from whoever bound it: the ring must not give up on it.
    bound.set_nonblocking(true).unwrap();
    let mut ring = ring();
    let listener = ring.adopt_listener(bound.into()).unwrap();
    ring.accept(Token(1), listener);
    for round in 0..3 {
        let mut client = UnixStream::connect(&path).unwrap();
        let (socket, peer) = wait_for(&mut ring, |event| match event {
            Event::Accepted { socket, peer, .. } => Ok((socket, peer)),
            other => Err(other),
        });
        assert_eq!(peer, Peer::Local { uid: rustix::process::geteuid().as_raw() });
        let said = format!("line {round}");
        client.write_all(said.as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(receive_all(&mut ring, socket), said.as_bytes());
        ring.send(Token(3), socket, own(b"heard"));
        wait_for(&mut ring, sent).0.unwrap();
        ring.close(socket);
        ring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "heard");
    }
}

#[test]
fn connects_to_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("local.sock");
    let bound = UnixListener::bind(&path).unwrap();
    let mut ring = ring();
    let socket = ring.connect_locally(Token(1), &path).unwrap();
    wait_for(&mut ring, |event| match event {
        Event::Connected { result, .. } => Ok(result),
        other => Err(other),
    })
    .unwrap();
    let (mut peer, _) = bound.accept().unwrap();
    ring.send(Token(2), socket, own(b"hello"));
    wait_for(&mut ring, sent).0.unwrap();
    let mut heard = [0; 5];
    peer.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    peer.write_all(b"heard").unwrap();
    drop(peer);
    assert_eq!(receive_all(&mut ring, socket), b"heard");
    // A path that is too long for an address is no socket's.
    assert!(ring.connect_locally(Token(3), &folder.path().join("x".repeat(200))).is_err());
}

#[test]
fn rings_that_share_a_listener_take_each_connection_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("submit.sock");
    let bound = UnixListener::bind(&path).unwrap();
    let mut rings = [ring(), ring()];
    for ring in &mut rings {
        let listener = ring.adopt_listener(bound.try_clone().unwrap().into()).unwrap();
        ring.accept(Token(1), listener);
    }
    drop(bound);
    let clients: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let mut taken = 0;
    let deadline = std::time::Instant::now() + PATIENCE;
    while taken < clients.len() && std::time::Instant::now() < deadline {
        for ring in &mut rings {
            let mut events = Vec::new();
            ring.wait(Some(Duration::from_millis(10)), &mut events).unwrap();
            for event in events {
                let Event::Accepted { peer: Peer::Local { .. }, .. } = event else { panic!("{event:?}") };
                taken += 1;
            }
        }
    }
    assert_eq!(taken, clients.len());
}

#[test]
fn only_a_listening_stream_socket_is_adopted() {
    let mut ring = ring();
    let (one, _other) = UnixStream::pair().unwrap();
    assert_eq!(ring.adopt_listener(one.into()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(ring.adopt_listener(datagrams.into()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let file = tempfile::tempfile().unwrap();
    assert!(ring.adopt_listener(file.into()).is_err());
    // One of the network is as good.
    let bound = TcpListener::bind(any_port()).unwrap();
    let listener = ring.adopt_listener(bound.into()).unwrap();
    ring.accept(Token(1), listener);
    accepted(&mut ring, listener);
}

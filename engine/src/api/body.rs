//! A request's body: in pieces or whole, unpacked if it is gzip, and never more of it than there is room for.
//!
//! Who sends slowly must bring [`BLOCK_LEN`] octets within the patience that the listener has; what we take to work on a
//! piece does not count. Bounds: a piece is at most 2 MiB, a whole body at most `len_max`, and all bodies together what
//! [`Room`] has: past that 429.

use super::recipients::Gunzip;
use super::reply::Problem;
use crate::clock;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Octets that must come within a client's patience, unless the body ends before.
const BLOCK_LEN: usize = 16 << 10;

/// Octets that a body which is answered early may still bring, so that its sender gets to read the answer.
const LINGER_LEN: usize = 64 << 20;

/// The same for a sender who was not let in.
const REFUSED_LEN: usize = 1 << 20;

/// Times a body's length that it takes in memory while it is read, parsed and made into a message.
const WEIGHT: usize = 3;

/// Kibibytes that a list takes on its way through: a piece, a batch, a record.
const STREAM_KIB: u32 = 8 << 10;

/// Memory for all bodies at a time, in kibibytes.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub(super) fn new(len: usize) -> Room {
        Room(Arc::new(Semaphore::new((len >> 10).min(Semaphore::MAX_PERMITS))))
    }

    fn take(&self, kib: u32) -> Result<OwnedSemaphorePermit, Problem> {
        let full = || {
            let what = "too many requests are being read; the rest of this one was not";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, what).retry_after(1)
        };
        Arc::clone(&self.0).try_acquire_many_owned(kib).map_err(|_| full())
    }

    /// For a list that is read in pieces.
    pub(super) fn for_stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.take(STREAM_KIB)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Incoming {
    body: Body,
    patience: Duration,
    /// Of the block that is awaited: what has come, and how long that took.
    block_len: usize,
    waited: Duration,
    gunzip: Option<Gunzip>,
    /// What came and is not unpacked yet.
    packed: Bytes,
    has_ended: bool,
    pieces: u64,
}

impl Incoming {
    pub(super) fn new(headers: &HeaderMap, body: Body, patience: Duration) -> Result<Incoming, Problem> {
        let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes());
        let gunzip = match encoding {
            None => None,
            Some(value) if value.eq_ignore_ascii_case(b"identity") => None,
            Some(value) if value.eq_ignore_ascii_case(b"gzip") => Some(Gunzip::default()),
            Some(_) => {
                let what = "Content-Encoding may be gzip";
                return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
            }
        };
        Ok(Incoming {
            body,
            patience,
            block_len: 0,
            waited: Duration::ZERO,
            gunzip,
            packed: Bytes::new(),
            has_ended: false,
            pieces: 0,
        })
    }

    /// The next octets, unpacked; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let piece = if self.gunzip.is_some() { self.unpack().await? } else { self.frame().await? };
            match piece {
                // A member of gzip may begin with octets that unpack to nothing.
                Some(piece) if piece.is_empty() => {}
                piece => return Ok(piece),
            }
        }
    }

    async fn unpack(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.packed.is_empty() && !self.has_ended {
            match self.frame().await? {
                Some(frame) => self.packed = frame,
                None => return self.unpack_end(),
            }
        }
        let Some(gunzip) = self.gunzip.as_mut().filter(|_| !self.has_ended) else { return Ok(None) };
        let mut out = Vec::new();
        let used = gunzip.feed(&self.packed, &mut out).map_err(|error| not_gzip(&error))?;
        let _ = self.packed.split_to(used);
        // One packed octet can be a thousand: others have their turn between two of them.
        self.pieces += 1;
        if self.pieces.is_multiple_of(16) {
            tokio::task::yield_now().await;
        }
        Ok(Some(Bytes::from(out)))
    }

    fn unpack_end(&mut self) -> Result<Option<Bytes>, Problem> {
        let mut out = Vec::new();
        let Some(gunzip) = &mut self.gunzip else { return Ok(None) };
        gunzip.finish(&mut out).map_err(|error| not_gzip(&error))?;
        self.has_ended = true;
        Ok(Some(Bytes::from(out)))
    }

    /// What comes next over the wire.
    async fn frame(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let (begun, left) = (clock::now(), self.patience.saturating_sub(self.waited));
            let frame = tokio::time::timeout(left, self.body.frame()).await.map_err(|_| too_slow())?;
            self.waited += clock::now().saturating_duration_since(begun);
            let Some(frame) = frame else { return Ok(None) };
            let Ok(data) = frame.map_err(|error| cut_off(&error))?.into_data() else { continue };
            self.block_len += data.len();
            if self.block_len >= BLOCK_LEN {
                (self.block_len, self.waited) = (0, Duration::ZERO);
            }
            return Ok(Some(data));
        }
    }

    /// All of it.
    pub(super) async fn whole(mut self, len_max: usize, room: &Room) -> Result<Whole, Problem> {
        let (mut octets, mut permits) = (Vec::new(), room.take(0)?);
        while let Some(piece) = self.next().await? {
            let len = octets.len() + piece.len();
            if len > len_max {
                self.linger();
                let what = format!("the body has more than {len_max} octets (api.body_max)");
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, what));
            }
            let kib = u32::try_from((len * WEIGHT) >> 10).unwrap_or(u32::MAX);
            let held = u32::try_from(permits.num_permits()).unwrap_or(u32::MAX);
            match room.take(kib.saturating_sub(held)) {
                Ok(more) => permits.merge(more),
                Err(problem) => {
                    self.linger();
                    return Err(problem);
                }
            }
            octets.extend_from_slice(&piece);
        }
        Ok(Whole { octets, _permits: permits })
    }

    /// The answer goes out now. What still comes is read and dropped for a while: a client that is told while it sends
    /// would else lose the answer with its connection.
    pub(super) fn linger(self) {
        self.drop_slowly(LINGER_LEN);
    }

    /// As [`Incoming::linger`], for a sender who is not heard.
    #[must_use]
    pub(super) fn refuse(self, problem: Problem) -> Problem {
        self.drop_slowly(REFUSED_LEN);
        problem
    }

    fn drop_slowly(self, len_max: usize) {
        let Incoming { mut body, patience, .. } = self;
        if body.is_end_stream() {
            return;
        }
        tokio::spawn(tokio::time::timeout(patience, async move {
            let mut left = len_max;
            while let Some(Ok(frame)) = body.frame().await {
                let len = frame.data_ref().map_or(0, Bytes::len);
                let Some(rest) = left.checked_sub(len) else { return };
                left = rest;
            }
        }));
    }
}

/// A body that is here, and the room that it takes while it is.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) octets: Vec<u8>,
    _permits: OwnedSemaphorePermit,
}

fn not_gzip(error: &super::recipients::GunzipError) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, error.to_string())
}

fn too_slow() -> Problem {
    let what = "the body came too slowly (api.idle_timeout_secs)";
    Problem::new(StatusCode::REQUEST_TIMEOUT, what)
}

/// Mostly nobody is there any more to read it.
fn cut_off(error: &axum::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("the body ended early: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn incoming(body: Body, encoding: Option<&'static str>) -> Incoming {
        let pairs = encoding.map(|value| (header::CONTENT_ENCODING, value.parse().unwrap()));
        Incoming::new(&HeaderMap::from_iter(pairs), body, Duration::from_millis(50)).unwrap()
    }

    #[test]
    fn a_body_is_read_whole_up_to_its_bound() {
        let read = |len_max| async move {
            incoming(Body::from("0123456789"), None).whole(len_max, &Room::new(1 << 20)).await
        };
        assert_eq!(run(read(10)).unwrap().octets, b"0123456789");
        assert_eq!(run(read(9)).unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn bodies_share_the_room_and_give_it_back() {
        run(async {
            let (room, body) = (Room::new(1 << 20), vec![b' '; 200 << 10]);
            let read = || incoming(Body::from(body.clone()), None).whole(1 << 20, &room);
            let first = read().await.unwrap();
            assert_eq!(read().await.unwrap_err().status, StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(room.for_stream().unwrap_err().status, StatusCode::TOO_MANY_REQUESTS);
            drop(first);
            assert!(read().await.is_ok());
        });
    }

    #[test]
    fn who_brings_too_little_is_told_so() {
        run(async {
            let silent = Body::new(http_body_util::StreamBody::new(futures_util::stream::pending::<
                Result<hyper::body::Frame<Bytes>, std::io::Error>,
            >()));
            let ended = incoming(silent, None).next().await.unwrap_err();
            assert_eq!(ended.status, StatusCode::REQUEST_TIMEOUT);
        });
    }

    #[test]
    fn only_gzip_is_unpacked() {
        let headers =
            |value: &str| HeaderMap::from_iter([(header::CONTENT_ENCODING, value.parse().unwrap())]);
        let new = |value| Incoming::new(&headers(value), Body::empty(), Duration::ZERO);
        assert!(new("GZIP").is_ok() && new("identity").is_ok());
        assert_eq!(new("br").unwrap_err().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        run(async {
            let ended = incoming(Body::from("email\n"), Some("gzip")).next().await.unwrap_err();
            assert_eq!(ended.status, StatusCode::BAD_REQUEST);
        });
    }
}

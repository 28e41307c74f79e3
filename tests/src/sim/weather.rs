//! How bad the world is: latencies, and how often each kind of fault strikes.

use super::rng::{NEVER, OneIn, Rng};
use std::ops::Range;

/// Every knob of the world. Read at the moment it matters, so a change works at once: see `World::adjust`.
#[derive(Clone, Debug)]
pub struct Weather {
    /// One way, per connection.
    pub latency_us: Range<u64>,
    /// A connection whose segments are a few octets long at first.
    pub chopped: OneIn,
    /// What a connection holds per direction before its sender must wait, in octets.
    pub window: Range<u64>,
    pub disk_us: Range<u64>,
    pub sync_us: Range<u64>,
    /// A ring's receive buffers.
    pub buffers_max: u16,
    pub buffer_len: usize,

    /// Per connect: refused at once, or no answer for two minutes.
    pub refused: OneIn,
    pub unanswered: OneIn,
    /// Per connection: broken at some time of its first two seconds.
    pub reset: OneIn,
    /// Per connection: from some time on nothing passes, and nobody is told for a quarter of an hour.
    pub vanish: OneIn,
    /// Per accepted connection: the multishot accept ends with EMFILE.
    pub accept_ended: OneIn,

    /// EIO: per write, reservation of space, and removal.
    pub write_error: OneIn,
    pub sync_error: OneIn,
    pub read_error: OneIn,
    /// Per file that is opened.
    pub open_error: OneIn,
    /// Per write that needs new space and per `allocate`.
    pub no_space: OneIn,

    /// Per command: a sink says 4xx.
    pub sink_defers: OneIn,
    /// Per MAIL, RCPT and message (not for bounces): a sink says 5xx.
    pub sink_fails: OneIn,
    /// Per command: a sink breaks or ends the connection.
    pub sink_drops: OneIn,
    /// Per message: a sink takes it and is gone before it says so.
    pub sink_drops_after_accept: OneIn,
    /// Per command: a sink does nothing for a while, sometimes for longer than any client waits.
    pub sink_stalls: OneIn,
    /// Per send: an injector is gone.
    pub injector_drops: OneIn,
    /// Per send: an injector pauses.
    pub injector_stalls: OneIn,
}

impl Weather {
    /// Latency and segmentation, no faults.
    pub fn calm() -> Weather {
        Weather {
            latency_us: 50..5_000,
            chopped: OneIn(8),
            window: 4_096..262_144,
            disk_us: 20..300,
            sync_us: 200..4_000,
            buffers_max: 64,
            buffer_len: 4_096,
            refused: NEVER,
            unanswered: NEVER,
            reset: NEVER,
            vanish: NEVER,
            accept_ended: NEVER,
            write_error: NEVER,
            sync_error: NEVER,
            read_error: NEVER,
            open_error: NEVER,
            no_space: NEVER,
            sink_defers: NEVER,
            sink_fails: NEVER,
            sink_drops: NEVER,
            sink_drops_after_accept: NEVER,
            sink_stalls: NEVER,
            injector_drops: NEVER,
            injector_stalls: NEVER,
        }
    }

    /// Faults of peers and network as the seed has it, from none to many. The disk works: its faults are for
    /// scenarios that expect a poisoned log, see [`Weather::bad_disk`].
    pub fn of_seed(seed: u64) -> Weather {
        let mut rng = Rng::new(seed ^ 0x7765_6174_6865_7221);
        let mut chance = || *rng.pick(&[NEVER, NEVER, OneIn(200), OneIn(50), OneIn(15)]);
        Weather {
            refused: chance(),
            unanswered: chance(),
            reset: chance(),
            vanish: chance(),
            accept_ended: chance(),
            sink_defers: chance(),
            sink_fails: chance(),
            sink_drops: chance(),
            sink_drops_after_accept: chance(),
            sink_stalls: chance(),
            injector_drops: chance(),
            injector_stalls: chance(),
            ..Weather::calm_of(&mut rng)
        }
    }

    fn calm_of(rng: &mut Rng) -> Weather {
        Weather {
            latency_us: rng.pick(&[1..50, 50..5_000, 1_000..80_000]).clone(),
            chopped: *rng.pick(&[NEVER, OneIn(8), OneIn(2)]),
            window: rng.pick(&[256..1_024, 4_096..65_536, 65_536..1_048_576]).clone(),
            disk_us: rng.pick(&[5..30, 20..300, 100..20_000]).clone(),
            sync_us: rng.pick(&[20..100, 200..4_000, 1_000..200_000]).clone(),
            buffers_max: *rng.pick(&[2, 8, 64]),
            ..Weather::calm()
        }
    }

    /// The same with a disk that errs, at whatever it is asked for.
    pub fn bad_disk(self) -> Weather {
        Weather {
            write_error: OneIn(300),
            sync_error: OneIn(300),
            read_error: OneIn(300),
            open_error: OneIn(100),
            no_space: OneIn(100),
            ..self
        }
    }

    /// The same latencies without a fault: what was disturbed can now come to its end.
    pub fn healed(&self) -> Weather {
        Weather {
            latency_us: self.latency_us.clone(),
            chopped: self.chopped,
            window: self.window.clone(),
            disk_us: self.disk_us.clone(),
            sync_us: self.sync_us.clone(),
            buffers_max: self.buffers_max,
            buffer_len: self.buffer_len,
            ..Weather::calm()
        }
    }
}

//! Lives of the daemon in the simulator: its cores, the resolver that answers them, and how a life begins and ends.

use engine::clock::Clock;
use engine::config::{self, Config, Events};
use engine::core::{Core, CoreConfig, StartError};
use engine::crossing::{Crossing, Mail, Question};
use engine::domains::{Host, Resolution};
use engine::events::EventLog;
use engine::events::line::Head;
use engine::observe::{Counter, Counters};
use engine::recovery::read_journals;
use engine::settings::Settings;
use message::{Reply, UnixMillis};
use ring::Ring as _;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::sim::{CORE, SimClock, SimRing, World};

const EVENTS: &str = "/queue/events";

/// Event files are short here, so that cores go on in new ones all the time.
const TURNS_PER_EVENT_FILE: u64 = 100;

/// A run that has not settled by then never will: longer than any back-off and the longest stall.
const SETTLED_BY: Duration = Duration::from_secs(5 * 86_400);

#[derive(Clone, Debug)]
pub(super) struct WorldClock(SimClock);

impl Clock for WorldClock {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn wall(&self) -> UnixMillis {
        self.0.wall()
    }
}

pub(super) type SimCore = Core<SimRing, WorldClock>;

/// One life of the daemon: its cores, and the resolver that answers them.
pub(super) struct Life {
    pub(super) cores: Vec<SimCore>,
    pub(super) crossing: Arc<Crossing>,
}

pub(super) fn config() -> Config {
    let text = "host_name = 'relay.example'\nqueue = '/queue'\n[intake]\nrelay_from = ['10.0.0.0/8']\n\
                [bounces]\ndoublebounce_to = 'postmaster@lists.example'";
    let mut config = config::parse(text, "sim").unwrap();
    // Small, so that segments are recycled and journals turned over within a short life.
    config.storage.segment_len = 64 << 10;
    config.storage.journal_len = 4 << 10;
    config.storage.spare_segments = 1;
    config.storage.free_min = 0;
    config.storage.cache_max = 16 << 10;
    config.delivery.share_len = 2;
    config.delivery.window_max = 4;
    config.delivery.recipients_per_transaction = 3;
    config
}

impl Life {
    /// The ordinary start, on whatever disk there is.
    pub(super) fn begin(world: &World, cores: usize) -> Life {
        let mut config = config();
        config.events = Some(Events::default());
        if world.random(4) == 0 {
            // One core has the only connection to a site, and the others their mail for it.
            config.delivery.connections_max = 1;
        }
        Life::begin_with(world, cores, config)
    }

    pub(super) fn begin_with(world: &World, cores: usize, config: Config) -> Life {
        Life::try_begin(world, cores, config).unwrap_or_else(|error| panic!("{error}"))
    }

    /// On a disk that errs, a start may fail.
    pub(super) fn try_begin(world: &World, cores: usize, config: Config) -> Result<Life, StartError> {
        let config_has_events = config.events.is_some();
        let settings = Arc::new(Settings::new(config, &[7; 32]));
        let crossing = Arc::new(Crossing::new(cores));
        let mut rings: Vec<SimRing> = (0..cores).map(|_| world.ring()).collect();
        if config_has_events {
            crossing.events.set(events_of(&mut rings[0], &crossing)?).unwrap();
        }
        let journals = Arc::new(read_journals(&mut rings[0], Path::new("/queue"))?);
        let start = |(index, ring): (usize, SimRing)| {
            let (settings, crossing, journals) = (settings.clone(), crossing.clone(), journals.clone());
            let config = CoreConfig { index, settings, crossing, journals };
            let mut core = Core::start(ring, WorldClock(world.clock()), config)?;
            core.listen(vec![(0, SocketAddr::from(CORE), None)])?;
            Ok(core)
        };
        let cores = rings.into_iter().enumerate().map(start).collect::<Result<_, StartError>>()?;
        let life = Life { cores, crossing };
        // What a crash tears was never acknowledged: it must not be taken for damage. Except in a segment that an
        // earlier start could not read, and so could not bring to its end.
        let has_misread = world.read_errors() > 0;
        assert!(has_misread || life.count(|counters| &counters.damaged) == 0, "a crash damages nothing");
        Ok(life)
    }

    /// Lives for `span`, or until there is nothing left to do.
    pub(super) fn live(&mut self, world: &World, span: Duration) -> bool {
        self.live_until(world, span, World::settled)
    }

    /// Until everybody is served, and then until the cores know it too.
    pub(super) fn finish(&mut self, world: &World) -> bool {
        let is_done = self.live(world, SETTLED_BY);
        // What a crash made them repeat may have been deferred.
        for _ in 0..48 {
            self.live_until(world, Duration::from_secs(3600), |_| false);
            if self.owed() == 0 {
                break;
            }
        }
        is_done
    }

    pub(super) fn live_until(&mut self, world: &World, span: Duration, is_over: fn(&World) -> bool) -> bool {
        let crossing = Arc::clone(&self.crossing);
        let resolver = world.clone();
        let mut turns = 0;
        let turn = move |core: &mut SimCore| {
            let mut events = Vec::new();
            core.turn(&mut events).unwrap();
            answer(&resolver, &crossing);
            turns += 1;
            if turns % TURNS_PER_EVENT_FILE == 0
                && let Some(log) = crossing.events.get()
            {
                log.go_on_in(log.current() + 1);
            }
        };
        world.run(&mut self.cores, span, turn, is_over)
    }

    /// Lives without anybody to answer questions.
    pub(super) fn live_unanswered(&mut self, world: &World, span: Duration) {
        let turn = |core: &mut SimCore| {
            core.turn(&mut Vec::new()).unwrap();
        };
        world.run(&mut self.cores, span, turn, |_| false);
    }

    /// A counter, over all cores.
    pub(super) fn count(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.crossing.counters.iter().map(|counters| counter(counters).get()).sum()
    }

    pub(super) fn owed(&self) -> u64 {
        self.cores.iter().map(SimCore::owed).sum()
    }
}

/// The event log of a new life: its first file is one that was never there.
fn events_of(ring: &mut SimRing, crossing: &Crossing) -> Result<Arc<EventLog>, StartError> {
    let path = Path::new(EVENTS);
    let names = ring.list(path).map_err(|source| StartError::File { path: path.to_owned(), source })?;
    let last = names.iter().filter_map(|name| name.strip_suffix(".jsonl")?.parse().ok()).max();
    let first = last.unwrap_or(0) + 1;
    Ok(Arc::new(EventLog::new(path.to_owned(), first, crossing.counters.clone())))
}

/// Everybody who was delivered to, or failed, as the event log has it. Lines that a death cut short are none.
pub(super) fn concluded(world: &World) -> BTreeSet<String> {
    let files = world.files("0").into_iter().filter(|(path, _)| path.starts_with(EVENTS));
    let contents: Vec<Vec<u8>> = files.filter_map(|(path, _)| world.file(path)).collect();
    let lines = contents.iter().flat_map(|content| content.split_inclusive(|octet| *octet == b'\n'));
    let events = lines.filter_map(|line| {
        let head = Head::find(line)?;
        serde_json::from_slice::<serde_json::Value>(&line[head.start..]).ok()
    });
    let is_last = |event: &serde_json::Value| event["kind"] == "delivered" || event["kind"] == "failed";
    events.filter(is_last).filter_map(|event| Some(event["rcpt"].as_str()?.to_owned())).collect()
}

/// Answers the cores' questions from the world's routes, a little later.
fn answer(world: &World, crossing: &Arc<Crossing>) {
    while let Some(question) = crossing.next_question() {
        let hosts: Vec<Host> = world
            .route(&question.name)
            .into_iter()
            .map(|address| Host { name: "mx".into(), address, tls: Arc::default() })
            .collect();
        let resolution = match hosts.first() {
            Some(host) => Resolution::Site {
                site: host.address.to_string().into(),
                hosts,
                basis: Arc::default(),
                ttl_secs: 3600,
                relaxed: None,
            },
            None => Resolution::Failed(Reply::ours(550, (5, 1, 2), "no such domain")),
        };
        let crossing = Arc::clone(crossing);
        let delay = Duration::from_micros(world.random(50_000));
        world.after(delay, move || {
            let Question { domain, name, target, .. } = question;
            let mail = Mail::Answer { domain, name, target: Box::new(target), resolution };
            crossing.send(question.core, mail).unwrap();
        });
    }
}

/// Some lives that end in one way or another, then one without faults; everybody must be served at its end.
pub(super) fn survives(world: &World, lives: u64, span_ms: u64, cores_max: u64, end: impl Fn(&World)) {
    for _ in 0..lives {
        let cores = 1 + usize::try_from(world.random(cores_max)).unwrap();
        let mut life = Life::begin(world, cores);
        life.live(world, Duration::from_millis(world.random(span_ms)));
        end(world);
    }
    world.heal();
    let mut life = Life::begin(world, 1 + usize::try_from(world.random(cores_max)).unwrap());
    let is_done = life.finish(world);
    let audit = world.audit();
    assert!(is_done && life.owed() == 0, "settled: {is_done}, still owed: {}\n{audit}", life.owed());
    audit.assert_sound();
}

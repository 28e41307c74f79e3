//! MTA-STS (RFC 8461): policies from an HTTPS server of ours, announced by a name server of ours.

mod asking;

use asking::{Asking, hosts, policy, refusal, relaxed, run};
use engine::crossing::Target;
use engine::domains::{BasisKind, Resolution};
use engine::tlsrpt::Failure;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use smtp_out::TlsPolicy;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tests::names::{A, MX, Names, Said, TXT};
use tests::process::setup;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

const MX_SET: &[(u16, &str)] = &[(10, "mx1.a.test"), (20, "mx2.elsewhere.test")];

const NAMING_ONE: &str = "version: STSv1\nmode: enforce\nmx: *.a.test\nmax_age: 86400\n";

/// What hosts of policies say, by name: all of the response. Nothing for a name: silence until the end.
type Responses = Rc<RefCell<HashMap<String, String>>>;

/// A name server, a server of policies, and an authority for it.
struct World {
    names: Names,
    folder: TempDir,
    /// The TXT records of domains, by domain.
    announced: Arc<Mutex<HashMap<String, String>>>,
    responses: Responses,
    /// Names in the order of requests.
    requests: Rc<RefCell<Vec<String>>>,
    port: u16,
}

impl World {
    /// Must be made on the runtime that it serves on.
    async fn new(policies: &[(&str, &str)]) -> World {
        let announced: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let known = Arc::clone(&announced);
        let names = Names::start(move |name, kind| match kind {
            MX => Said::exchanges(MX_SET),
            A => Said::addresses(&[[127, 0, 0, 1]]),
            TXT => {
                let domain = name.strip_prefix("_mta-sts.").unwrap_or(name);
                known.lock().expect("no panic").get(domain).map_or(Said::NoName, |text| Said::text(text))
            }
            _ => Said::NoData,
        });
        let folder = setup::temporary_folder();
        let acceptor = acceptor(&folder);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (responses, requests) = (Responses::default(), Rc::new(RefCell::new(Vec::new())));
        spawn_local(serve(listener, acceptor, Rc::clone(&responses), Rc::clone(&requests)));
        let world = World { names, folder, announced, responses, requests, port };
        for (domain, policy) in policies {
            world.announce(domain, "1");
            world.publish(domain, policy);
        }
        world
    }

    fn announce(&self, domain: &str, id: &str) {
        let text = format!("v=STSv1; id={id};");
        self.announced.lock().expect("no panic").insert(domain.to_owned(), text);
    }

    fn publish(&self, domain: &str, policy: &str) {
        let len = policy.len();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8";
        self.respond(domain, &format!("{head}\r\nContent-Length: {len}\r\n\r\n{policy}"));
    }

    fn respond(&self, domain: &str, response: &str) {
        self.responses.borrow_mut().insert(format!("mta-sts.{domain}"), response.to_owned());
    }

    /// A resolver of its own, as after a restart.
    fn asking(&self) -> Asking {
        self.asking_with(&format!("ca_file = \"{}\"", self.folder.path().join("ca.pem").display()))
    }

    fn asking_with(&self, tls: &str) -> Asking {
        let tls = format!("mta_sts_port = {}\n{tls}", self.port);
        Asking::new(self.names.address, self.folder.path(), "", &tls)
    }
}

/// For any mta-sts host of `test`, under an authority whose certificate is in `ca.pem`.
fn acceptor(folder: &TempDir) -> TlsAcceptor {
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("ours");
    std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("the folder is ours");
    let key = KeyPair::generate().expect("a key");
    let hosts = ["a", "b", "slow"].map(|domain| format!("mta-sts.{domain}.test"));
    let leaf = CertificateParams::new(hosts).expect("names").signed_by(&key, &issuer).expect("ours");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("the key is the certificate's");
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    said: Responses,
    requests: Rc<RefCell<Vec<String>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, said, requests) = (acceptor.clone(), Rc::clone(&said), Rc::clone(&requests));
        spawn_local(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let host = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
            let mut request = vec![0; 4096];
            let len = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..len]).into_owned();
            assert!(request.starts_with("GET /.well-known/mta-sts.txt HTTP/1.1\r\n"), "{request}");
            requests.borrow_mut().push(host.clone());
            let response = said.borrow().get(&host).cloned();
            match response {
                Some(response) => drop(stream.write_all(response.as_bytes()).await),
                None => std::future::pending().await,
            }
            let _ = stream.shutdown().await;
        });
    }
}

fn host_names(resolution: &Resolution) -> Vec<&str> {
    hosts(resolution).iter().map(|host| &*host.name).collect()
}

const fn verify(enforced: bool) -> TlsPolicy {
    TlsPolicy::Verify { names: Vec::new(), enforced }
}

#[test]
fn an_enforced_policy_leaves_the_hosts_that_it_names() {
    run(async {
        let world = World::new(&[("a.test", NAMING_ONE), ("b.test", NAMING_ONE)]).await;
        let asking = world.asking();
        let a = asking.mx("a.test").await;
        assert_eq!((host_names(&a), policy(&a)), (vec!["mx1.a.test"], &verify(true)));
        let all = [("mx1.a.test", &TlsPolicy::May), ("mx2.elsewhere.test", &TlsPolicy::May)];
        assert_eq!(relaxed(&a), all, "who is not held to it");
        let b = asking.mx("b.test").await;
        let (Resolution::Site { basis: a, .. }, Resolution::Site { basis: b, .. }) = (&a, &b) else {
            panic!("host_names() saw a site")
        };
        assert_eq!((a.kind, a.mx.as_slice()), (BasisKind::Sts, &["*.a.test".to_owned()][..]));
        assert_eq!(a.policy, NAMING_ONE.lines().collect::<Vec<_>>());
        assert_eq!((&a.tag, a.tag.is_empty()), (&b.tag, false));
        // The host that was left out is reported.
        let notes = asking.notes.borrow();
        let failure = notes.first().and_then(|note| note.result.as_ref().err()).map(|(failure, _)| *failure);
        assert_eq!((&*notes[0].host, failure), ("mx2.elsewhere.test", Some(Failure::Validation)));
    });
}

#[test]
fn no_host_that_the_policy_names_makes_the_mail_wait() {
    run(async {
        let world = World::new(&[("a.test", &NAMING_ONE.replace("*.a.test", "mx.b.test"))]).await;
        let a = world.asking().mx("a.test").await;
        assert_eq!((&*refusal(&a), relaxed(&a).len()), ("deferred 451 4.7.5", 2));
    });
}

#[test]
fn in_testing_all_hosts_are_used_and_those_named_are_checked() {
    run(async {
        let world = World::new(&[("a.test", &NAMING_ONE.replace("enforce", "testing"))]).await;
        let a = world.asking().mx("a.test").await;
        assert_eq!(host_names(&a), ["mx1.a.test", "mx2.elsewhere.test"]);
        assert_eq!((&*hosts(&a)[0].tls, &*hosts(&a)[1].tls), (&verify(false), &TlsPolicy::May));
    });
}

#[test]
fn mode_none_and_no_announcement_demand_nothing() {
    run(async {
        let world = World::new(&[("a.test", "version: STSv1\nmode: none\nmax_age: 60\n")]).await;
        world.publish("b.test", NAMING_ONE);
        let asking = world.asking();
        for domain in ["a.test", "b.test"] {
            let resolution = asking.mx(domain).await;
            assert_eq!((hosts(&resolution).len(), policy(&resolution)), (2, &TlsPolicy::May), "{domain}");
        }
        assert_eq!(*world.requests.borrow(), ["mta-sts.a.test"]);
    });
}

#[test]
fn the_operator_goes_before_the_policy() {
    run(async {
        let world = World::new(&[("a.test", NAMING_ONE)]).await;
        let asking = world.asking_with("[tls.domains.\"a.test\"]\nmode = \"encrypt\"");
        let a = asking.mx("a.test").await;
        assert_eq!((hosts(&a).len(), policy(&a)), (2, &TlsPolicy::Encrypt));
        assert_eq!(world.requests.borrow().len(), 0);
    });
}

#[test]
fn a_policy_outlives_a_restart_its_host_and_its_record() {
    run(async {
        let world = World::new(&[("a.test", NAMING_ONE)]).await;
        assert_eq!(policy(&world.asking().mx("a.test").await), &verify(true));
        world.respond("a.test", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(policy(&world.asking().mx("a.test").await), &verify(true));
        assert_eq!(world.requests.borrow().len(), 1);
        world.announced.lock().expect("no panic").clear();
        assert_eq!(policy(&world.asking().mx("a.test").await), &verify(true));
        // Another id, and a host that does not have it: the old one still counts.
        world.announce("a.test", "2");
        assert_eq!(policy(&world.asking().mx("a.test").await), &verify(true));
        assert_eq!(world.requests.borrow().len(), 2);
    });
}

#[test]
fn another_id_brings_another_policy() {
    run(async {
        let world = World::new(&[("a.test", NAMING_ONE)]).await;
        assert_eq!(policy(&world.asking().mx("a.test").await), &verify(true));
        world.announce("a.test", "2");
        world.publish("a.test", &NAMING_ONE.replace("enforce", "testing"));
        assert_eq!(policy(&world.asking().mx("a.test").await), &verify(false));
    });
}

#[test]
fn a_policy_whose_time_is_over_counts_no_more() {
    run(async {
        let world = World::new(&[("a.test", &NAMING_ONE.replace("86400", "0"))]).await;
        let asking = world.asking();
        // The one that was just fetched counts for this answer.
        assert_eq!(policy(&asking.mx("a.test").await), &verify(true));
        world.announced.lock().expect("no panic").clear();
        assert_eq!(policy(&world.asking().mx("a.test").await), &TlsPolicy::May);
    });
}

#[test]
fn what_is_no_policy_is_none_and_its_host_is_left_alone() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nhi\n";
    let moved = "HTTP/1.1 301 Moved\r\nLocation: https://mta-sts.b.test/.well-known/mta-sts.txt\r\nContent-Length: 0\r\n\r\n";
    let wrong = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nhi\n";
    let long = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 70000\r\n\r\n{}",
        "x\n".repeat(35_000)
    );
    let failures = [
        (page, Failure::StsPolicy),
        (moved, Failure::StsFetch),
        (wrong, Failure::StsPolicy),
        (&long, Failure::StsFetch),
    ];
    for (response, expected) in failures {
        run(async {
            let world = World::new(&[("b.test", NAMING_ONE)]).await;
            world.announce("a.test", "1");
            world.respond("a.test", response);
            let asking = world.asking();
            for _ in 0..3 {
                assert_eq!(policy(&asking.mx("a.test").await), &TlsPolicy::May);
            }
            assert_eq!(*world.requests.borrow(), ["mta-sts.a.test"]);
            let notes = asking.notes.borrow();
            let found: Vec<Failure> = notes
                .iter()
                .filter_map(|note| note.result.as_ref().err())
                .map(|(failure, _)| *failure)
                .collect();
            assert_eq!(found, [expected]);
        });
    }
}

#[test]
fn a_host_that_cannot_show_its_certificate_publishes_nothing() {
    run(async {
        let world = World::new(&[("a.test", NAMING_ONE)]).await;
        // The system's authorities do not know ours.
        let asking = world.asking_with("");
        assert_eq!(policy(&asking.mx("a.test").await), &TlsPolicy::May);
        let failure = asking.notes.borrow()[0].result.clone().expect_err("it failed").0;
        assert_eq!((failure, world.requests.borrow().len()), (Failure::StsWebpki, 0));
        // The certificate is not for this name.
        world.announce("c.test", "1");
        world.publish("c.test", NAMING_ONE);
        let asking = world.asking();
        assert_eq!(policy(&asking.mx("c.test").await), &TlsPolicy::May);
        assert_eq!(world.requests.borrow().len(), 0);
    });
}

#[test]
fn cores_that_ask_at_once_fetch_once() {
    run(async {
        let world = World::new(&[("a.test", NAMING_ONE)]).await;
        let asking = world.asking();
        let (one, two) = tokio::join!(asking.mx("a.test"), asking.mx("a.test"));
        assert_eq!((policy(&one), policy(&two)), (&verify(true), &verify(true)));
        assert_eq!(world.requests.borrow().len(), 1);
    });
}

#[test]
fn a_silent_host_of_one_domain_holds_no_other_up() {
    run(async {
        let world = World::new(&[("a.test", NAMING_ONE)]).await;
        world.announce("slow.test", "1");
        let (asking, places) = (Rc::new(world.asking()), Arc::new(Semaphore::new(1)));
        let (slow, place) = (Rc::clone(&asking), Arc::clone(&places).acquire_owned().await.expect("open"));
        let waits = spawn_local(async move {
            policy(&slow.resolver.resolve("slow.test", &Target::Mx, place).await).clone()
        });
        // The one place comes back although the policy is still waited for.
        let place = places.acquire().await.expect("open");
        let a = asking.resolver.resolve("a.test", &Target::Mx, place).await;
        assert_eq!(policy(&a), &verify(true));
        while world.requests.borrow().len() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(!waits.is_finished());
    });
}

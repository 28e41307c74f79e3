//! Cores' questions about those who bring mail, answered: what must be looked up in the DNS or asked elsewhere.

use super::lookups::{LookUps, look_up};
use crate::access::{Found, LookUp};
use crate::clients::{Answer, Ask, Finding, Question};
use crate::crossing::{Crossing, Mail};
use crate::settings::Settings;
use crate::verify::{Letter, Verifier};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Serves until the process ends. Bounds: [`LookUps`]' and [`Verifier`]'s own, and the crossing's queue.
pub(super) async fn serve(crossing: Arc<Crossing>, oracles: Rc<Oracles>) {
    let notify = Arc::new(Notify::new());
    let waker = Arc::clone(&notify);
    crossing.set_client_waker(Box::new(move || waker.notify_one()));
    loop {
        while let Some(question) = crossing.next_client_question() {
            let (crossing, oracles) = (Arc::clone(&crossing), Rc::clone(&oracles));
            tokio::task::spawn_local(async move { answer(&crossing, &oracles, question).await });
        }
        notify.notified().await;
    }
}

async fn answer(crossing: &Crossing, oracles: &Oracles, question: Question) {
    let Question { core, place, ask } = question;
    let found = match ask {
        Ask::WhoIsIt(about) => Finding::Client(Box::new(oracles.find(Some(about)).await)),
        Ask::Message { slot, look_up, letter } => {
            let (found, field) =
                futures_util::future::join(oracles.find(look_up), oracles.verify(letter)).await;
            Finding::Message { slot, found: Box::new(found), field }
        }
    };
    super::socket::send(crossing, core, Mail::Client(Answer { place, found })).await;
}

/// Who knows about clients and their messages. Without name servers nothing is known of anybody.
#[derive(Default)]
pub(super) struct Oracles {
    look_ups: Option<LookUps>,
    verifier: Option<Verifier>,
}

impl Oracles {
    pub(super) fn new(settings: &Settings) -> Oracles {
        let look_ups = LookUps::new(settings);
        let look_ups =
            look_ups.map_err(|error| tracing::error!(%error, "nothing is looked up about clients")).ok();
        let verifier = Verifier::new(&settings.config);
        let verifier = verifier.map_err(|error| tracing::error!(%error, "no message is verified")).ok();
        Oracles { look_ups, verifier }
    }

    pub(super) fn configure(&self, settings: &Settings) {
        if let Some(verifier) = &self.verifier {
            verifier.configure(&settings.config);
        }
    }

    async fn find(&self, about: Option<Box<LookUp>>) -> Found {
        match (&self.look_ups, about) {
            (Some(look_ups), Some(about)) => look_up(look_ups, *about).await,
            _ => Found::default(),
        }
    }

    async fn verify(&self, letter: Option<Box<Letter>>) -> Option<Vec<u8>> {
        let (verifier, letter) = (self.verifier.as_ref()?, letter?);
        Some(verifier.verify(&letter).await.1)
    }
}

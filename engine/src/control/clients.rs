//! Cores' questions about those who bring mail, answered: what must be looked up in the DNS or asked elsewhere.

use super::lookups::{LookUps, look_up};
use crate::access::Found;
use crate::clients::{Answer, Ask, Finding, Question};
use crate::crossing::{Crossing, Mail};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Serves until the process ends. Bounds: [`LookUps`]' own, and the crossing's queue.
pub(super) async fn serve(crossing: Arc<Crossing>, look_ups: Option<Rc<LookUps>>) {
    let notify = Arc::new(Notify::new());
    let waker = Arc::clone(&notify);
    crossing.set_client_waker(Box::new(move || waker.notify_one()));
    loop {
        while let Some(question) = crossing.next_client_question() {
            let (crossing, look_ups) = (Arc::clone(&crossing), look_ups.clone());
            tokio::task::spawn_local(async move { answer(&crossing, look_ups.as_deref(), question).await });
        }
        notify.notified().await;
    }
}

async fn answer(crossing: &Crossing, look_ups: Option<&LookUps>, question: Question) {
    let Question { core, place, ask } = question;
    let found = match ask {
        Ask::WhoIsIt(about) => Finding::Client(Box::new(find(look_ups, Some(about)).await)),
        Ask::Message { slot, look_up } => {
            Finding::Message { slot, found: Box::new(find(look_ups, look_up).await) }
        }
    };
    super::socket::send(crossing, core, Mail::Client(Answer { place, found })).await;
}

/// Without name servers nothing is known of anybody.
async fn find(look_ups: Option<&LookUps>, about: Option<Box<crate::access::LookUp>>) -> Found {
    match (look_ups, about) {
        (Some(look_ups), Some(about)) => look_up(look_ups, *about).await,
        _ => Found::default(),
    }
}

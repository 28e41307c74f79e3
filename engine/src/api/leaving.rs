//! Who leaves a list is put on the suppression list, and there is an event of it.

use super::unsubscribe::Leaving;
use super::{Promise, Refused};
use crate::crossing::Crossing;
use crate::events::{Event, Way};
use crate::suppression::Reason;
use crate::suppression::Who;
use message::Mailbox;
use std::sync::Arc;

/// See the module.
pub(crate) struct Suppressing(pub(crate) Arc<Crossing>);

impl Leaving for Suppressing {
    fn leave<'a>(
        &'a self,
        list: &'a str,
        address: &'a Mailbox,
        way: Way,
    ) -> Promise<'a, Result<bool, Refused>> {
        Box::pin(async move {
            let Suppressing(crossing) = self;
            let has_left = has_left(crossing, list, address).await;
            // Before the entry: who tries again after a crash finds it made, and the event would never come.
            if !has_left {
                crossing.event(&Event::unsubscribed(list, address, way));
            }
            let result = crossing.suppress(list, address.as_str(), Reason::Unsubscribe).await;
            result.map_err(|error| {
                tracing::error!(%error, "a recipient's leaving");
                Refused::Broken
            })
        })
    }
}

/// He said so before. Where that cannot be read, he says it once more.
async fn has_left(crossing: &Crossing, list: &str, address: &Mailbox) -> bool {
    let (suppression, who) = (crossing.suppression.get().cloned(), Who::parse(list, address.as_str()));
    let (Some(suppression), Ok(who)) = (suppression, who) else { return false };
    let look = move || suppression.contains(&who).ok().flatten();
    let found = tokio::task::spawn_blocking(look).await.ok().flatten();
    found.is_some_and(|listed| listed.reason == Reason::Unsubscribe)
}

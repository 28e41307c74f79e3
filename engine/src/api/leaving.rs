//! Who leaves a list is put on the suppression list, and there is an event of it.

use super::unsubscribe::Leaving;
use super::{Promise, Refused};
use crate::crossing::Crossing;
use crate::events::{Event, Way};
use crate::suppression::Reason;
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
            let result = crossing.suppress(list, address.as_str(), Reason::Unsubscribe).await;
            let is_new = result.map_err(|error| {
                tracing::error!(%error, "a recipient's leaving");
                Refused::Broken
            })?;
            if is_new {
                crossing.event(&Event::unsubscribed(list, address, way));
            }
            Ok(is_new)
        })
    }
}

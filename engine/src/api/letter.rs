//! From the words of a request to a letter and its recipients.

use super::recipients::parse_mailbox;
use super::reply::Problem;
use super::request::{CampaignRequest, Content, Dialect, InjectRequest, RecipientObject, VerpWish};
use super::{CampaignId, Injection, Letter, NewCampaign, Recipient, Terms, Values};
use message::header::fields;
use message::list::{list_id, list_of};
use message::verp::BASE_LOCAL_PART_MAX;
use message::{ReversePath, Verp};
use std::net::IpAddr;

/// What the operator allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) recipients_max: u32,
    pub(super) message_size_max: u64,
    /// The configuration says where unsubscribing leads.
    pub(super) can_unsubscribe: bool,
}

/// An injection, and those who cannot be written to.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) injection: Injection,
    /// For each recipient of `injection` his place in the request.
    pub(super) places: Vec<u32>,
    pub(super) failed: Vec<Failed>,
}

/// A recipient who was not taken.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Failed {
    pub(super) email: String,
    pub(super) error: String,
}

impl Failed {
    pub(super) fn new(place: u32, email: String, what: &str) -> Failed {
        Failed { email, error: format!("recipients[{place}].{what}") }
    }
}

impl InjectRequest {
    /// An address that is none is that recipient's failure alone, as KumoMTA has it.
    pub(super) fn read(self, limits: Limits, client: IpAddr) -> Result<Read, Problem> {
        let words = Words {
            sender: self.envelope_sender,
            content: self.content,
            shared: self.substitutions,
            dialect: self.template_dialect,
            verp: self.verp,
            terms: Terms {
                campaign: self.campaign,
                list: self.list,
                lane: self.lane.map(Into::into),
                verp: None,
                unsubscribe: self.unsubscribe,
                trace: self.trace_headers.received_header.then_some(client),
            },
        };
        let letter = words.letter(limits)?;
        let recipients = self.recipients.0;
        if recipients.len() > limits.recipients_max as usize {
            let (count, most) = (recipients.len(), limits.recipients_max);
            return Err(Problem::unfit(
                "recipients",
                format!("{count}, and intake.recipients_max allows {most}: a campaign takes any number"),
            ));
        }
        let (mut known, mut places, mut failed) =
            (Vec::with_capacity(recipients.len()), Vec::new(), Vec::new());
        for (place, recipient) in (0..).zip(recipients) {
            match recipient.read() {
                Ok(recipient) => {
                    known.push(recipient);
                    places.push(place);
                }
                Err((email, what)) => failed.push(Failed::new(place, email, &what)),
            }
        }
        Ok(Read { injection: Injection { letter, recipients: known }, places, failed })
    }
}

impl RecipientObject {
    /// `name` is a field like others; one of that name in `substitutions` goes before it.
    fn read(self) -> Result<Recipient, (String, String)> {
        let RecipientObject { email, name, substitutions: mut values } = self;
        let mailbox = match parse_mailbox(&email) {
            Ok(mailbox) => mailbox,
            Err(what) => return Err((email, format!("email: {what}"))),
        };
        if let Some(name) = name.filter(|_| values.get("name").is_none())
            && let Err(error) = values.push("name", &name)
        {
            return Err((email, format!("name: {error}")));
        }
        Ok(Recipient { mailbox, values })
    }
}

impl CampaignRequest {
    pub(super) fn read(self, id: CampaignId, limits: Limits) -> Result<NewCampaign, Problem> {
        let words = Words {
            sender: self.envelope_sender,
            content: self.content,
            shared: self.substitutions,
            dialect: self.template_dialect,
            verp: self.verp,
            terms: Terms {
                campaign: Some(id),
                list: self.list,
                lane: self.lane.map(Into::into),
                verp: None,
                unsubscribe: self.unsubscribe,
                trace: None,
            },
        };
        Ok(NewCampaign { letter: words.letter(limits)?, rate: self.rate, is_paused: self.paused })
    }
}

/// The words that make a letter.
struct Words {
    sender: String,
    content: Content,
    shared: Values,
    dialect: Dialect,
    verp: VerpWish,
    terms: Terms,
}

impl Words {
    fn letter(self, limits: Limits) -> Result<Letter, Problem> {
        let sender = read_sender(&self.sender)?;
        let verp = fitting(self.verp, &sender)?;
        self.check_unsubscribe(limits)?;
        let (content, is_template) = self.content.compose(self.dialect, limits.message_size_max)?;
        if self.terms.unsubscribe {
            check_no_other_way(&content)?;
        }
        if let Some(list) = &self.terms.list {
            check_same_list(&content, list.as_str())?;
        }
        let terms = Terms { verp, ..self.terms };
        Ok(Letter { sender, content, is_template, shared: self.shared, terms })
    }

    /// A way to leave must lead somewhere, and say what is left.
    fn check_unsubscribe(&self, limits: Limits) -> Result<(), Problem> {
        let Terms { campaign, list, unsubscribe, .. } = &self.terms;
        let wrong = match unsubscribe {
            true if !limits.can_unsubscribe => "unsubscribe.base_url must be configured",
            true if list.is_none() => "list must say what would be left",
            true if campaign.is_none() => "campaign must say what this is part of",
            _ => return Ok(()),
        };
        Err(Problem::unfit("unsubscribe", wrong))
    }
}

/// A letter has one field that says how to leave (RFC 2369 §2), and ours is that one.
fn check_no_other_way(content: &[u8]) -> Result<(), Problem> {
    let is_way = |name: &[u8]| {
        name.eq_ignore_ascii_case(b"List-Unsubscribe") || name.eq_ignore_ascii_case(b"List-Unsubscribe-Post")
    };
    match fields(content).find(|field| is_way(field.name)) {
        Some(field) => {
            let name = String::from_utf8_lossy(field.name);
            Err(Problem::unfit("content", format!("{name} is there already: leave it out, or unsubscribe")))
        }
        None => Ok(()),
    }
}

/// Who leaves the list, or complains about it, must be found where its mail is held back.
fn check_same_list(content: &[u8], list: &str) -> Result<(), Problem> {
    match list_of(content).filter(|own| list_id(list).is_some_and(|list| list != *own)) {
        Some(own) => {
            Err(Problem::unfit("content", format!("it names the list {own:?}, and list is {list:?}")))
        }
        None => Ok(()),
    }
}

/// Empty is `<>`.
fn read_sender(text: &str) -> Result<ReversePath, Problem> {
    if text.is_empty() {
        return Ok(ReversePath::Null);
    }
    parse_mailbox(text).map(ReversePath::Mailbox).map_err(|what| Problem::unfit("envelope_sender", what))
}

fn fitting(wish: VerpWish, sender: &ReversePath) -> Result<Option<Verp>, Problem> {
    match (wish.0, sender) {
        (None, _) => Ok(None),
        (Some(_), ReversePath::Null | ReversePath::DoubleBounce) => {
            Err(Problem::unfit("verp", "it is made from envelope_sender, which is empty"))
        }
        (Some(verp), ReversePath::Mailbox(base)) if Verp::fits(base) => Ok(Some(verp)),
        (Some(_), ReversePath::Mailbox(_)) => Err(Problem::unfit(
            "verp",
            format!(
                "the local part of envelope_sender must have at most {BASE_LOCAL_PART_MAX} letters, none quoted"
            ),
        )),
    }
}

/// Any octets as a request: no panic, and a letter that is taken can be filled in.
pub fn fuzz_inject_request(bytes: &[u8]) {
    let limits = Limits { recipients_max: 100, message_size_max: 1 << 20, can_unsubscribe: true };
    let Ok(request) = super::request::read_json::<InjectRequest>(bytes) else { return };
    let Ok(read) = request.read(limits, IpAddr::from([127, 0, 0, 1])) else { return };
    let Injection { letter, recipients } = read.injection;
    assert_eq!(recipients.len(), read.places.len());
    assert!(!letter.is_template || message::merge::Template::compile(&letter.content).is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_letter_with_its_own_way_to_leave_gets_no_second_one() {
        let refused = |field: &str| {
            let content =
                format!("Subject: x\r\n{field}: <https://old.test/x>\r\n\r\nList-Unsubscribe: no field\r\n");
            check_no_other_way(content.as_bytes()).is_err()
        };
        assert!(refused("list-unsubscribe") && refused("List-Unsubscribe-Post"));
        assert!(!refused("List-Id"));
    }

    #[test]
    fn a_letter_names_no_other_list_than_its_terms() {
        let is_same = |field: &str| check_same_list(format!("{field}\r\n\r\n").as_bytes(), "News").is_ok();
        assert!(is_same("List-Id: The news <news>") && is_same("X-List: news") && is_same("Subject: x"));
        assert!(!is_same("List-Id: <n.example.org>"));
    }

    proptest! {
        #[test]
        fn any_request_is_read_or_refused(
            sender in "([a-z@.]{0,8}|a@x.test)", content in "[ -~\n]{0,60}", email in "([a-z@.{}]{0,8}|b@x.test)", dialect in "(Jinja|Static)"
        ) {
            let whole = serde_json::json!({
                "envelope_sender": sender, "content": content, "template_dialect": dialect,
                "recipients": [{ "email": email, "name": content }],
            });
            fuzz_inject_request(whole.to_string().as_bytes());
            let parts = serde_json::json!({
                "envelope_sender": sender, "template_dialect": dialect, "recipients": [{ "email": email }],
                "content": { "from": { "email": "a@x.test", "name": content }, "subject": content, "text_body": content },
            });
            fuzz_inject_request(parts.to_string().as_bytes());
        }
    }
}

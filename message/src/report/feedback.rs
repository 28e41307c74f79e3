//! Complaints: the abuse reporting format (RFC 5965), and Microsoft's, which has its own field in the message itself.
//!
//! Much is blacked out in them. What leads back to a recipient is the reverse-path of the message complained of.

use super::mime::Part;
use super::{Original, RECIPIENTS_MAX, one_line};
use crate::address::MailboxRef;
use crate::header::fields;

/// What a recipient or its provider says of a message that arrived.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Complaint {
    pub kind: FeedbackType,
    /// The reverse-path of the message, without brackets: of its report, else of its own header.
    pub reverse_path: Option<Box<str>>,
    /// To whom it went, if that is said.
    pub recipients: Vec<Box<str>>,
}

/// RFC 5965 §7.3 and what was registered since.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum FeedbackType {
    Abuse,
    Fraud,
    Virus,
    /// Whoever said so wants no more of it.
    OptOut,
    /// It was taken for spam, and is none.
    NotSpam,
    /// RFC 6591: about signatures, not about whether somebody wants the mail.
    AuthFailure,
    #[default]
    Other,
}

impl FeedbackType {
    fn parse(value: &str) -> FeedbackType {
        match value.to_ascii_lowercase().as_str() {
            "abuse" => FeedbackType::Abuse,
            "fraud" => FeedbackType::Fraud,
            "virus" => FeedbackType::Virus,
            "opt-out" | "opt-out-list" => FeedbackType::OptOut,
            "not-spam" => FeedbackType::NotSpam,
            "auth-failure" => FeedbackType::AuthFailure,
            _ => FeedbackType::Other,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            FeedbackType::Abuse => "abuse",
            FeedbackType::Fraud => "fraud",
            FeedbackType::Virus => "virus",
            FeedbackType::OptOut => "opt-out",
            FeedbackType::NotSpam => "not-spam",
            FeedbackType::AuthFailure => "auth-failure",
            FeedbackType::Other => "other",
        }
    }

    /// Somebody does not want such mail.
    pub fn is_complaint(self) -> bool {
        !matches!(self, FeedbackType::NotSpam | FeedbackType::AuthFailure)
    }
}

pub(super) fn of(parts: &[Part<'_>], original: &Original) -> Option<Complaint> {
    let report = parts.iter().find(|part| part.kind == "message/feedback-report");
    let mut complaint = match report {
        Some(report) => read(&report.body),
        None => microsofts(original)?,
    };
    if complaint.reverse_path.is_none() {
        complaint.reverse_path = original.values("return-path").find_map(|value| address_of(&value));
    }
    Some(complaint)
}

fn read(body: &[u8]) -> Complaint {
    let mut complaint = Complaint::default();
    for field in fields(body.trim_ascii_start()) {
        let value = one_line(&field.whole[field.name.len() + 1..]);
        match field.name.to_ascii_lowercase().as_slice() {
            b"feedback-type" => complaint.kind = FeedbackType::parse(&value),
            b"original-mail-from" => complaint.reverse_path = address_of(&value),
            b"original-rcpt-to" if complaint.recipients.len() < RECIPIENTS_MAX => {
                complaint.recipients.extend(address_of(&value));
            }
            _ => {}
        }
    }
    complaint
}

/// The whole message comes back, with a field that names who complained.
fn microsofts(original: &Original) -> Option<Complaint> {
    let who = original.values("x-hmxmroriginalrecipient").next()?;
    let recipients = address_of(&who).into_iter().collect();
    Some(Complaint { kind: FeedbackType::Abuse, reverse_path: None, recipients })
}

fn address_of(value: &str) -> Option<Box<str>> {
    let address = value.trim().trim_start_matches('<').split(['>', ' ']).next().unwrap_or_default();
    MailboxRef::parse(address).ok().map(|_| address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_known_by_its_name() {
        for kind in ["abuse", "fraud", "virus", "opt-out", "not-spam", "auth-failure", "other"] {
            assert_eq!(FeedbackType::parse(&kind.to_uppercase()).name(), kind);
        }
        assert_eq!(FeedbackType::parse("anything"), FeedbackType::Other);
        assert!(FeedbackType::Abuse.is_complaint() && !FeedbackType::NotSpam.is_complaint());
    }

    #[test]
    fn fields_may_be_said_more_than_once() {
        let complaint = read(
            b"Feedback-Type: abuse\nOriginal-Rcpt-To: <a@x.test>\nOriginal-Mail-From: <l+a=x.test@b.test>\n\
                               Original-Rcpt-To: b@x.test\nOriginal-Rcpt-To: redacted\n",
        );
        assert_eq!(complaint.recipients, ["a@x.test".into(), "b@x.test".into()]);
        assert_eq!(complaint.reverse_path.as_deref(), Some("l+a=x.test@b.test"));
    }
}

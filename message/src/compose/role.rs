//! Which header fields the rules know, by what they are for (RFC 5322 §3.6, qmail-header(5)).

/// What a field is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    ApparentlyTo,
    Bcc,
    Cc,
    ContentLength,
    Date,
    ErrorsTo,
    FollowupTo,
    From,
    MessageId,
    ReplyTo,
    ReturnPath,
    ReturnReceiptTo,
    Sender,
    To,
    Other,
}

/// A role, and whether it is played for a forwarding of the message (RFC 5322 §3.6.6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Known {
    pub role: Role,
    pub resent: bool,
}

const ROLES: &[(&str, Role)] = &[
    ("apparently-to", Role::ApparentlyTo),
    ("bcc", Role::Bcc),
    ("cc", Role::Cc),
    ("content-length", Role::ContentLength),
    ("date", Role::Date),
    ("errors-to", Role::ErrorsTo),
    ("from", Role::From),
    ("mail-followup-to", Role::FollowupTo),
    ("message-id", Role::MessageId),
    ("reply-to", Role::ReplyTo),
    ("return-path", Role::ReturnPath),
    ("return-receipt-to", Role::ReturnReceiptTo),
    ("sender", Role::Sender),
    ("to", Role::To),
];

impl Known {
    /// By the field's name, whatever its case. Cost: a few comparisons.
    pub(crate) fn of(name: &[u8]) -> Known {
        const RESENT: &[u8] = b"resent-";
        let plain = |name: &[u8]| {
            let found = ROLES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
            found.map_or(Role::Other, |(_, role)| *role)
        };
        match name.split_at_checked(RESENT.len()) {
            Some((start, rest)) if start.eq_ignore_ascii_case(RESENT) => match plain(rest) {
                role @ (Role::Bcc | Role::Cc | Role::Date | Role::From) => Known { role, resent: true },
                role @ (Role::MessageId | Role::ReplyTo | Role::Sender | Role::To) => {
                    Known { role, resent: true }
                }
                _ => Known { role: Role::Other, resent: false },
            },
            _ => Known { role: plain(name), resent: false },
        }
    }
}

impl Role {
    /// The field holds an address list that is completed.
    pub(crate) fn has_addresses(self) -> bool {
        self.names_recipients()
            || matches!(
                self,
                Role::From
                    | Role::Sender
                    | Role::ReplyTo
                    | Role::ReturnPath
                    | Role::ReturnReceiptTo
                    | Role::ErrorsTo
            )
    }

    pub(crate) fn names_recipients(self) -> bool {
        matches!(self, Role::To | Role::Cc | Role::Bcc | Role::ApparentlyTo)
    }

    /// The field says who writes.
    pub(crate) fn names_author(self) -> bool {
        matches!(self, Role::From | Role::Sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(Known::of(b"MESSAGE-Id"), Known { role: Role::MessageId, resent: false });
        assert_eq!(Known::of(b"resent-TO"), Known { role: Role::To, resent: true });
        assert_eq!(Known::of(b"Resent-Subject"), Known { role: Role::Other, resent: false });
        assert_eq!(Known::of(b"Resent-Apparently-To").role, Role::Other);
        assert_eq!(Known::of(b"Subject").role, Role::Other);
    }
}

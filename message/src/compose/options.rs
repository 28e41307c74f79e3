//! What the caller of inject or sendmail asked for.

use super::masquerade::Masquerade;

/// Where recipients come from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RecipientsFrom {
    /// `-A`: the arguments if there are any, else the header.
    #[default]
    ArgumentsElseHeader,
    /// `-a`.
    Arguments,
    /// `-h`.
    Header,
    /// `-H`.
    Both,
}

/// How arguments and `-f` are read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ArgumentSyntax {
    /// qmail-inject: an argument is one address as it is; whatever stands before its last `@` is the local part.
    #[default]
    Plain,
    /// sendmail: an argument is an address list as in a header: `Ann <ann@example.net>, bob`.
    List,
}

/// The letters of `QMAILINJECT`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Letters {
    /// `c`: From as `address (name)`.
    pub comment_style: bool,
    /// `s`: Return-Path does not set the envelope's sender.
    pub ignore_return_path: bool,
    /// `f`: From is deleted, and made anew.
    pub delete_from: bool,
    /// `i`: Message-ID is deleted, and made anew.
    pub delete_message_id: bool,
    /// `r`: the default sender gets each recipient added.
    pub verp_per_recipient: bool,
    /// `m`: the default sender gets date and process added.
    pub verp_per_message: bool,
}

impl Letters {
    /// Reads the variable's value. Letters that say nothing are passed over, as qmail does.
    pub fn parse(text: &str) -> Letters {
        Letters {
            comment_style: text.contains('c'),
            ignore_return_path: text.contains('s'),
            delete_from: text.contains('f'),
            delete_message_id: text.contains('i'),
            verp_per_recipient: text.contains('r'),
            verp_per_message: text.contains('m'),
        }
    }
}

/// All that is asked for beside the message itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub recipients_from: RecipientsFrom,
    /// The arguments that are recipients.
    pub recipients: Vec<String>,
    pub argument_syntax: ArgumentSyntax,
    /// `-f`; the empty text and `<>` are the null sender, `pre@host-@[]` asks for VERP.
    pub sender: Option<String>,
    pub letters: Letters,
    /// Addresses of mailing lists that the user is on (`QMAILMFTFILE`, one per line).
    pub followup_lists: Vec<String>,
    pub masquerade: Masquerade,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_in_any_order() {
        let letters = Letters::parse("mQr?c");
        let want = Letters {
            comment_style: true,
            verp_per_recipient: true,
            verp_per_message: true,
            ..Letters::default()
        };
        assert_eq!(letters, want);
    }
}

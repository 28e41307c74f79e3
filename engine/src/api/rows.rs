//! Recipients with what is put into their copies, as a core's log takes them.
//!
//! Every field that a letter names is a column; a recipient who brings no value for one that has no default is rejected
//! here, with the field's name, and so is one whose value may not stand where the letter wants it. Trusts no value.
//! Bounds: [`COLUMNS_MAX`](message::envelope::COLUMNS_MAX) and [`VALUES_MAX`](message::envelope::VALUES_MAX).

use super::{Recipient, Refused, Rejected, Values};
use message::merge::{self, Bound, Template};
use message::{RecipientAsked, Recipients};

/// The recipients of one message; a table, if its letter names fields.
pub(crate) struct Rows<'a> {
    pub(crate) list: Recipients,
    bound: Option<&'a Bound>,
    columns: Vec<&'a str>,
    shared: &'a Values,
    /// One row's values, as they are kept.
    encoded: Vec<u8>,
}

impl<'a> Rows<'a> {
    /// `bound`: the letter, if it names fields. `shared`: values for whoever brings none.
    pub(crate) fn new(bound: Option<&'a Bound>, shared: &'a Values) -> Result<Rows<'a>, Refused> {
        let columns: Vec<&str> = bound.map(columns_of).unwrap_or_default();
        let list = match bound {
            None => Recipients::new(),
            Some(_) => table_of(&columns).ok_or_else(|| Refused::Unfit {
                place: "content".to_owned(),
                what: "the names of its fields have more than 4,096 octets together".to_owned(),
            })?,
        };
        Ok(Rows { list, bound, columns, shared, encoded: Vec::new() })
    }

    /// Returns those who do not fit.
    pub(crate) fn push_all(
        &mut self,
        recipients: &[Recipient],
        is_suppressed: impl Fn(&Recipient) -> bool,
    ) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        for (place, recipient) in recipients.iter().enumerate() {
            let pushed = match is_suppressed(recipient) {
                true => Err(Rejected::suppressed(place, recipient)),
                false => self.push(recipient).map_err(|what| Rejected::new(place, recipient, what)),
            };
            rejected.extend(pushed.err());
        }
        rejected
    }

    /// Says what does not fit, with the recipient's member that it is about.
    pub(crate) fn push(&mut self, recipient: &Recipient) -> Result<(), String> {
        let mailbox = recipient.mailbox.as_ref();
        let Some(bound) = self.bound else {
            self.list.push(mailbox);
            return Ok(());
        };
        let email = mailbox.to_string();
        let own = |name: &str| recipient.values.get(name).or_else(|| self.shared.get(name));
        let value = |name: &str| if name == merge::EMAIL { Some(&*email) } else { own(name) };
        let is_there = |name: &str| value(name).is_some();
        bound.template().check(is_there).map_err(|missing| format!("substitutions: {missing}"))?;
        let values: Vec<&str> = self.columns.iter().map(|name| value(name).unwrap_or_default()).collect();
        bound.check(&values).map_err(|error| format!("substitutions: {error}"))?;
        self.encoded.clear();
        let is_short = merge::fields::encode(&values, &mut self.encoded).is_ok();
        if is_short && self.list.push_row(mailbox, RecipientAsked::default(), &self.encoded) {
            return Ok(());
        }
        Err("substitutions: a recipient's values have at most 16 KiB together".to_owned())
    }
}

impl Rejected {
    pub(crate) fn suppressed(place: usize, recipient: &Recipient) -> Rejected {
        Rejected::new(place, recipient, "email: it is on the suppression list".to_owned())
    }

    pub(crate) fn new(place: usize, recipient: &Recipient, what: String) -> Rejected {
        let place = u32::try_from(place).expect("a batch, or a request's recipients");
        Rejected { place, mailbox: recipient.mailbox.clone(), what }
    }
}

/// The fields of a template are the columns of its table.
fn columns_of(bound: &Bound) -> Vec<&str> {
    bound.template().fields().iter().map(|field| &*field.name).collect()
}

/// A table without rows. `None`: the names are too long together.
fn table_of(columns: &[&str]) -> Option<Recipients> {
    let mut encoded = Vec::new();
    merge::fields::encode(columns, &mut encoded).ok()?;
    Recipients::with_columns(encoded)
}

/// A letter that names fields, each with its own column.
pub(crate) fn compile(content: &[u8]) -> Result<Bound, Refused> {
    let unfit = |what: String| Refused::Unfit { place: "content".to_owned(), what };
    let template = Template::compile(content).map_err(|error| unfit(error.to_string()))?;
    let fields: Vec<Box<str>> = template.fields().iter().map(|field| field.name.clone()).collect();
    let columns: Vec<&str> = fields.iter().map(|name| &**name).collect();
    template.bind(&columns).map_err(|missing| unfit(format!("{} has no column", missing.field)))
}

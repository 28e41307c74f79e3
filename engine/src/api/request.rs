//! What requests say in JSON, as they say it: the words of KumoMTA's `InjectV1Request`, and those of our own beside them.
//!
//! As KumoMTA does, an object with a member that is not known is refused, so that a word that is misspelt is not passed
//! over. An error names the member: `recipients[17].email`. Bounds: the body's length, [`RECIPIENTS_MAX`], and those of
//! [`super::values`].

use super::reply::Problem;
use super::values::Values;
use super::{CampaignId, ListName};
use crate::config::Rate;
use axum::http::StatusCode;
use message::{Lane, Verp};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Recipients of one request, whatever `intake.recipients_max` says.
pub(super) const RECIPIENTS_MAX: usize = 100_000;

/// Attachments and header fields of a letter that is to be built.
const PARTS_MAX: usize = 1000;

/// `POST /api/inject/v1`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InjectRequest {
    pub(super) envelope_sender: String,
    pub(super) content: Content,
    pub(super) recipients: Bounded<RecipientObject, RECIPIENTS_MAX>,
    #[serde(default)]
    pub(super) substitutions: Values,
    /// Ours is always durable before it is answered.
    #[serde(default, rename = "deferred_spool")]
    _deferred_spool: bool,
    /// Ours is always generated as it is sent.
    #[serde(default, rename = "deferred_generation")]
    _deferred_generation: bool,
    #[serde(default)]
    pub(super) trace_headers: TraceHeaders,
    #[serde(default)]
    pub(super) template_dialect: Dialect,
    pub(super) campaign: Option<CampaignId>,
    pub(super) list: Option<ListName>,
    pub(super) lane: Option<LaneName>,
    #[serde(default)]
    pub(super) verp: VerpWish,
    #[serde(default)]
    pub(super) unsubscribe: bool,
}

/// `PUT /api/campaigns/{id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CampaignRequest {
    pub(super) envelope_sender: String,
    pub(super) content: Content,
    #[serde(default)]
    pub(super) substitutions: Values,
    #[serde(default)]
    pub(super) template_dialect: Dialect,
    pub(super) list: Option<ListName>,
    pub(super) lane: Option<LaneName>,
    #[serde(default)]
    pub(super) verp: VerpWish,
    #[serde(default)]
    pub(super) unsubscribe: bool,
    pub(super) rate: Option<Rate>,
    #[serde(default)]
    pub(super) paused: bool,
}

/// `POST /api/campaigns/{id}/rate`. `null` takes the limit away.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateRequest {
    #[serde(deserialize_with = "Option::deserialize")]
    pub(super) rate: Option<Rate>,
}

/// One of `recipients`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecipientObject {
    pub(super) email: String,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) substitutions: Values,
}

/// A whole message, or what one is to be built of.
#[derive(Debug)]
pub(super) enum Content {
    Whole(String),
    Parts(Box<Parts>),
}

/// What a message is to be built of.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Parts {
    pub(super) text_body: Option<String>,
    pub(super) html_body: Option<String>,
    pub(super) amp_html_body: Option<String>,
    pub(super) attachments: Bounded<Attachment, PARTS_MAX>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) from: Option<NamedAddress>,
    pub(super) subject: Option<String>,
    pub(super) reply_to: Option<NamedAddress>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedAddress {
    pub(super) email: String,
    pub(super) name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attachment {
    pub(super) data: String,
    pub(super) content_type: String,
    pub(super) content_id: Option<String>,
    pub(super) file_name: Option<String>,
    #[serde(default)]
    pub(super) base64: bool,
}

/// Which fields are put on top.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TraceHeaders {
    pub(super) received_header: bool,
    /// `X-KumoRef`, which we do not make: campaign and VERP say what it is for.
    supplemental_header: bool,
    header_name: Option<String>,
    include_meta_names: Vec<String>,
}

/// What braces mean.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
pub(super) enum Dialect {
    #[default]
    Jinja,
    Handlebars,
    Static,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LaneName {
    Urgent,
    Normal,
    Bulk,
}

impl From<LaneName> for Lane {
    fn from(name: LaneName) -> Lane {
        match name {
            LaneName::Urgent => Lane::Urgent,
            LaneName::Normal => Lane::Normal,
            LaneName::Bulk => Lane::Bulk,
        }
    }
}

/// `true` is XVERP without an argument; `"-="` are delimiters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct VerpWish(pub(super) Option<Verp>);

impl<'de> Deserialize<'de> for VerpWish {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<VerpWish, D::Error> {
        struct Wish;

        impl Visitor<'_> for Wish {
            type Value = VerpWish;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or two delimiters of -+=, such as \"+=\"")
            }

            fn visit_bool<E>(self, is_wanted: bool) -> Result<VerpWish, E> {
                Ok(VerpWish(is_wanted.then_some(Verp::DEFAULT)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<VerpWish, E> {
                let verp = Verp::with_delimiters(text);
                verp.map(|verp| VerpWish(Some(verp)))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Wish)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a message as a string, or an object with text_body, html_body, subject and the like",
                )
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Whole(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Content, E> {
                Ok(Content::Whole(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Content, A::Error> {
                Parts::deserialize(de::value::MapAccessDeserializer::new(map))
                    .map(|parts| Content::Parts(parts.into()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// A list that is not read past its bound.
#[derive(Debug)]
pub(super) struct Bounded<T, const MAX: usize>(pub(super) Vec<T>);

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Bounded<T, MAX> {
        Bounded(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bounded<T, MAX>, D::Error> {
        struct Elements<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
            type Value = Bounded<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Bounded<T, MAX>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    if elements.len() == MAX {
                        return Err(de::Error::invalid_length(MAX + 1, &self));
                    }
                    elements.push(element);
                }
                Ok(Bounded(elements))
            }
        }

        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

/// A JSON document: 400 if it is none, 422 if it is not what is wanted, with the member's name.
pub(super) fn read_json<T: DeserializeOwned>(octets: &[u8]) -> Result<T, Problem> {
    // serde would take a list of the members' values as well.
    if octets.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "the body is a list, and must be an object",
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(octets);
    let read: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data if path != "." => Problem::unfit(&path, inner),
            serde_json::error::Category::Data => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, inner.to_string())
            }
            _ => Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {inner}")),
        }
    })?;
    let ended = deserializer.end();
    ended.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}")))?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#""envelope_sender":"a@a.test","content":"Subject: x\n\nhi""#;

    fn inject(more: &str) -> Result<InjectRequest, String> {
        read_json(format!("{{{LEAST},{more}}}").as_bytes()).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn everything_that_clients_of_kumomta_send_is_read() {
        let request = inject(
            r#""recipients":[{"email":"b@b.test","name":"Bob","substitutions":{"age":42}}],
            "substitutions":{"title":"Fall"},"deferred_spool":true,"deferred_generation":true,
            "trace_headers":{"received_header":true,"supplemental_header":true,"header_name":"X-R","include_meta_names":["a"]},
            "template_dialect":"Static""#,
        )
        .unwrap();
        let bob = &request.recipients.0[0];
        assert_eq!(
            (&*bob.email, bob.name.as_deref(), bob.substitutions.get("age")),
            ("b@b.test", Some("Bob"), Some("42"))
        );
        assert_eq!(request.substitutions.get("title"), Some("Fall"));
        assert!(request.trace_headers.received_header && request.template_dialect == Dialect::Static);
        let parts = r#"{"envelope_sender":"","recipients":[],"content":{"text_body":"t","html_body":"h","amp_html_body":"a",
            "attachments":[{"data":"R0lG","base64":true,"content_type":"image/gif","content_id":"i","file_name":"p.gif"}],
            "from":{"email":"f@f.test","name":"F"},"subject":"s","reply_to":{"email":"r@r.test"},"headers":{"X-Y":"z"}}}"#;
        let request: InjectRequest = read_json(parts.as_bytes()).unwrap();
        assert!(matches!(request.content, Content::Parts(parts) if parts.attachments.0[0].base64));
    }

    #[test]
    fn our_own_words_are_read() {
        let words = r#""recipients":[],"campaign":"spring","list":"news","lane":"bulk","verp":"-=","unsubscribe":true"#;
        let request = inject(words).unwrap();
        assert_eq!(request.campaign.unwrap().as_str(), "spring");
        assert_eq!(request.verp.0, Verp::with_delimiters("-="));
        assert!(inject(r#""recipients":[],"verp":true"#).unwrap().verp.0 == Some(Verp::DEFAULT));
        let rate = |json: &str| read_json::<RateRequest>(json.as_bytes()).map(|request| request.rate);
        assert_eq!(rate(r#"{"rate":"100/min"}"#).unwrap().unwrap().count(), 100);
        assert!(rate(r#"{"rate":null}"#).unwrap().is_none() && rate("{}").is_err());
    }

    #[test]
    fn an_error_names_the_member() {
        let wrong = |more: &str| inject(more).unwrap_err();
        assert!(
            wrong(r#""recipients":[{"email":"b@b.test"},{"email":1}]"#)
                .contains("recipients[1].email: invalid type")
        );
        assert!(wrong(r#""recipients":[{"mail":"b@b.test"}]"#).contains("recipients[0].mail: unknown field"));
        assert!(
            wrong(r#""recipients":[{"email":"b@b.test","substitutions":{"a":[]}}]"#)
                .contains("recipients[0].substitutions")
        );
        assert!(wrong(r#""recipients":[],"lane":"slow""#).contains("lane: unknown variant"));
        assert!(wrong(r#""recipients":[],"verp":"xy""#).contains("two delimiters"));
        assert!(wrong(r#""recipients":[],"campaign":"a b""#).contains("campaign: a name has"));
        assert!(wrong(r#""recipients":[],"recipient":[]"#).contains("recipient: unknown field"));
        assert!(wrong(r#""deferred_spool":true"#).contains("missing field `recipients`"));
        let parts = r#"{"envelope_sender":"","recipients":[],"content":{"attachments":[{"data":1}]}}"#;
        let said = format!("{:?}", read_json::<InjectRequest>(parts.as_bytes()).unwrap_err());
        assert!(said.contains("content.attachments[0].data: invalid type"), "{said}");
    }

    #[test]
    fn what_is_no_json_is_another_status() {
        let status = |text: &str| read_json::<InjectRequest>(text.as_bytes()).unwrap_err().status;
        assert_eq!(status("{"), StatusCode::BAD_REQUEST);
        assert_eq!(status(&format!("{{{LEAST},\"recipients\":[]}} x")), StatusCode::BAD_REQUEST);
        assert_eq!(status("[]"), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(status("\u{7f}"), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_list_is_not_read_past_its_bound() {
        let read = |text: &str| serde_json::from_str::<Bounded<u8, 2>>(text).map(|list| list.0);
        assert_eq!(read("[1,2]").unwrap(), [1, 2]);
        assert!(read("[1,2,3]").unwrap_err().to_string().contains("at most 2"));
    }
}

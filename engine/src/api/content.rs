//! From the content of a request to a message: whole as it came, or built of its parts.

use super::reply::Problem;
use super::request::{Attachment, Content, Dialect, NamedAddress, Parts};
use bytes::Bytes;
use message::ContentFacts;
use message::build::{self, Data, Person, build_undated, encode_whole};
use message::compose::header::put_lines;
use message::merge::{Template, escaped};
use std::borrow::Cow;

impl Content {
    /// The message with lines that end in CRLF, and whether fields are to be filled in.
    pub(super) fn compose(self, dialect: Dialect, size_max: u64) -> Result<(Bytes, bool), Problem> {
        let (content, is_template) = match self {
            Content::Whole(text) => whole(&text, dialect)?,
            // Each copy has its recipient in To, or a field of the client's own.
            Content::Parts(parts) => {
                let content = parts.build(dialect)?;
                let is_template = is_template(&content)?;
                (content, is_template)
            }
        };
        if content.len() as u64 > size_max {
            let len = content.len();
            let what = format!("{len} octets, and intake.message_size_max allows {size_max}");
            return Err(Problem::unfit("content", what));
        }
        Ok((Bytes::from(content), is_template))
    }
}

fn whole(text: &str, dialect: Dialect) -> Result<(Vec<u8>, bool), Problem> {
    let mut lines = Vec::with_capacity(text.len() + text.len() / 32);
    put_lines(text.as_bytes(), &mut lines);
    let facts = ContentFacts::of(&lines);
    if facts.has_nul() || facts.has_bare_newlines() {
        return Err(Problem::unfit("content", "it has a NUL, or a CR that no LF follows"));
    }
    let content = encode_whole(&lines).unwrap_or(lines);
    let is_template = dialect != Dialect::Static && is_template(&content)?;
    Ok((content, is_template))
}

/// A message without braces may be written in any way; one with them must be a template that can be filled in.
fn is_template(content: &[u8]) -> Result<bool, Problem> {
    let has_braces = content.windows(2).any(|pair| matches!(pair, b"{{" | b"{%" | b"{#"));
    match Template::compile(content) {
        Ok(template) => Ok(has_braces || !template.fields().is_empty()),
        Err(error) if has_braces => Err(Problem::unfit("content", error)),
        Err(_) => Ok(false),
    }
}

impl Parts {
    fn build(&self, dialect: Dialect) -> Result<Vec<u8>, Problem> {
        let own = |text: &str| -> String {
            // Where braces are braces, only what we write ourselves is filled in.
            if dialect == Dialect::Static { escaped(text) } else { Cow::Borrowed(text) }.into_owned()
        };
        let texts = [&self.text_body, &self.html_body, &self.amp_html_body, &self.subject];
        let [text_body, html_body, amp_html_body, subject] = texts.map(|text| text.as_deref().map(own));
        let names = [&self.from, &self.reply_to]
            .map(|person| person.as_ref().and_then(|person| person.name.as_deref()).map(own));
        let values: Vec<String> = self.headers.values().map(|value| own(value)).collect();
        let headers: Vec<(&str, &str)> =
            self.headers.keys().map(String::as_str).zip(values.iter().map(String::as_str)).collect();
        let attachments: Vec<build::Attachment<'_>> =
            self.attachments.0.iter().map(Attachment::as_part).collect();
        let letter = build::Letter {
            from: self.from.as_ref().map(|from| from.as_person(names[0].as_deref())),
            reply_to: self.reply_to.as_ref().map(|to| to.as_person(names[1].as_deref())),
            subject: subject.as_deref(),
            to_each: true,
            text_body: text_body.as_deref(),
            html_body: html_body.as_deref(),
            amp_html_body: amp_html_body.as_deref(),
            headers: &headers,
            attachments: &attachments,
        };
        build_undated(&letter)
            .map_err(|error| Problem::unfit(&format!("content.{}", error.field), error.problem))
    }
}

impl NamedAddress {
    fn as_person<'a>(&'a self, name: Option<&'a str>) -> Person<'a> {
        Person { email: &self.email, name }
    }
}

impl Attachment {
    fn as_part(&self) -> build::Attachment<'_> {
        build::Attachment {
            content_type: &self.content_type,
            data: if self.base64 { Data::Base64(&self.data) } else { Data::Text(&self.data) },
            file_name: self.file_name.as_deref(),
            content_id: self.content_id.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(json: &str, dialect: Dialect) -> Result<(String, bool), String> {
        let content = Content::Parts(Box::new(serde_json::from_str(json).unwrap()));
        let composed = content.compose(dialect, 100_000).map_err(|problem| format!("{problem:?}"))?;
        Ok((String::from_utf8(composed.0.to_vec()).unwrap(), composed.1))
    }

    fn text(text: &str, dialect: Dialect) -> Result<(String, bool), String> {
        let composed = Content::Whole(text.to_owned()).compose(dialect, 1000);
        let (content, is_template) = composed.map_err(|problem| format!("{problem:?}"))?;
        Ok((String::from_utf8(content.to_vec()).unwrap(), is_template))
    }

    #[test]
    fn parts_become_a_message_to_each() {
        let json =
            r#"{"from":{"email":"news@x.test","name":"News"},"subject":"Hello {{ name }}","text_body":"hi"}"#;
        let (message, is_template) = parts(json, Dialect::Jinja).unwrap();
        assert!(is_template && message.contains("To: {{name|default(\"\")}} <{{email}}>\r\n"), "{message}");
        assert!(!message.contains("Date:"), "who completes it makes it once: {message}");
        assert_eq!(parts(json, Dialect::Jinja).unwrap().0, message, "the same again is the same");
    }

    #[test]
    fn braces_of_static_parts_stay_braces() {
        let json = r#"{"from":{"email":"news@x.test"},"subject":"{{ x }}","text_body":"{% y %}","headers":{"X-A":"{{z}}"}}"#;
        let (message, is_template) = parts(json, Dialect::Static).unwrap();
        let template = Template::compile(message.as_bytes()).unwrap();
        let fields: Vec<&str> = template.fields().iter().map(|field| &*field.name).collect();
        assert!(is_template && fields == ["name", "email"], "{fields:?}");
        let (mut header, mut body) = (Vec::new(), Vec::new());
        let bound = template.bind(&["name", "email"]).unwrap();
        bound.render_header(&["Ann", "ann@a.test"], &mut header);
        bound.render_body(&["Ann", "ann@a.test"], &mut body);
        let (header, body) = (String::from_utf8(header).unwrap(), String::from_utf8(body).unwrap());
        assert!(header.contains("Subject: {{ x }}\r\n") && header.contains("X-A: {{z}}\r\n"), "{header}");
        assert!(header.contains("To: Ann <ann@a.test>\r\n") && body.contains("{% y %}"), "{header}{body}");
    }

    #[test]
    fn what_is_wrong_with_parts_is_named() {
        let wrong = |json: &str| parts(json, Dialect::Jinja).unwrap_err();
        assert!(wrong("{}").contains("content.text_body: text_body or html_body is needed"));
        assert!(wrong(r#"{"text_body":"x"}"#).contains("content.from: it is missing"));
        let from = r#""from":{"email":"a@x.test"},"text_body":"x""#;
        assert!(wrong(&format!(r#"{{{from},"headers":{{"X Y":"z"}}}}"#)).contains("content.headers.X Y"));
        let attachment = r#""attachments":[{"data":"?","base64":true,"content_type":"image/gif"}]"#;
        assert!(
            wrong(&format!("{{{from},{attachment}}}"))
                .contains("content.attachments[0].data: it is not base64")
        );
        assert!(wrong(&format!(r#"{{{from},"html_body":"{{% if %}}"}}"#)).contains("loops, conditions"));
    }

    #[test]
    fn a_whole_message_keeps_its_words() {
        assert_eq!(
            text("Subject: a\n\nb\n", Dialect::Jinja).unwrap(),
            ("Subject: a\r\n\r\nb\r\n".into(), false)
        );
        assert!(!text("Subject: {{ a }}\n\nb\n", Dialect::Static).unwrap().1);
        assert!(text("Subject: {{ a }}\n\nb\n", Dialect::Handlebars).unwrap().1);
        assert!(text("no field\n\nb\n", Dialect::Jinja).is_ok_and(|(_, is_template)| !is_template));
        let coded = "Subject: a\nMIME-Version: 1.0\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\ne3tuYW1lfX0=\n";
        assert!(text(coded, Dialect::Jinja).unwrap().1, "a field within base64 is one");
        assert!(text("Subject: Grüße\n\nb\n", Dialect::Jinja).unwrap().0.starts_with("Subject: =?UTF-8?"));
        assert!(text(&"x".repeat(1001), Dialect::Jinja).unwrap_err().contains("1001 octets"));
    }
}

//! What the sender wants to hear of its message (RFC 3461), as sendmail's `-N`, `-R` and `-V` say it.

/// Longest ENVID, in octets as they go over the wire (RFC 3461 §4.4).
const ENVID_MAX: usize = 100;

/// See the module. Empty: the daemon's habits.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Dsn {
    /// `NEVER`, or some of `SUCCESS`, `FAILURE` and `DELAY`.
    notify: Option<String>,
    /// `FULL` or `HDRS`.
    ret: Option<&'static str>,
    /// As xtext.
    envid: Option<String>,
}

impl Dsn {
    /// `-N never` or `-N failure,delay,success`.
    pub(super) fn set_notify(&mut self, text: &str) -> Result<(), String> {
        let words: Vec<String> = text.split(',').map(|word| word.trim().to_ascii_uppercase()).collect();
        let is_known = |word: &String| ["SUCCESS", "FAILURE", "DELAY"].contains(&word.as_str());
        if words != ["NEVER"] && !words.iter().all(is_known) {
            return Err(format!("-N {text:?}: write never, or some of failure, delay and success"));
        }
        self.notify = Some(words.join(","));
        Ok(())
    }

    /// `-R full` or `-R hdrs`.
    pub(super) fn set_ret(&mut self, text: &str) -> Result<(), String> {
        self.ret = match text.to_ascii_lowercase().as_str() {
            "full" => Some("FULL"),
            "hdrs" => Some("HDRS"),
            _ => return Err(format!("-R {text:?}: write full or hdrs")),
        };
        Ok(())
    }

    /// `-V envid`, in plain text.
    pub(super) fn set_envid(&mut self, text: &str) -> Result<(), String> {
        let coded = xtext(text);
        if coded.is_empty() || coded.len() > ENVID_MAX {
            return Err(format!("-V {text:?}: an envelope id has 1 to {ENVID_MAX} octets"));
        }
        self.envid = Some(coded);
        Ok(())
    }

    pub(super) fn write_mail(&self, line: &mut String) {
        if let Some(ret) = self.ret {
            line.push_str(&format!(" RET={ret}"));
        }
        if let Some(envid) = &self.envid {
            line.push_str(&format!(" ENVID={envid}"));
        }
    }

    pub(super) fn write_rcpt(&self, line: &mut String) {
        if let Some(notify) = &self.notify {
            line.push_str(&format!(" NOTIFY={notify}"));
        }
    }
}

/// RFC 3461 §4: printable ASCII without `+` and `=`, all else as `+` and two digits.
fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'+' | b'=' => out.push_str(&format!("+{octet:02X}")),
            b'!'..=b'~' => out.push(char::from(octet)),
            _ => out.push_str(&format!("+{octet:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_become_parameters() {
        let mut dsn = Dsn::default();
        dsn.set_notify("failure, delay").unwrap();
        dsn.set_ret("HDRS").unwrap();
        dsn.set_envid("a=b c").unwrap();
        let (mut mail, mut rcpt) = (String::new(), String::new());
        dsn.write_mail(&mut mail);
        dsn.write_rcpt(&mut rcpt);
        assert_eq!((mail.as_str(), rcpt.as_str()), (" RET=HDRS ENVID=a+3Db+20c", " NOTIFY=FAILURE,DELAY"));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let mut dsn = Dsn::default();
        assert!(dsn.set_notify("never,failure").is_err());
        assert!(dsn.set_notify("failure\r\nRCPT TO:<x>").is_err());
        assert!(dsn.set_ret("half").is_err());
        assert!(dsn.set_envid(&"x".repeat(101)).is_err());
        assert_eq!(dsn, Dsn::default());
    }
}

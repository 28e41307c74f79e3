//! Who writes: the user, host and name that a new message's From and sender are made of.

/// What the environment says of its user. Any text: it is quoted where it must be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// Local part of From.
    pub user: String,
    /// Host of From; the default host if silent.
    pub host: Option<String>,
    /// The person's name.
    pub name: Option<String>,
    /// Local part of the envelope's sender, if it is not From's.
    pub sender_user: Option<String>,
    /// Host of the envelope's sender, if it is not From's.
    pub sender_host: Option<String>,
}

impl Identity {
    /// The first of each set that is there: `QMAILUSER MAILUSER USER LOGNAME` (else `login`), `QMAILHOST MAILHOST`,
    /// `QMAILNAME MAILNAME NAME`; and `QMAILSUSER`, `QMAILSHOST`. `variable` looks one up.
    pub fn from_variables(login: &str, variable: impl Fn(&'static str) -> Option<String>) -> Identity {
        let first = |names: &[&'static str]| names.iter().find_map(|name| variable(name));
        Identity {
            user: first(&["QMAILUSER", "MAILUSER", "USER", "LOGNAME"]).unwrap_or_else(|| login.to_owned()),
            host: first(&["QMAILHOST", "MAILHOST"]),
            name: first(&["QMAILNAME", "MAILNAME", "NAME"]),
            sender_user: first(&["QMAILSUSER"]),
            sender_host: first(&["QMAILSHOST"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_of_each_set_counts() {
        let set = [("USER", "low"), ("MAILUSER", "high"), ("NAME", "N"), ("MAILHOST", "h")];
        let look =
            |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let identity = Identity::from_variables("login", look);
        let want = Identity {
            user: "high".into(),
            host: Some("h".into()),
            name: Some("N".into()),
            ..Identity::default()
        };
        assert_eq!(identity, want);
        assert_eq!(Identity::from_variables("login", |_| None).user, "login");
    }
}

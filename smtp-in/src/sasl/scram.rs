//! SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677), without channel binding.
//!
//! The engine gives a user's keys, made up where there is no such user, so that whoever guesses names learns nothing.
//! Steps: the client's first message, the engine's keys, the client's proof, the client's empty word.

use super::{Exchange, Step, user_of};
use crate::door::{Question, ScramKeys};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Octets of a client's nonce that we say back.
const NONCE_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Scram {
    /// Our half.
    nonce: String,
    state: State,
}

#[derive(Debug)]
enum State {
    First,
    Keys(First),
    Proof { first: First, keys: ScramKeys, server_first: String },
    Verified { user: String },
}

/// The client's first message.
#[derive(Debug)]
struct First {
    /// Up to its second comma: what the channel binding must repeat.
    gs2_header: String,
    bare: String,
    user: String,
    nonce: String,
}

impl Scram {
    pub(super) fn begin(nonce: String) -> Scram {
        Scram { nonce, state: State::First }
    }

    pub(super) fn respond(self, response: &[u8]) -> Step {
        let nonce = self.nonce;
        match self.state {
            State::First => on_first(nonce, response),
            State::Keys(_) => Step::Malformed,
            State::Proof { first, keys, server_first } => {
                on_proof(nonce, &first, &keys, &server_first, response)
            }
            State::Verified { user } if response.is_empty() => {
                Step::Ask(Question::Prove { user: user.clone() }, Exchange::Word { user })
            }
            State::Verified { .. } => Step::Malformed,
        }
    }

    pub(super) fn take_keys(self, keys: ScramKeys) -> Step {
        let State::Keys(first) = self.state else { return Step::Wrong };
        let (theirs, ours, salt) = (&first.nonce, &self.nonce, STANDARD.encode(&keys.salt));
        let server_first = format!("r={theirs}{ours},s={salt},i={}", keys.iterations);
        let challenge = server_first.clone().into_bytes();
        let state = State::Proof { first, keys, server_first };
        Step::Challenge(challenge, Exchange::Scram(Box::new(Scram { nonce: self.nonce, state })))
    }
}

fn on_first(nonce: String, response: &[u8]) -> Step {
    match std::str::from_utf8(response).ok().and_then(parse_first) {
        Some(first) => {
            let question = Question::ScramKeys { user: first.user.clone() };
            Step::Ask(question, Exchange::Scram(Box::new(Scram { nonce, state: State::Keys(first) })))
        }
        None => Step::Malformed,
    }
}

/// RFC 5802 §7: `n` or `y`, who the client acts as (itself or nobody), name, nonce. Extensions are not for us to judge,
/// but a mandatory one (`m=`) stands where the name is looked for, and is refused with it.
fn parse_first(text: &str) -> Option<First> {
    let mut parts = text.splitn(3, ',');
    let (flag, acts_as, bare) = (parts.next()?, parts.next()?, parts.next()?);
    // `y`: the client could bind to the channel and believes that we cannot, which is true. `p`: it insists.
    if !matches!(flag, "n" | "y") {
        return None;
    }
    let mut attributes = bare.split(',');
    let user = unescape(attributes.next()?.strip_prefix("n=")?)?;
    let nonce = attributes.next()?.strip_prefix("r=")?;
    // gsasl writes an empty name for nobody's.
    let acts_as =
        if matches!(acts_as, "" | "a=") { user.clone() } else { unescape(acts_as.strip_prefix("a=")?)? };
    let legal = (1..=NONCE_MAX).contains(&nonce.len()) && nonce.bytes().all(|octet| octet.is_ascii_graphic());
    (legal && acts_as == user).then(|| First {
        gs2_header: text[..text.len() - bare.len()].to_owned(),
        bare: bare.to_owned(),
        nonce: nonce.to_owned(),
        user,
    })
}

/// `=2C` is a comma and `=3D` an equals sign; no other `=` may stand in a name.
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut user = parts.next()?.to_owned();
    for part in parts {
        let (octet, rest) = match part.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        user.push(octet);
        user.push_str(rest);
    }
    user_of(user.as_bytes())
}

fn on_proof(nonce: String, first: &First, keys: &ScramKeys, server_first: &str, response: &[u8]) -> Step {
    let Some(last) = std::str::from_utf8(response).ok().and_then(parse_last) else { return Step::Malformed };
    let binding = STANDARD.encode(&first.gs2_header);
    if last.binding != binding || last.nonce.strip_prefix(first.nonce.as_str()) != Some(nonce.as_str()) {
        return Step::Wrong;
    }
    let said = format!("{},{server_first},{}", first.bare, last.without_proof);
    if !is_proof(keys, said.as_bytes(), &last.proof) {
        return Step::Wrong;
    }
    let signature = sign(&keys.server_key, said.as_bytes());
    let challenge = format!("v={}", STANDARD.encode(signature.as_ref()));
    let state = State::Verified { user: first.user.clone() };
    Step::Challenge(challenge.into_bytes(), Exchange::Scram(Box::new(Scram { nonce, state })))
}

/// The client's last message.
struct Last<'a> {
    binding: &'a str,
    nonce: &'a str,
    without_proof: &'a str,
    proof: [u8; 32],
}

fn parse_last(text: &str) -> Option<Last<'_>> {
    let (without_proof, proof) = text.rsplit_once(",p=")?;
    let proof = STANDARD.decode(proof).ok()?.try_into().ok()?;
    let mut attributes = without_proof.split(',');
    let binding = attributes.next()?.strip_prefix("c=")?;
    let nonce = attributes.next()?.strip_prefix("r=")?;
    Some(Last { binding, nonce, without_proof, proof })
}

/// RFC 5802 §3: the proof is the client's key, hidden by a signature that only who has the stored key can make.
fn is_proof(keys: &ScramKeys, said: &[u8], proof: &[u8; 32]) -> bool {
    let signature = sign(&keys.stored_key, said);
    let mut client_key = Zeroizing::new(*proof);
    client_key.iter_mut().zip(signature.as_ref()).for_each(|(octet, mask)| *octet ^= mask);
    verify_slices_are_equal(digest(&SHA256, &*client_key).as_ref(), &keys.stored_key).is_ok()
}

fn sign(key: &[u8; 32], said: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::pbkdf2;
    use std::num::NonZeroU32;

    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    /// RFC 7677 §3: user `user`, password `pencil`.
    fn keys() -> ScramKeys {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let (mut salted, iterations) = ([0; 32], NonZeroU32::new(4096).unwrap());
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, b"pencil", &mut salted);
        let key = |name: &[u8]| <[u8; 32]>::try_from(sign(&salted, name).as_ref()).unwrap();
        let stored_key = digest(&SHA256, &key(b"Client Key")).as_ref().try_into().unwrap();
        ScramKeys { salt, iterations: 4096, stored_key, server_key: key(b"Server Key") }
    }

    /// What follows the first message.
    fn first(text: &str) -> Step {
        Scram::begin(SERVER_NONCE.to_owned()).respond(text.as_bytes())
    }

    /// What follows the proof.
    fn last(text: &str) -> Step {
        let Step::Ask(Question::ScramKeys { user }, exchange) = first("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        else {
            panic!()
        };
        assert_eq!(user, "user");
        let Step::Challenge(challenge, exchange) = exchange.take_keys(keys()) else { panic!() };
        assert_eq!(
            String::from_utf8(challenge).unwrap(),
            format!("r=rOprNGfwEbeRWgbNEkqO{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
        );
        exchange.respond(text.as_bytes())
    }

    const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn goes_as_rfc_7677_shows() {
        let step = last(&format!("c=biws,r=rOprNGfwEbeRWgbNEkqO{SERVER_NONCE},p={PROOF}"));
        let Step::Challenge(challenge, exchange) = step else { panic!() };
        assert_eq!(challenge, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(matches!(exchange.respond(b""), Step::Ask(Question::Prove { user }, _) if user == "user"));
    }

    #[test]
    fn another_proof_nonce_or_binding_is_wrong() {
        let nonce = format!("rOprNGfwEbeRWgbNEkqO{SERVER_NONCE}");
        let other = PROOF.replace('d', "e");
        for wrong in [
            format!("c=biws,r={nonce},p={other}"),
            format!("c=biws,r={nonce}x,p={PROOF}"),
            format!("c=biws,r=rOprNGfwEbeRWgbNEkqO,p={PROOF}"),
            format!("c=eSws,r={nonce},p={PROOF}"),
        ] {
            assert!(matches!(last(&wrong), Step::Wrong), "{wrong}");
        }
        for malformed in
            ["", "c=biws", "c=biws,r=x", "c=biws,r=x,p=", "r=x,c=biws,p=AAAA", "c=biws,r=x,p=AAAA"]
        {
            assert!(matches!(last(malformed), Step::Malformed), "{malformed}");
        }
    }

    #[test]
    fn first_message_binds_no_channel_and_acts_as_itself() {
        for good in ["y,,n=u,r=x", "n,a=,n=u,r=x", "n,a=u,n=u,r=x", "n,,n=u,r=x,e=1"] {
            assert!(matches!(first(good), Step::Ask(..)), "{good}");
        }
        let long = format!("n,,n=u,r={}", "x".repeat(NONCE_MAX + 1));
        for bad in [
            "",
            "n",
            "n,,",
            "p=tls-unique,,n=u,r=x",
            "n,a=v,n=u,r=x",
            "n,b=u,n=u,r=x",
            "n,,m=1,n=u,r=x",
            "n,,n=,r=x",
            "n,,n=u,r=",
            "n,,r=x,n=u",
            "n,,n=u=2c,r=x",
            "n,,n=u=,r=x",
            "n,,n=u,r=x y",
            &long,
        ] {
            assert!(matches!(first(bad), Step::Malformed), "{bad}");
        }
        assert!(
            matches!(first("n,,n=a=2Cb=3Dc,r=x"), Step::Ask(Question::ScramKeys { user }, _) if user == "a,b=c")
        );
    }
}

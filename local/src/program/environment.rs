//! The variables that a user's program finds (qmail-command).

use crate::delivery::{Delivery, Plan};
use message::UnixMillis;

/// Names and values, in no particular order. `DEFAULT` is there only if the file's name ended in `default`.
pub fn variables(delivery: &Delivery<'_>, plan: &Plan, now: UnixMillis) -> Vec<(&'static str, String)> {
    let Delivery { user, home, local, extension, host, sender, .. } = *delivery;
    let top = delivery.top_lines(now);
    let [ext2, ext3, ext4] = behind_dashes(extension);
    let [host2, host3, host4] = before_dots(host);
    let mut variables = vec![
        ("USER", user.to_owned()),
        ("HOME", home.to_owned()),
        ("LOCAL", local.to_owned()),
        ("HOST", host.to_owned()),
        ("RECIPIENT", delivery.recipient()),
        ("SENDER", sender.to_owned()),
        ("NEWSENDER", plan.new_sender.clone()),
        ("EXT", extension.to_owned()),
        ("EXT2", ext2.to_owned()),
        ("EXT3", ext3.to_owned()),
        ("EXT4", ext4.to_owned()),
        ("HOST2", host2.to_owned()),
        ("HOST3", host3.to_owned()),
        ("HOST4", host4.to_owned()),
        ("DTLINE", top.delivered_to),
        ("RPLINE", top.return_path),
        ("UFLINE", top.from_line),
    ];
    variables.extend(plan.default.clone().map(|default| ("DEFAULT", default)));
    // No variable holds a NUL, and no address does either.
    variables.iter_mut().for_each(|(_, value)| value.retain(|char| char != '\0'));
    variables
}

/// What follows the first, second and third dash.
fn behind_dashes(extension: &str) -> [&str; 3] {
    let behind = |text: &'_ str| text.find('-').map_or(text.len(), |at| at + 1);
    let two = &extension[behind(extension)..];
    let three = &two[behind(two)..];
    [two, three, &three[behind(three)..]]
}

/// What comes before the last dot, the last but one, the last but two; a host without dots stays whole.
fn before_dots(host: &str) -> [&str; 3] {
    let before = |text: &'_ str| text.rfind('.').unwrap_or(text.len());
    let two = &host[..before(host)];
    let three = &two[..before(two)];
    [two, three, &three[..before(three)]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::delivery;

    #[test]
    fn parts_of_extension_and_host_are_as_qmails() {
        assert_eq!(behind_dashes("a-b-c-d-e"), ["b-c-d-e", "c-d-e", "d-e"]);
        assert_eq!(behind_dashes("a"), ["", "", ""]);
        assert_eq!(behind_dashes("a--b"), ["-b", "b", ""]);
        assert_eq!(before_dots("a.b.c.d"), ["a.b.c", "a.b", "a"]);
        assert_eq!(before_dots("mail.example"), ["mail", "mail", "mail"]);
        assert_eq!(before_dots("localhost"), ["localhost"; 3]);
    }

    #[test]
    fn a_program_finds_all_of_them() {
        let plan = Plan {
            file: None,
            default: Some("x".into()),
            new_sender: "ann-list-owner@mail.example.org".into(),
            steps: Vec::new(),
        };
        let found = variables(&delivery("-", "list-x"), &plan, UnixMillis(0));
        let of = |name: &str| &found.iter().find(|(found, _)| *found == name).unwrap().1;
        assert_eq!(found.len(), 18);
        assert_eq!(of("RECIPIENT"), "ann-list@mail.example.org");
        assert_eq!((of("EXT2").as_str(), of("HOST3").as_str(), of("DEFAULT").as_str()), ("x", "mail", "x"));
        assert_eq!(of("DTLINE"), "Delivered-To: ann-list@mail.example.org\n");
        assert_eq!(of("UFLINE"), "From bob@example.net Thu Jan 01 00:00:00 1970\n");
        assert_eq!((of("SENDER").as_str(), of("NEWSENDER")), ("bob@example.net", &plan.new_sender));
    }
}

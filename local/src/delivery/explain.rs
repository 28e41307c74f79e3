//! What would become of a message, said and not done (`qmail-local -n`).

use super::{Counts, Delivery, Plan, Step, mode_of, plan_in};
use crate::failure::{Failure, Severity};
use crate::instructions::search::{Distrust, Home, check_home};
use std::fmt::Write as _;

/// Lines as qmail-local prints them: `mbox FILE`, `maildir FILE`, `program COMMAND`, `forward ADDRESS`, `did f+a+p`,
/// with the file and the new sender before them. What would keep mail waiting now is a warning.
pub fn explain(home: &dyn Home, distrust: Distrust, delivery: &Delivery<'_>) -> Result<String, Failure> {
    let mut out = String::new();
    let mode = mode_of(home)?;
    if let Err(failure) = check_home(mode, distrust) {
        if mode & 0o1000 == 0 || check_home(mode & !0o1000, distrust).is_err() {
            return Err(failure);
        }
        out.push_str("warning: home directory is sticky: mail waits\n");
    }
    let plan = plan_in(home, distrust, delivery)?;
    say_plan(&plan, delivery, &mut out);
    Ok(out)
}

fn say_plan(plan: &Plan, delivery: &Delivery<'_>, out: &mut String) {
    let file = plan.file.as_deref().unwrap_or("none, the default delivery");
    let _ = writeln!(out, "instructions {}", shown(file.as_bytes()));
    if let Some(default) = &plan.default {
        let _ = writeln!(out, "default {}", shown(default.as_bytes()));
    }
    if plan.new_sender != delivery.sender {
        let _ = writeln!(out, "sender {}", shown(plan.new_sender.as_bytes()));
    }
    let mut counts = Counts::default();
    for step in &plan.steps {
        let (what, text, count) = match step {
            Step::Mbox(path) => ("mbox", path, &mut counts.files),
            Step::Maildir(path) => ("maildir", path, &mut counts.files),
            Step::Program(program) => ("program", program, &mut counts.programs),
            Step::Forward(address) => ("forward", address, &mut counts.forwards),
            Step::Refuse(failure) => {
                let what = if failure.severity == Severity::Hard { "bounce" } else { "wait" };
                let _ = writeln!(out, "{what} {failure}");
                continue;
            }
        };
        *count += 1;
        let _ = writeln!(out, "{what} {}", shown(text));
    }
    if plan.steps.is_empty() {
        out.push_str("nothing is done: the message is thrown away\n");
    }
    let _ = writeln!(out, "{counts}");
}

/// On one line, whatever a file holds.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace(|char: char| char.is_control(), "_")
}

use super::*;

/// A program that tells `script`'s shell about descriptor 3.
fn ask_script(script: &str, user: &str, password: &[u8], limit: Duration) -> Said {
    let program = ["/bin/sh", "-c", script, "script"].map(str::to_owned);
    ask(&program, user, password, limit)
}

fn asked(script: &str) -> Said {
    ask_script(script, "ann@example.net", b"se cret", TIME_LIMIT)
}

#[test]
fn a_program_reads_descriptor_3_and_runs_true_if_all_is_right() {
    // Ends with 0 only by way of what it is told to run; `od` shows the NULs.
    let script = r#"
        got=$(od -An -c <&3 | tr -d ' \n')
        [ "$got" = 'ann@example.netsecret' ] || exit 1
        [ "$#" = 1 ] && [ "$1" = true ] || exit 2
        exec "$@"
    "#;
    assert!(matches!(
        asked(&script.replace("ann@example.netsecret", r"ann@example.net\0secret\0\0")),
        Said::Right
    ));
    assert!(matches!(asked(script), Said::Wrong), "NULs were there");
}

#[test]
fn a_program_has_nothing_else_of_ours() {
    // Standard input is at its end, no secret is in arguments or environment, and what we have open is not open there.
    let own = tempfile::NamedTempFile::new().unwrap();
    let script = r#"
        [ -z "$(cat)" ] || exit 10
        tr '\0' '\n' </proc/$$/environ | grep -vE '^(PATH|PWD|OLDPWD|_|SHLVL)=' && exit 11
        grep -q 'se cre[t]' /proc/$$/cmdline /proc/$$/environ && exit 12
        ls -l /proc/self/fd | grep -q OWN && exit 13
        exit 0
    "#;
    let said = asked(&script.replace("OWN", own.path().to_str().unwrap()));
    assert!(matches!(said, Said::Right), "{said:?}");
}

#[test]
fn exit_codes_are_the_interfaces() {
    assert!(matches!(asked("exit 0"), Said::Right));
    assert!(matches!(asked("exit 1"), Said::Wrong));
    for (script, said) in [
        ("exit 2", "called wrongly"),
        ("exit 111", "cannot say now"),
        ("exit 3", "ended with 3"),
        ("kill -9 $$", "signal 9"),
    ] {
        let Said::Nothing(what) = asked(script) else { panic!("{script}") };
        assert!(what.contains(said), "{script}: {what}");
    }
    let missing = ask(&["/nonexistent/checkpassword".to_owned()], "ann", b"x", TIME_LIMIT);
    let Said::Nothing(what) = missing else { panic!("{missing:?}") };
    assert!(what.contains("cannot be run"));
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("child");
    let script = format!("sleep 600 & echo $! >{}.new; mv {0}.new {0}; wait", note.display());
    let Said::Nothing(what) = ask_script(&script, "ann", b"x", Duration::from_secs(5)) else { panic!() };
    assert!(what.contains("5 s and was killed"), "{what}");
    let pid: i32 = std::fs::read_to_string(note).unwrap().trim().parse().unwrap();
    // Gone, or it goes as soon as it is its turn to.
    let Ok(child) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) else { return };
    let limit = Timespec::try_from(TIME_LIMIT).unwrap();
    assert_eq!(poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&limit)), Ok(1));
}

#[test]
fn what_the_interface_has_no_room_for_is_wrong_unasked() {
    let said = ask(&["/nonexistent".to_owned()], &"u".repeat(255), &[b'x'; 480], TIME_LIMIT);
    assert!(matches!(said, Said::Wrong));
}

#[test]
fn a_program_that_reads_nothing_may_still_speak() {
    assert!(matches!(ask_script("exec 3<&-; exit 1", "ann", &[b'x'; 400], TIME_LIMIT), Said::Wrong));
}

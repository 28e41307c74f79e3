//! What a distribution installs beside the program: systemd reads it without a word.

use std::path::Path;
use std::time::Duration;
use tests::process::{peer, setup, wait};

#[test]
fn systemd_has_nothing_to_say_about_our_units() {
    let Some(mut verify) = peer("systemd-analyze") else { return };
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let folder = setup::temporary_folder();
    verify.arg("verify");
    for name in ["ringpost.service", "ringpost-engine.service"] {
        let unit = std::fs::read_to_string(units.join(name)).expect("it is ours");
        // The program is not installed; another one that is stands for it.
        let unit = unit.replace("/usr/bin/ringpost ", "/bin/true ");
        assert!(unit.contains("ExecStart=/bin/true "), "{name}");
        std::fs::write(folder.path().join(name), unit).expect("ours");
        verify.arg(folder.path().join(name));
    }
    let output = wait::finish(&mut verify, Duration::from_secs(60));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

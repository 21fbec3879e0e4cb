//! What `deploy/` and the Dockerfile say to `malmoi serve` is what it understands.

use std::path::Path;

use crate::support::run;

/// Files and what marks the lines in them that are not said to malmoi.
const FILES: [(&str, &[&str]); 4] = [
    ("Dockerfile", &["cargo ", "--from="]),
    ("deploy/compose/compose.yaml", &[]),
    ("deploy/kubernetes/malmoi.yaml", &["kubectl "]),
    ("deploy/systemd/malmoi.service", &[]),
];

#[test]
fn flags_in_deployment_files_exist() {
    let help = run(&["serve", "--help"]).ok();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (file, others) in FILES {
        let text = std::fs::read_to_string(root.join(file)).expect(file);
        let lines = (text.lines()).filter(|line| !others.iter().any(|other| line.contains(other)));
        let letter = |c: char| c.is_ascii_lowercase() || c == '-';
        let words = lines.flat_map(|line| line.split(|c| !letter(c)));
        let flags: Vec<&str> = words
            .filter(|word| word.len() > 3 && word.starts_with("--") && *word != "---")
            .collect();
        assert!(flags.contains(&"--model"), "{file}: {flags:?}");
        for flag in flags {
            let known = help.split_whitespace().any(|word| word == flag);
            assert!(known, "{file} has {flag}, which malmoi serve does not know");
        }
    }
}

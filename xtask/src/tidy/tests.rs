//! Every rule is shown a small tree that breaks it and one that does not.

use super::tree::{File, Package, Tree};
use super::{Level, code, documents, layers};

fn file(path: &str, text: &str) -> File {
    File {
        path: path.into(),
        size: text.len() as u64,
        text: Some(text.into()),
    }
}

fn files(list: &[(&str, &str)]) -> Tree {
    Tree {
        files: list.iter().map(|(path, text)| file(path, text)).collect(),
        packages: Vec::new(),
    }
}

fn package(name: &str, dependencies: &[&str], dev_dependencies: &[&str]) -> Tree {
    let own = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    let package = Package {
        name: name.into(),
        description: Some("text".into()),
        dependencies: own(dependencies),
        dev_dependencies: own(dev_dependencies),
    };
    Tree {
        files: Vec::new(),
        packages: vec![package],
    }
}

#[test]
fn a_crate_depends_only_on_lower_layers() {
    assert!(
        layers::edges(&package(
            "malmoi-models",
            &["malmoi-nn", "malmoi-kernels", "serde"],
            &["malmoi-testing"]
        ))
        .is_empty()
    );
    for wrong in [
        "malmoi-train",
        "malmoi-tasks",
        "malmoi-models",
        "malmoi-unknown",
        "malmoi-testing",
    ] {
        assert_eq!(
            layers::edges(&package("malmoi-models", &[wrong], &[])).len(),
            1,
            "{wrong}"
        );
    }
    assert_eq!(
        layers::edges(&package("malmoi-nn", &[], &["malmoi-models"])).len(),
        1
    );
    assert_eq!(
        layers::edges(&package("malmoi-brand-new", &[], &[])).len(),
        1,
        "a crate without a layer"
    );
    assert_eq!(
        layers::edges(&package("xtask", &["malmoi-text"], &[])).len(),
        1
    );
}

#[test]
fn only_crates_with_tensors_name_the_engine() {
    assert!(layers::burn(&package("malmoi-nn", &["burn"], &[])).is_empty());
    assert_eq!(
        layers::burn(&package("malmoi-infer", &["burn"], &[])).len(),
        1
    );
    assert_eq!(
        layers::burn(&package("malmoi-cli", &[], &["burn-flex"])).len(),
        1
    );
}

#[test]
fn a_package_without_description_is_found() {
    let mut tree = package("malmoi", &[], &[]);
    assert!(layers::descriptions(&tree).is_empty());
    tree.packages[0].description = None;
    assert_eq!(layers::descriptions(&tree).len(), 1);
}

#[test]
fn unsafe_code_is_found_outside_the_kernels() {
    let block = "fn f() {\n    unsafe { g() }\n}\n";
    assert!(code::unsafe_code(&files(&[("crates/malmoi-kernels/src/lib.rs", block)])).is_empty());
    let found = code::unsafe_code(&files(&[("crates/malmoi-nn/src/lib.rs", block)]));
    assert_eq!(found[0].place, "crates/malmoi-nn/src/lib.rs:2");
    let talk = "// unsafe code is elsewhere\nconst A: &str = \"unsafe\";\n#![deny(unsafe_code)]\n";
    assert!(code::unsafe_code(&files(&[("crates/malmoi-nn/src/lib.rs", talk)])).is_empty());
}

#[test]
fn memory_mapping_is_one_module_with_a_reason() {
    let allowed =
        "#![allow(\n    unsafe_code,\n    reason = \"mapping\"\n)]\nfn f() { unsafe { map() } }\n";
    let documented =
        "//! The only unsafe code: a map.\n#![allow(unsafe_code)]\nfn f() { unsafe { map() } }\n";
    let bare = "fn f() { unsafe { map() } }\n";
    assert!(code::unsafe_code(&files(&[("crates/malmoi-text/src/mapped.rs", allowed)])).is_empty());
    assert_eq!(
        code::unsafe_code(&files(&[("crates/malmoi-text/src/mapped.rs", bare)])).len(),
        1
    );
    let tree = files(&[("crates/malmoi-text/src/mapped.rs", documented)]);
    assert!(code::unsafe_code(&tree).is_empty());
    let twice = files(&[
        ("crates/malmoi-text/src/a.rs", allowed),
        ("crates/malmoi-text/src/b.rs", allowed),
    ]);
    assert_eq!(code::unsafe_code(&twice).len(), 1);
}

#[test]
fn long_files_warn_and_then_fail() {
    let of =
        |lines: usize| code::file_length(&files(&[("crates/a/src/lib.rs", &"x\n".repeat(lines))]));
    assert!(of(500).is_empty());
    assert_eq!(of(501)[0].level, Level::Warning);
    assert_eq!(of(801)[0].level, Level::Error);
    assert!(
        code::file_length(&files(&[("golden/bert/cases.json", &"x\n".repeat(9000))])).is_empty()
    );
}

#[test]
fn a_model_reads_alone() {
    let of = |path: &str, lines: usize| code::model_length(&files(&[(path, &"x\n".repeat(lines))]));
    assert!(of("crates/malmoi-models/src/bert/model.rs", 249).is_empty());
    assert_eq!(of("crates/malmoi-models/src/bert/model.rs", 250).len(), 1);
    assert!(of("crates/malmoi-models/src/bert/config.rs", 300).is_empty());
    assert!(of("crates/malmoi-models/src/model.rs", 300).is_empty());
}

#[test]
fn an_open_end_names_an_issue() {
    let mark = concat!("TO", "DO");
    assert_eq!(
        code::open_ends(&files(&[("a.rs", &format!("// {mark}: later\n"))])).len(),
        1
    );
    assert!(code::open_ends(&files(&[("a.rs", &format!("// {mark}(#12): later\n"))])).is_empty());
    assert!(code::open_ends(&files(&[("a.rs", "let todos = 1;\n")])).is_empty());
}

#[test]
fn paths_of_one_machine_are_found() {
    for path in [
        concat!("/ho", "me/kim/data"),
        concat!("\"/wo", "rk/x\""),
        concat!("https://static.cra", "tes.io/x"),
    ] {
        assert_eq!(
            code::machine_paths(&files(&[("docs/a.md", path)])).len(),
            1,
            "{path}"
        );
    }
    assert!(
        code::machine_paths(&files(&[(
            "docs/a.md",
            concat!("see frame", "/wo", "rk/x and ~/data")
        )]))
        .is_empty()
    );
}

#[test]
fn an_ignored_test_says_how_to_run_it() {
    let ignore = concat!("#[", "ignore");
    let of = |rest: &str| {
        code::ignored_tests(&files(&[(
            "a.rs",
            &format!("#[test]\n{ignore}{rest}\nfn f() {{}}\n"),
        )]))
    };
    assert_eq!(of("]").len(), 1);
    assert_eq!(of(" = \"slow\"]").len(), 1);
    assert!(of(" = \"run by `f`\"]").is_empty());
    assert_eq!(of(" = \"run by `no_such_test`\"]").len(), 1);
    assert!(of(" = \"slow; run: cargo test --release -- --ignored\"]").is_empty());
}

#[test]
fn bundled_data_stays_small() {
    let mut tree = files(&[("data/a", ""), ("golden/b", "")]);
    assert!(documents::data_size(&tree).is_empty());
    tree.files[0].size = (12 << 20) + 1;
    assert_eq!(documents::data_size(&tree)[0].place, "data/");
}

#[test]
fn readme_twins_have_the_same_outline_and_commands() {
    let english = "# A\n## B\n```sh\n# build\ncargo run # now\n```\n";
    let korean = "# 가\n## 나\n```sh\n# 짓기\ncargo run # 지금\n```\n";
    let twins = |korean: &str| {
        documents::readme_twins(&files(&[("README.md", english), ("README.ko.md", korean)])).len()
    };
    assert_eq!(twins(korean), 0);
    assert_eq!(twins(&korean.replace("## 나", "나")), 1);
    assert_eq!(twins(&korean.replace("cargo run", "cargo test")), 1);
    assert_eq!(
        documents::readme_twins(&files(&[("README.md", english)])).len(),
        1
    );
}

#[test]
fn the_changelog_has_room_for_the_next_entry() {
    assert!(
        documents::changelog(&files(&[(
            "CHANGELOG.md",
            "# Changelog\n\n## [Unreleased]\n"
        )]))
        .is_empty()
    );
    assert_eq!(
        documents::changelog(&files(&[("CHANGELOG.md", "# Changelog\n")])).len(),
        1
    );
    assert_eq!(documents::changelog(&files(&[])).len(), 1);
}

#[test]
fn decisions_are_numbered_and_complete() {
    let whole = "# Title\n## Choice\n## Alternatives\n## Numbers\n";
    assert!(documents::decisions(&files(&[("docs/decisions/0001-engine.md", whole)])).is_empty());
    assert_eq!(
        documents::decisions(&files(&[("docs/decisions/0002-engine.md", whole)])).len(),
        1
    );
    assert_eq!(
        documents::decisions(&files(&[("docs/decisions/0001-engine.md", "## Choice\n")])).len(),
        2
    );
}

#[test]
fn a_link_between_documents_leads_somewhere() {
    let text = "[a](../README.md) [b](adding/#top) [c](https://example.org) [d](#here)\n";
    let whole = [
        ("docs/a.md", text),
        ("README.md", ""),
        ("docs/adding/kernel.md", ""),
    ];
    assert!(documents::links(&files(&whole)).is_empty());
    let found = documents::links(&files(&whole[..2]));
    assert_eq!(found[0].place, "docs/a.md:1");
}

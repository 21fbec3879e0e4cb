//! Which crate may depend on which.

use super::Finding;
use super::tree::{Package, Tree};

/// Layer of every crate. A crate depends only on lower layers.
const LAYERS: [(&str, u8); 15] = [
    ("malmoi-kernels", 0),
    ("malmoi-text", 0),
    ("malmoi-checkpoint", 0),
    ("malmoi-nn", 1),
    ("malmoi-models", 2),
    ("malmoi-tasks", 2),
    ("malmoi-infer", 3),
    ("malmoi-train", 4),
    ("malmoi-compress", 5),
    ("malmoi-roofline", 5),
    ("malmoi-verify", 6),
    ("malmoi-serve", 6),
    ("malmoi-cli", 7),
    ("malmoi", 7),
    // Tables and tolerances for tests: nothing but tests may use it, and it may use the bottom layer.
    (TESTING, 1),
];

const TESTING: &str = "malmoi-testing";
/// Builds before everything else, so it may use no crate of the project.
const TASKS_OF_THE_REPOSITORY: &str = "xtask";
/// Crates that may name the tensor engine.
const MAY_NAME_BURN: [&str; 4] = [
    "malmoi-nn",
    "malmoi-models",
    "malmoi-train",
    "malmoi-compress",
];

fn layer(name: &str) -> Option<u8> {
    LAYERS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, layer)| *layer)
}

/// A crate depends only on crates of lower layers; test helpers are a dev-dependency only.
pub fn edges(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in &tree.packages {
        if package.name == TASKS_OF_THE_REPOSITORY {
            found.extend(project_crates(package, |_| true).map(|name| {
                Finding::error(
                    &package.name,
                    format!("may not depend on {name}: the tasks must build on their own"),
                )
            }));
            continue;
        }
        let Some(own) = layer(&package.name) else {
            found.push(Finding::error(&package.name, "has no layer: add it to the table in xtask/src/tidy/layers.rs and to docs/architecture.md"));
            continue;
        };
        found.extend(
            project_crates(package, |name| {
                name == TESTING || layer(name).is_none_or(|other| other >= own)
            })
            .map(|name| {
                Finding::error(
                    &package.name,
                    format!(
                        "(layer {own}) may not depend on {name}: expected a crate of a lower layer"
                    ),
                )
            }),
        );
        let dev = package
            .dev_dependencies
            .iter()
            .filter(|name| name.starts_with("malmoi") && *name != TESTING);
        let too_high = dev.filter(|name| layer(name).is_none_or(|other| other >= own));
        found.extend(too_high.map(|name| {
            Finding::error(&package.name, format!("(layer {own}) may not test with {name}: expected a crate of a lower layer or {TESTING}"))
        }));
    }
    found
}

fn project_crates<'a>(
    package: &'a Package,
    wrong: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = &'a String> {
    package
        .dependencies
        .iter()
        .filter(move |name| name.starts_with("malmoi") && wrong(name))
}

/// Only the crates that hold tensors name the tensor engine.
pub fn burn(tree: &Tree) -> Vec<Finding> {
    let others = tree
        .packages
        .iter()
        .filter(|package| !MAY_NAME_BURN.contains(&package.name.as_str()));
    let naming = others.filter(|package| {
        package
            .dependencies
            .iter()
            .chain(&package.dev_dependencies)
            .any(|name| name == "burn" || name.starts_with("burn-"))
    });
    let message = format!(
        "may not depend on burn: only {} hold tensors",
        MAY_NAME_BURN.join(", ")
    );
    naming
        .map(|package| Finding::error(&package.name, &message))
        .collect()
}

/// Every package says what it is for.
pub fn descriptions(tree: &Tree) -> Vec<Finding> {
    let blank = |package: &&Package| {
        package
            .description
            .as_deref()
            .is_none_or(|text| text.trim().is_empty())
    };
    tree.packages
        .iter()
        .filter(blank)
        .map(|package| Finding::error(&package.name, "has no description in its Cargo.toml"))
        .collect()
}

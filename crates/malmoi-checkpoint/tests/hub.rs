//! Finding models by name, against a stand-in for a hub on the loopback interface.

mod common;
#[path = "common/stand_in.rs"]
mod stand_in;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::golden;
use malmoi_checkpoint::hub::{Hub, HubError, Progress, resolve_with};
use malmoi_checkpoint::{
    Error, ModelDirectory, NamedTensor, WEIGHTS, WEIGHTS_INDEX, write_weights,
};
use stand_in::{Content, StandIn};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const MODEL: &str = "org/tiny-bert";

fn content() -> Content {
    let source = golden().join("bert-masked-lm");
    let mut files: BTreeMap<String, Vec<u8>> = ["config.json", WEIGHTS]
        .into_iter()
        .map(|name| (name.to_string(), fs::read(source.join(name)).unwrap()))
        .collect();
    files.insert("vocab.txt".into(), "[PAD]\n가\n".into());
    files.insert("pytorch_model.bin".into(), b"never fetched".to_vec());
    Content {
        model: MODEL.into(),
        commit: COMMIT.into(),
        files,
        large: vec![WEIGHTS.into()],
        ..Default::default()
    }
}

fn hub(stand_in: &StandIn, cache: &Path) -> Hub {
    Hub {
        endpoint: stand_in.endpoint.clone(),
        cache: cache.to_path_buf(),
        token: None,
        offline: false,
    }
}

fn error(result: malmoi_checkpoint::Result<PathBuf>) -> HubError {
    match result {
        Err(Error::Hub(error)) => error,
        other => panic!("expected an error of the hub, found {other:?}"),
    }
}

#[derive(Default)]
struct Seen {
    events: Vec<String>,
    bytes: u64,
}

impl Progress for Seen {
    fn start(&mut self, file: &str, bytes: u64) {
        self.events.push(format!("start {file} {bytes}"));
    }
    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
    fn finish(&mut self, file: &str) {
        self.events.push(format!("finish {file}"));
    }
    fn notice(&mut self, message: &str) {
        self.events.push(format!("notice {message}"));
    }
}

#[test]
fn a_model_is_downloaded_once_and_then_taken_from_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(content());
    let mut hub = hub(&stand_in, cache.path());
    let mut seen = Seen::default();
    let path = resolve_with(MODEL, &hub, &mut seen).unwrap();

    // The standard layout, as Python writes and reads it.
    let folder = cache.path().join("models--org--tiny-bert");
    assert_eq!(path, folder.join("snapshots").join(COMMIT));
    assert_eq!(
        fs::read_to_string(folder.join("refs/main")).unwrap(),
        COMMIT
    );
    assert_eq!(fs::read_dir(folder.join("refs")).unwrap().count(), 1);
    let blob = fs::canonicalize(path.join(WEIGHTS)).unwrap();
    assert_eq!(
        blob.parent().unwrap(),
        fs::canonicalize(folder.join("blobs")).unwrap()
    );
    assert!(fs::read_link(path.join(WEIGHTS)).unwrap().is_relative());
    assert!(!path.join("pytorch_model.bin").exists());
    assert_eq!(
        fs::read(path.join("vocab.txt")).unwrap(),
        "[PAD]\n가\n".as_bytes()
    );
    let fetched: u64 = content()
        .files
        .iter()
        .filter(|(n, _)| *n != "pytorch_model.bin")
        .map(|(_, b)| b.len() as u64)
        .sum();
    assert_eq!(seen.bytes, fetched);
    assert_eq!(
        seen.events[..2],
        [
            format!("start config.json {}", content().files["config.json"].len()),
            "finish config.json".into()
        ]
    );
    assert_eq!(ModelDirectory::open(&path).unwrap().model_type, "bert");

    // Again: only the question for the current revision.
    stand_in.requests();
    assert_eq!(resolve_with(MODEL, &hub, &mut ()).unwrap(), path);
    assert_eq!(
        stand_in.requests(),
        [format!("/api/models/{MODEL}/revision/main")]
    );
    // A commit: no question at all.
    assert_eq!(
        resolve_with(&format!("{MODEL}@{COMMIT}"), &hub, &mut ()).unwrap(),
        path
    );
    // A snapshot without its tokenizer (another program fetched the weights alone) is completed.
    fs::remove_file(path.join("vocab.txt")).unwrap();
    resolve_with(&format!("{MODEL}@{COMMIT}"), &hub, &mut ()).unwrap();
    assert!(path.join("vocab.txt").is_file());
    stand_in.requests();
    // Offline: none either.
    hub.offline = true;
    assert_eq!(resolve_with(MODEL, &hub, &mut ()).unwrap(), path);
    assert_eq!(stand_in.requests(), Vec::<String>::new());
}

#[test]
fn a_new_revision_is_fetched_and_unchanged_files_are_not() {
    let cache = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(content());
    let hub = hub(&stand_in, cache.path());
    let old = resolve_with(MODEL, &hub, &mut ()).unwrap();
    let next = COMMIT.replace('0', "f");
    {
        let mut content = stand_in.content.lock().unwrap();
        content.commit = next.clone();
        content.files.insert("vocab.txt".into(), b"new\n".to_vec());
    }
    let mut seen = Seen::default();
    let new = resolve_with(MODEL, &hub, &mut seen).unwrap();
    assert!(new.ends_with(&next) && old != new);
    assert_eq!(fs::read(new.join("vocab.txt")).unwrap(), b"new\n");
    assert_eq!(
        fs::read(old.join("vocab.txt")).unwrap(),
        "[PAD]\n가\n".as_bytes(),
        "the old snapshot is untouched"
    );
    assert_eq!(seen.bytes, 4, "{:?}", seen.events);
    assert_eq!(
        fs::read(new.join(WEIGHTS)).unwrap(),
        content().files[WEIGHTS]
    );
}

#[test]
fn shards_are_fetched_through_their_index() {
    let cache = tempfile::tempdir().unwrap();
    let source = tempfile::tempdir().unwrap();
    let tensors = [
        NamedTensor::new("a", &[10], vec![1.0f32; 10]),
        NamedTensor::new("b", &[10], vec![2.0f32; 10]),
    ];
    let mut content = content();
    content.files.remove(WEIGHTS);
    content.large.clear();
    for name in write_weights(source.path(), &tensors, Some(40)).unwrap() {
        content
            .files
            .insert(name.clone(), fs::read(source.path().join(name)).unwrap());
    }
    content.files.insert(
        "model-00009-of-00009.safetensors".into(),
        b"not in the index".to_vec(),
    );
    let stand_in = StandIn::start(content);
    let path = resolve_with(MODEL, &hub(&stand_in, cache.path()), &mut ()).unwrap();
    assert_eq!(
        ModelDirectory::open(&path)
            .unwrap()
            .tensors
            .to_f32("b")
            .unwrap()
            .1,
        [2.0; 10]
    );
    assert!(!path.join("model-00009-of-00009.safetensors").exists());

    // A snapshot without one of its shards isn't complete: offline it doesn't count, online it is mended.
    fs::remove_file(path.join("model-00002-of-00002.safetensors")).unwrap();
    let mut hub = hub(&stand_in, cache.path());
    hub.offline = true;
    assert!(matches!(
        error(resolve_with(MODEL, &hub, &mut ())),
        HubError::OfflineWithoutCache { .. }
    ));
    hub.offline = false;
    assert_eq!(resolve_with(MODEL, &hub, &mut ()).unwrap(), path);
    assert!(path.join("model-00002-of-00002.safetensors").is_file());

    // An index that leads elsewhere is refused.
    let other = tempfile::tempdir().unwrap();
    let evil = br#"{"weight_map": {"a": "../../../../x.safetensors"}}"#.to_vec();
    stand_in
        .content
        .lock()
        .unwrap()
        .files
        .insert(WEIGHTS_INDEX.into(), evil);
    hub.cache = other.path().to_path_buf();
    let message = error(resolve_with(MODEL, &hub, &mut ())).to_string();
    assert!(message.contains("tensor `a` is listed in"), "{message}");
}

#[test]
fn offline_without_a_cached_copy_says_so() {
    let cache = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(content());
    let hub = Hub {
        offline: true,
        ..hub(&stand_in, cache.path())
    };
    let message = error(resolve_with(MODEL, &hub, &mut ())).to_string();
    assert!(
        message.contains("HF_HUB_OFFLINE forbids downloading") && message.contains(MODEL),
        "{message}"
    );
    assert_eq!(stand_in.requests(), Vec::<String>::new());
}

#[test]
fn a_hub_out_of_reach_is_replaced_by_the_cache_if_that_has_the_model() {
    let cache = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(content());
    let mut hub = hub(&stand_in, cache.path());
    let path = resolve_with(MODEL, &hub, &mut ()).unwrap();
    // Bound and closed again: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    hub.endpoint = format!("http://{free}");
    let mut seen = Seen::default();
    assert_eq!(resolve_with(MODEL, &hub, &mut seen).unwrap(), path);
    assert!(
        seen.events[0].starts_with("notice ") && seen.events[0].contains("using the cached copy"),
        "{:?}",
        seen.events
    );
    let message = error(resolve_with("org/other", &hub, &mut ())).to_string();
    assert!(
        message.contains("can't be reached for `org/other`"),
        "{message}"
    );

    hub.endpoint = stand_in.endpoint.clone();
    stand_in.content.lock().unwrap().status = Some(503);
    assert_eq!(resolve_with(MODEL, &hub, &mut ()).unwrap(), path);
    assert!(matches!(
        error(resolve_with("org/other", &hub, &mut ())),
        HubError::Status { status: 503, .. }
    ));
}

#[test]
fn an_unknown_model_and_a_refused_one_say_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(content());
    let mut hub = hub(&stand_in, cache.path());
    let unknown = error(resolve_with("org/nothing", &hub, &mut ()));
    assert!(
        unknown.is_bad_input() && unknown.to_string().contains("(not found, 404)"),
        "{unknown}"
    );

    stand_in.content.lock().unwrap().page_token = Some("secret".into());
    let message = error(resolve_with(MODEL, &hub, &mut ())).to_string();
    assert!(
        message.contains("(401)") && message.contains("set HF_TOKEN"),
        "{message}"
    );
    hub.token = Some("wrong".into());
    let message = error(resolve_with(MODEL, &hub, &mut ())).to_string();
    assert!(
        message.contains("the token that was sent doesn't give access"),
        "{message}"
    );
    assert!(!message.contains("wrong"), "the token isn't shown");
    hub.token = Some("secret".into());
    // A gated model: its page is open, its files aren't.
    stand_in.content.lock().unwrap().file_token = Some("other".into());
    assert!(matches!(
        error(resolve_with(MODEL, &hub, &mut ())),
        HubError::NoAccess { status: 403, .. }
    ));
    stand_in.content.lock().unwrap().file_token = Some("secret".into());
    resolve_with(MODEL, &hub, &mut ()).unwrap();
}

#[test]
fn models_without_safetensors_or_config_are_refused_before_anything_is_fetched() {
    let cache = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(content());
    let hub = hub(&stand_in, cache.path());
    stand_in.content.lock().unwrap().files.remove(WEIGHTS);
    let message = error(resolve_with(MODEL, &hub, &mut ())).to_string();
    assert!(
        message.contains("found only pytorch_model.bin") && message.contains("save_pretrained"),
        "{message}"
    );
    stand_in.content.lock().unwrap().files.remove("config.json");
    let missing = error(resolve_with(MODEL, &hub, &mut ()));
    assert!(
        matches!(missing, HubError::MissingFile { ref file, .. } if file == "config.json"),
        "{missing}"
    );
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn a_broken_transfer_is_continued() {
    let cache = tempfile::tempdir().unwrap();
    let whole = content().files[WEIGHTS].clone();
    let stand_in = StandIn::start(Content {
        broken: Some((WEIGHTS.into(), 10_000, 2)),
        ..content()
    });
    let path = resolve_with(MODEL, &hub(&stand_in, cache.path()), &mut ()).unwrap();
    assert_eq!(
        stand_in.content.lock().unwrap().broken.as_ref().unwrap().2,
        0,
        "it broke twice"
    );
    assert_eq!(fs::read(path.join(WEIGHTS)).unwrap(), whole);
}

#[test]
fn a_transfer_that_never_succeeds_leaves_no_broken_file() {
    let cache = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(Content {
        broken: Some((WEIGHTS.into(), 100, usize::MAX)),
        ..content()
    });
    let hub = hub(&stand_in, cache.path());
    let message = error(resolve_with(MODEL, &hub, &mut ())).to_string();
    assert!(
        message.contains("failed after 4 attempts")
            && message.contains("continues where it stopped"),
        "{message}"
    );
    let folder = cache.path().join("models--org--tiny-bert");
    assert!(
        !folder.join("refs/main").exists(),
        "an incomplete snapshot isn't pointed to"
    );
    assert!(fs::symlink_metadata(folder.join("snapshots").join(COMMIT).join(WEIGHTS)).is_err());
    let offline = Hub {
        offline: true,
        ..hub.clone()
    };
    assert!(matches!(
        error(resolve_with(MODEL, &offline, &mut ())),
        HubError::OfflineWithoutCache { .. }
    ));
    // When the hub has recovered, the next run completes it.
    stand_in.content.lock().unwrap().broken = None;
    let path = resolve_with(MODEL, &hub, &mut ()).unwrap();
    assert_eq!(
        fs::read(path.join(WEIGHTS)).unwrap(),
        content().files[WEIGHTS]
    );
}

#[test]
fn a_server_without_ranges_can_not_corrupt_a_continued_file() {
    let cache = tempfile::tempdir().unwrap();
    let broken = Some((WEIGHTS.to_string(), 10_000, 1));
    let stand_in = StandIn::start(Content {
        no_ranges: true,
        broken,
        ..content()
    });
    let path = resolve_with(MODEL, &hub(&stand_in, cache.path()), &mut ()).unwrap();
    assert_eq!(
        fs::read(path.join(WEIGHTS)).unwrap(),
        content().files[WEIGHTS]
    );
}

#[test]
fn answers_that_would_leave_the_cache_are_refused() {
    let cache = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(Content {
        etag: Some("../../../evil".into()),
        ..content()
    });
    let hub = hub(&stand_in, cache.path());
    assert!(matches!(
        error(resolve_with(MODEL, &hub, &mut ())),
        HubError::BadAnswer { .. }
    ));
    stand_in.content.lock().unwrap().commit = "../../evil".into();
    assert!(matches!(
        error(resolve_with(MODEL, &hub, &mut ())),
        HubError::BadAnswer { .. }
    ));
    stand_in.content.lock().unwrap().model = "org/other".into();
    assert!(matches!(
        error(resolve_with(MODEL, &hub, &mut ())),
        HubError::UnknownModel { .. }
    ));
}

#[test]
fn a_directory_is_itself_and_nonsense_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = Hub {
        endpoint: "http://127.0.0.1:9".into(),
        cache: dir.path().join("cache"),
        token: None,
        offline: true,
    };
    let given = dir.path().to_str().unwrap();
    assert_eq!(resolve_with(given, &nowhere, &mut ()).unwrap(), dir.path());
    let message = error(resolve_with("./models/없음", &nowhere, &mut ())).to_string();
    assert!(
        message.contains("no directory of that name, and not a hub id either"),
        "{message}"
    );
    let file = dir.path().join("model.safetensors");
    fs::write(&file, "").unwrap();
    let message = error(resolve_with(file.to_str().unwrap(), &nowhere, &mut ())).to_string();
    assert!(
        message.contains("is a file, expected a model directory"),
        "{message}"
    );
}

#[test]
fn the_environment_is_honoured() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    let hub = |pairs: &[(&str, &str)]| {
        let mut all: BTreeMap<String, String> = pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        all.entry("HOME".into())
            .or_insert_with(|| home.path().to_str().unwrap().into());
        Hub::from_variables(|name| all.get(name).cloned()).unwrap()
    };
    let plain = hub(&[]);
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert_eq!(
        (plain.cache, plain.token, plain.offline),
        (at(".cache/huggingface/hub"), None, false)
    );
    assert_eq!(hub(&[("HF_HOME", "~/hf")]).cache, at("hf/hub"));
    assert_eq!(
        hub(&[("XDG_CACHE_HOME", "/x")]).cache,
        Path::new("/x/huggingface/hub")
    );
    assert_eq!(
        hub(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache,
        Path::new("/c")
    );
    assert_eq!(
        hub(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "")]).cache,
        Path::new("/h/hub")
    );
    assert_eq!(
        hub(&[("HF_ENDPOINT", "http://mirror/ ")]).endpoint,
        "http://mirror"
    );
    fs::create_dir_all(at("hf")).unwrap();
    fs::write(at("hf/token"), "stored\n").unwrap();
    let hf_home = at("hf");
    let hf_home = ("HF_HOME", hf_home.to_str().unwrap());
    assert_eq!(hub(&[hf_home]).token.as_deref(), Some("stored"));
    assert_eq!(
        hub(&[hf_home, ("HF_TOKEN", " given ")]).token.as_deref(),
        Some("given")
    );
    for (value, expected) in [
        ("1", true),
        ("true", true),
        ("ON", true),
        ("yes", true),
        ("0", false),
        ("no", false),
    ] {
        assert_eq!(
            hub(&[("HF_HUB_OFFLINE", value)]).offline,
            expected,
            "{value}"
        );
    }
    assert!(Hub::from_variables(|_| None).is_err());
}

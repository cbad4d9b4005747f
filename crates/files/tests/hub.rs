//! Pulling models from a loopback hub that misbehaves, and what the cache looks like afterwards.

#![allow(clippy::unwrap_used)] // also in the helpers, which clippy takes for a library's code

mod hub_server;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hub_server::{COMMIT, Fault, Hub, REPO, Shared, fixture, git_hash, serve, sha256};
use zoetrope_files::hub::{self, Error, Event, Extent, Part, Patience, Repo, Settings};

const SHARD: &str = "transformer/diffusion_pytorch_model-00001-of-00003.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

struct Room {
    cache: tempfile::TempDir,
    settings: Settings,
    hub: Shared,
}

fn room(hub: Hub) -> Room {
    let cache = tempfile::tempdir().unwrap();
    let (endpoint, hub) = serve(hub);
    let wait = Duration::from_millis(5);
    let patience = Patience {
        attempts: 4,
        first_wait: wait,
        wait_max: wait * 4,
        answer: Duration::from_secs(4),
        silence: Duration::from_secs(1),
    };
    let settings = Settings { endpoint, patience, ..Settings::new(cache.path()) };
    Room { cache, settings, hub }
}

fn repo() -> Repo {
    REPO.parse().unwrap()
}

impl Room {
    fn pull(&self) -> hub::Result<std::path::PathBuf> {
        let plan = hub::plan(&self.settings, &repo())?;
        hub::pull(&self.settings, &plan, &|_| ControlFlow::Continue(()))
    }

    fn root(&self) -> std::path::PathBuf {
        self.cache.path().join("models--Tongyi-MAI--Z-Image-Turbo")
    }

    /// Ranges of the requests for a file's bytes.
    fn ranges(&self, name: &str) -> Vec<String> {
        let path = format!("/storage/{name}");
        let seen = &self.hub.lock().unwrap().seen;
        seen.iter()
            .filter_map(|line| line.strip_prefix(&path))
            .map(|range| range.trim().to_string())
            .collect()
    }

    /// Every file that the listing has and a model needs is there, with the right bytes.
    fn check_snapshot(&self, snapshot: &Path) {
        let hub = self.hub.lock().unwrap();
        for (name, bytes) in &hub.files {
            let surplus =
                name.starts_with("assets") || name.ends_with(".bin") || name.contains("fp16");
            assert_eq!(snapshot.join(name).exists(), !surplus, "{name}");
            assert!(
                surplus || fs::read(snapshot.join(name)).unwrap() == *bytes,
                "{name} has other bytes"
            );
        }
        drop(hub);
        assert_eq!(hub::find(&self.settings, &repo()), Some(snapshot.to_path_buf()));
    }
}

fn check_fault(file: &str, faults: &[Fault]) -> Room {
    let mut hub = fixture();
    hub.faults.insert(file.into(), faults.to_vec());
    let room = room(hub);
    let snapshot = room.pull().unwrap();
    room.check_snapshot(&snapshot);
    assert!(room.hub.lock().unwrap().faults[file].is_empty(), "not every fault was met");
    room
}

#[test]
fn a_plan_says_what_it_costs_and_writes_nothing() {
    let room = room(fixture());
    let plan = hub::plan(&room.settings, &repo()).unwrap();
    let sizes: u64 = plan.files.iter().map(|file| file.bytes).sum();
    assert_eq!(
        (plan.bytes_total, plan.bytes_missing, plan.commit.as_str()),
        (sizes, sizes, COMMIT)
    );
    assert_eq!(plan.files.len(), 18);
    assert_eq!(fs::read_dir(room.cache.path()).unwrap().count(), 0);
    assert_eq!(hub::find(&room.settings, &repo()), None);

    room.pull().unwrap();
    assert!(hub::plan(&room.settings, &repo()).unwrap().is_complete());
}

/// The layout is a contract with Python's `huggingface_hub`: names by etag, relative links, a ref without a line end.
#[test]
#[cfg(unix)]
fn the_cache_is_laid_out_as_huggingface_hub_does() {
    let room = room(fixture());
    let snapshot = room.pull().unwrap();
    room.check_snapshot(&snapshot);
    assert_eq!(snapshot, room.root().join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(room.root().join("refs/main")).unwrap(), COMMIT);
    for (name, bytes) in &room.hub.lock().unwrap().files {
        let Ok(target) = fs::read_link(snapshot.join(name)) else { continue };
        let etag = if name.ends_with(".safetensors") { sha256(bytes) } else { git_hash(bytes) };
        let up = if name.contains('/') { "../../../" } else { "../../" };
        assert_eq!(target.to_str().unwrap(), format!("{up}blobs/{etag}"), "{name}");
        assert!(
            room.cache
                .path()
                .join(format!(".locks/models--Tongyi-MAI--Z-Image-Turbo/{etag}.lock"))
                .exists()
        );
    }
    let left = fs::read_dir(room.root().join("blobs")).unwrap();
    assert!(left.flatten().all(|entry| !entry.path().to_string_lossy().contains("incomplete")));
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let room = check_fault(SHARD, &[Fault::Break, Fault::Break]);
    let half = 1_048_704 / 2;
    let ranges = room.ranges(SHARD);
    assert_eq!(
        ranges,
        ["".to_string(), format!("bytes={half}-"), format!("bytes={}-", half + half / 2)]
    );
}

#[test]
fn a_silent_connection_counts_as_broken() {
    let room = check_fault(VAE, &[Fault::Stall]);
    assert_eq!(room.ranges(VAE).len(), 2);
}

#[test]
fn a_server_that_ignores_ranges_is_read_from_the_start() {
    check_fault(SHARD, &[Fault::Break, Fault::IgnoreRange]);
}

#[test]
fn passing_troubles_are_waited_out() {
    check_fault(VAE, &[Fault::Status(429)]);
    check_fault(VAE, &[Fault::Status(500), Fault::Status(503)]);
    let mut hub = fixture();
    hub.listing_faults = vec![429, 500];
    room(hub).pull().unwrap();
}

#[test]
fn what_never_ends_is_given_up_and_kept_for_the_next_pull() {
    let mut hub = fixture();
    hub.faults.insert(SHARD.into(), vec![Fault::Break; 4]);
    let room = room(hub);
    let error = room.pull().unwrap_err();
    assert!(matches!(&error, Error::Broken { file, attempts: 4, .. } if file == SHARD), "{error}");
    assert_eq!(hub::find(&room.settings, &repo()), None);
    let entries = hub::list(&room.settings).unwrap();
    assert!(!entries[0].complete && entries[0].bytes_partial > 900_000, "{entries:?}");

    let plan = hub::plan(&room.settings, &repo()).unwrap();
    assert!(plan.bytes_missing < plan.bytes_total - 900_000);
    room.check_snapshot(&room.pull().unwrap());
    assert_eq!(room.ranges(SHARD).len(), 5);
}

#[test]
fn a_stopped_pull_is_resumed_by_the_next() {
    let room = room(fixture());
    let plan = hub::plan(&room.settings, &repo()).unwrap();
    let most = AtomicU64::new(0);
    let stop = |event: Event| match event {
        Event::Position { bytes, .. } if most.fetch_max(bytes, Ordering::Relaxed) > 500_000 => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    };
    assert!(matches!(hub::pull(&room.settings, &plan, &stop), Err(Error::Cancelled)));
    room.check_snapshot(&room.pull().unwrap());
    let resumed =
        room.hub.lock().unwrap().seen.iter().filter(|line| line.contains("bytes=")).count();
    assert!(resumed > 0, "nothing was resumed");
}

#[test]
fn a_damaged_file_is_deleted_and_named() {
    for name in [VAE, "vae/config.json"] {
        let mut hub = fixture();
        hub.lies_about = Some(name.into());
        let room = room(hub);
        let error = room.pull().unwrap_err();
        assert!(matches!(&error, Error::Corrupt { file, .. } if file == name), "{error}");
        let lie = "0".repeat(if name == VAE { 64 } else { 40 });
        for left in [lie.clone(), format!("{lie}.incomplete")] {
            assert!(!room.root().join("blobs").join(left).exists());
        }
    }
}

#[test]
fn what_lies_damaged_on_the_disk_is_noticed_too() {
    let room = room(fixture());
    let plan = hub::plan(&room.settings, &repo()).unwrap();
    let etag = &plan.files.iter().find(|file| file.name == VAE).unwrap().etag;
    fs::create_dir_all(room.root().join("blobs")).unwrap();
    fs::write(room.root().join(format!("blobs/{etag}.incomplete")), vec![1; 1000]).unwrap();
    assert!(matches!(room.pull(), Err(Error::Corrupt { .. })));
    room.check_snapshot(&room.pull().unwrap());
}

#[test]
fn refusals_say_what_to_do() {
    let mut hub = fixture();
    hub.token = Some("hf_secret".into());
    let mut room = room(hub);
    let error = room.pull().unwrap_err().to_string();
    assert!(
        error.contains("HF_TOKEN") && error.contains("icence") && error.contains("(401)"),
        "{error}"
    );

    let token = |secret: &str| Some(hub::Token(secret.into()));
    room.settings.token = token("wrong");
    assert!(room.pull().unwrap_err().to_string().contains("not valid"));
    room.settings.token = token("hf_secret");
    assert!(!format!("{:?}", room.settings).contains("secret"));
    // The storage refuses whoever brings a token along.
    room.check_snapshot(&room.pull().unwrap());
}

#[test]
fn unknown_models_and_hubs_are_named() {
    let mut room = room(fixture());
    let unknown: Repo = "somebody/else@v2".parse().unwrap();
    let error = hub::plan(&room.settings, &unknown).unwrap_err().to_string();
    assert!(error.contains("`somebody/else`") && error.contains("`v2`"), "{error}");

    room.settings.endpoint = "http://127.0.0.1:9".into(); // the discard port: nobody listens
    let error = hub::plan(&room.settings, &repo()).unwrap_err().to_string();
    assert!(
        error.contains("127.0.0.1:9")
            && error.contains("HF_ENDPOINT")
            && error.contains("directory"),
        "{error}"
    );

    room.settings.offline = true;
    assert!(matches!(hub::plan(&room.settings, &repo()), Err(Error::Offline { .. })));
}

#[test]
fn names_that_leave_the_cache_are_refused() {
    for name in ["../evil", "vae/../../../evil", "/etc/evil", "vae/..\\\\evil"] {
        let mut hub = fixture();
        hub.extra_name = Some(name.into());
        let room = room(hub);
        assert!(matches!(room.pull(), Err(Error::UnsafeName { .. })), "{name}");
        assert!(!room.root().exists());
    }
}

#[test]
fn two_pulls_at_once_download_each_file_once() {
    let room = room(fixture());
    std::thread::scope(|scope| {
        let pulls = [scope.spawn(|| room.pull().unwrap()), scope.spawn(|| room.pull().unwrap())];
        pulls.into_iter().for_each(|pull| room.check_snapshot(&pull.join().unwrap()));
    });
    assert_eq!(room.ranges(SHARD).len(), 1);
}

#[test]
fn configs_alone_are_found_as_such() {
    let room = room(fixture());
    let plan = hub::plan_part(&room.settings, &repo(), Part::Configs).unwrap();
    assert!(plan.files.iter().all(|file| !file.name.contains("safetensors")));
    let snapshot = hub::pull(&room.settings, &plan, &|_| ControlFlow::Continue(())).unwrap();
    assert_eq!(hub::find_part(&room.settings, &repo(), Part::Configs), Some(snapshot));
    assert_eq!(hub::find(&room.settings, &repo()), None);
}

#[test]
fn removing_frees_what_no_other_snapshot_uses() {
    let room = room(fixture());
    let snapshot = room.pull().unwrap();
    let entries = hub::list(&room.settings).unwrap();
    assert_eq!(
        (entries.len(), entries[0].complete, entries[0].refs.as_slice()),
        (1, true, &["main".to_string()][..])
    );

    // A second snapshot that shares one file with the first.
    let other = room.root().join("snapshots").join("f".repeat(40));
    fs::create_dir_all(&other).unwrap();
    fs::rename(snapshot.join("model_index.json"), other.join("model_index.json")).unwrap();
    let freed = hub::remove(&room.settings, &repo(), Extent::Revision).unwrap();
    assert_eq!(freed, entries[0].bytes - 404);
    assert!(other.join("model_index.json").is_file() && !snapshot.exists());

    assert_eq!(hub::remove(&room.settings, &repo(), Extent::Repository).unwrap(), 404);
    assert!(!room.root().exists());
    assert!(matches!(
        hub::remove(&room.settings, &repo(), Extent::Repository),
        Err(Error::NotCached { .. })
    ));
}

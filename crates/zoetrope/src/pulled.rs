//! Networks that look at pictures, where `zoetrope models pull` has put them.

use std::path::{Path, PathBuf};

use anyhow::bail;
use zoetrope_files::hub::{self, Part, VisionRepository};

use crate::environment::Environment;

/// The first of `known` that is there.
pub(crate) fn first(known: &[VisionRepository], environment: &Environment) -> Option<PathBuf> {
    known.iter().find_map(|known| hub::find(&environment.hub, &known.repository.parse().ok()?))
}

/// What `name`, a value of `option`, means: a folder, a name of ours or a hub id. `others` are values that it takes besides.
pub(crate) fn named(
    name: &str,
    (option, others): (&str, &str),
    environment: &Environment,
) -> anyhow::Result<PathBuf> {
    if Path::new(name).is_dir() {
        return Ok(name.into());
    }
    let Ok(repo) = repository(name).parse() else {
        bail!("{option} {name}: there is no such folder; use {others}, a folder or a hub id");
    };
    match hub::find_part(&environment.hub, &repo, Part::Vision) {
        Some(folder) => Ok(folder),
        None if hub::is_vision(&repo) => {
            bail!("{option} {name}: it is not there; `zoetrope models pull {name}` fetches it")
        }
        None => bail!(
            "{option} {name}: it is not there, and `zoetrope models pull` does not know what it is; download it and give its folder"
        ),
    }
}

/// The hub id of what is called `name`, which may be one itself.
pub(crate) fn repository(name: &str) -> &str {
    hub::vision_repository(name).unwrap_or(name)
}

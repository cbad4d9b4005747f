//! Which safety checker looks at pictures: options of `serve`, `worker`, `generate` and `bench`.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use candle_core::Device;
use zoetrope_checkpoint::VisionModel;
use zoetrope_files::hub::SAFETY_CHECKERS;
use zoetrope_worker::Checker;

use crate::environment::Environment;
use crate::pulled;

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "safety-checker")]
pub(crate) struct Args {
    /// What looks whether pictures are safe: `auto` (the checker that `zoetrope models pull safety` fetched, where there is one),
    /// `off`, a folder, or the hub id of a checker that was pulled. Without a checker, servers refuse requests that ask for a look,
    /// unless it is `off`. The embedded model can draw nothing unsafe, and is looked at only where a checker is named.
    #[arg(long, env = "ZOETROPE_SAFETY", value_name = "CHECKER", default_value_t = Choice::Auto)]
    pub(crate) safety: Choice,
}

/// Which checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The one that is there, if one is.
    Auto,
    /// None.
    Off,
    /// This one: a folder, a name or a hub id.
    Named(String),
}

impl FromStr for Choice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "off" => Self::Off,
            name => Self::Named(name.into()),
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Named(name) => name,
        })
    }
}

impl Args {
    /// The checker in memory, if there is to be one.
    pub(crate) fn checker(
        &self,
        environment: &Environment,
        device: &Device,
    ) -> anyhow::Result<Option<Checker>> {
        let open = |folder: &Path| {
            let files = VisionModel::safety_checker(folder).context("--safety")?;
            Checker::open(&files, device).with_context(|| format!("--safety {}", folder.display()))
        };
        self.folder(environment)?.as_deref().map(open).transpose()
    }

    /// Where the checker's files are.
    pub(crate) fn folder(&self, environment: &Environment) -> anyhow::Result<Option<PathBuf>> {
        match &self.safety {
            Choice::Off => Ok(None),
            Choice::Auto => Ok(pulled::first(SAFETY_CHECKERS, environment)),
            Choice::Named(name) => {
                pulled::named(name, ("--safety", "auto, off"), environment).map(Some)
            }
        }
    }
}

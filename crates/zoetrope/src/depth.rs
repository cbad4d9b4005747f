//! Which network finds depth for control networks: an option of `serve`, `worker` and `generate`.

use anyhow::Context;
use candle_core::Device;
use zoetrope_checkpoint::VisionModel;
use zoetrope_files::hub::DEPTH_NETWORKS;
use zoetrope_worker::Depth;

use crate::environment::Environment;
use crate::pulled;

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "depth-network")]
pub(crate) struct Args {
    /// What finds depth for control networks: `auto` (the network that `zoetrope models pull depth` fetched, where there is one), a folder, or
    /// the hub id of one that was pulled.
    #[arg(long, env = "ZOETROPE_DEPTH_MODEL", value_name = "MODEL", default_value = AUTO)]
    depth_model: String,
}

const AUTO: &str = "auto";

impl Args {
    /// The network, which is read when it is needed first; none where none was named or pulled.
    pub(crate) fn network(
        &self,
        environment: &Environment,
        device: &Device,
    ) -> anyhow::Result<Option<Depth>> {
        let folder = match &*self.depth_model {
            AUTO => pulled::first(DEPTH_NETWORKS, environment),
            name => Some(pulled::named(name, ("--depth-model", AUTO), environment)?),
        };
        let files = folder.map(|folder| VisionModel::depth(&folder)).transpose();
        Ok(files.context("--depth-model")?.map(|files| Depth::new(files, device)))
    }
}

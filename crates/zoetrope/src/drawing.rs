//! What makes the pictures of requests: options of `serve` and `worker`, and the worker made from them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use candle_core::Device;
use url::Url;
use zoetrope_checkpoint::Storage;
use zoetrope_engine::device_memory;
use zoetrope_engine::pipeline::{Keep, Options};
use zoetrope_files::Store;
use zoetrope_files::fetch::{Fetcher, Rules};
use zoetrope_jobs::{Limits, Queue};
use zoetrope_worker::{Engine, Models, Residency, Safety, Served, Settings, Worker};

use crate::environment::Environment;
use crate::model::{self, Wanted};
use crate::place::{Place, now_ms};
use crate::safety::Choice;
use crate::{demo, depth, device, expansion, packed, safety};

/// What was typed about it.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "drawing")]
pub(crate) struct Args {
    /// What draws: `demo` (inside this program), a diffusers folder, a .safetensors or .gguf file, or a hub id.
    #[arg(long, env = "ZOETROPE_MODEL", default_value = demo::NAME)]
    pub(crate) model: String,
    /// The same for endpoints of the base model [default: the model above].
    #[arg(long, env = "ZOETROPE_BASE_MODEL", value_name = "MODEL")]
    pub(crate) base_model: Option<String>,
    /// A Z-Image-Omni or Z-Image-Edit folder or hub id, which /v1/images/edits then has as z-image-edit.
    #[arg(long, env = "ZOETROPE_EDIT_MODEL", value_name = "MODEL")]
    pub(crate) edit_model: Option<String>,
    /// A control network for the model above, as Z-Image-Turbo-Fun-Controlnet-Union: its file, or a folder as diffusers saves it.
    #[arg(long, env = "ZOETROPE_CONTROLNET", value_name = "PATH")]
    controlnet: Option<PathBuf>,
    /// The text encoder's file or folder, for models in single files.
    #[arg(long, env = "ZOETROPE_TEXT_ENCODER", value_name = "FILE")]
    text_encoder: Option<PathBuf>,
    /// The autoencoder's file or folder, for models in single files.
    #[arg(long, env = "ZOETROPE_VAE", value_name = "FILE")]
    vae: Option<PathBuf>,
    /// auto (NVIDIA's GPUs where this build and machine have any), cpu, cuda, cuda:N or metal. A worker of its own draws on each GPU.
    #[arg(long, env = "ZOETROPE_DEVICE", default_value = "auto")]
    device: String,
    /// auto, f32, bf16, f16, fp8, int8, q8_0, q6_k, q5_k, q4_k or q4_0.
    #[arg(long, env = "ZOETROPE_DTYPE", default_value = "auto")]
    dtype: String,
    #[command(flatten)]
    packed: packed::Args,
    /// Gigabytes of weights that stay loaded; what was not used for longest goes first [default: half the machine's memory, or all that a GPU has free].
    #[arg(long, env = "ZOETROPE_MEMORY_GB", value_name = "GB")]
    memory_gb: Option<f64>,
    /// A folder whose .safetensors files may be named as the `path` of a LoRA.
    #[arg(long, env = "ZOETROPE_LORA_DIR", value_name = "DIR")]
    lora_dir: Option<PathBuf>,
    /// Whether image, LoRA and webhook addresses may lead into private networks and to this machine.
    #[arg(long, env = "ZOETROPE_ALLOW_PRIVATE", value_parser = clap::builder::BoolishValueParser::new())]
    allow_private: bool,
    /// A host that such addresses may lead to wherever it is; may be given several times.
    #[arg(long, env = "ZOETROPE_ALLOW_HOSTS", value_name = "HOST", value_delimiter = ',')]
    allow_hosts: Vec<String>,
    #[command(flatten)]
    safety: safety::Args,
    #[command(flatten)]
    depth: depth::Args,
    #[command(flatten)]
    expansion: expansion::Args,
    /// Seconds that what runs may go on after the signal to stop; then it goes back into the queue.
    #[arg(long, env = "ZOETROPE_DRAIN_SECONDS", value_name = "S", default_value_t = 30)]
    pub(crate) drain_seconds: u64,
    /// Seconds after which a silent worker's request is given to another.
    #[arg(long, env = "ZOETROPE_LEASE_SECONDS", value_name = "S", default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(3..=3600))]
    lease_seconds: u64,
    /// Attempts of one request that are lost with their worker or fail for a passing reason.
    #[arg(long, env = "ZOETROPE_ATTEMPTS_MAX", value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(i64).range(1..=100))]
    attempts_max: i64,
    /// Sleeps so many milliseconds a step instead of drawing: for measuring what surrounds the engine.
    #[arg(long, value_name = "MS", hide = true)]
    engine_sleep_ms: Option<u64>,
}

impl Args {
    /// What the queue needs to know of it.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            attempts_max: self.attempts_max,
            lease_ms: 1000 * self.lease_seconds as i64,
            ..Limits::default()
        }
    }

    /// How long what runs may go on after the signal to stop.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// The door to addresses that users chose. The hub is configured, so that it may be anywhere.
    pub(crate) fn fetcher(&self, environment: &Environment) -> anyhow::Result<Fetcher> {
        let hub = Url::parse(&environment.hub.endpoint).ok();
        let hub = hub.as_ref().and_then(|url| url.host_str()).map(String::from);
        let hosts = self.allow_hosts.iter().cloned().chain(hub).collect();
        let rules = Rules { private: self.allow_private, hosts, roots: Vec::new() };
        Fetcher::new(rules).context("certificates for https cannot be read")
    }

    /// Everything about it that can be wrong, looked at without loading a model.
    pub(crate) fn check(&self, environment: &Environment) -> anyhow::Result<Options> {
        let storage: Storage = self.dtype.parse().context("--dtype")?;
        if let Some(gigabytes) = self.memory_gb.filter(|gb| !(*gb > 0.0 && *gb < 1e6)) {
            bail!("--memory-gb {gigabytes}: give a number of gigabytes above 0");
        }
        if let Some(folder) = self.lora_dir.as_ref().filter(|folder| !folder.is_dir()) {
            bail!("--lora-dir {}: there is no such folder", folder.display());
        }
        let device = device::parse(&self.device)?;
        self.safety.folder(environment)?;
        self.depth.network(environment, &device)?;
        self.expansion.expansion(&self.model)?;
        let packed = self.packed.folder(environment)?;
        Ok(Options { storage: Some(storage), device, keep: Keep::All, packed })
    }

    /// The workers, one for each device; a model of the hub is downloaded now if it is not there.
    pub(crate) fn workers(
        &self,
        place: &Place,
        environment: &Environment,
        (queue, store): (Queue, Store),
    ) -> anyhow::Result<Vec<Worker>> {
        let worker =
            |device| self.worker(place, environment, (queue.clone(), store.clone()), device);
        device::all(&self.device)?.into_iter().map(worker).collect()
    }

    fn worker(
        &self,
        place: &Place,
        environment: &Environment,
        (queue, store): (Queue, Store),
        device: Device,
    ) -> anyhow::Result<Worker> {
        let folder = |name: &str| {
            let folder = place.folder(environment)?.join(name);
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            anyhow::Ok(folder)
        };
        Ok(Worker::new(Settings {
            queue,
            store,
            fetcher: self.fetcher(environment)?,
            engine: self.engine(environment, device.clone())?,
            cache: folder("loras")?,
            trainings: folder("trainings")?,
            lora_folder: self.lora_dir.clone(),
            hub: environment.hub.endpoint.clone(),
            safety: self.safety(environment, &device)?,
            depth: self.depth.network(environment, &device)?,
            expansion: self.expansion.expansion(&self.model)?,
            base_expansion: self
                .expansion
                .expansion(self.base_model.as_ref().unwrap_or(&self.model))?,
            chance: Arc::new(by_chance),
            now_ms: now_ms(),
            lease: Duration::from_secs(self.lease_seconds),
            drain: self.drain(),
        }))
    }

    /// Whether the embedded model is all that draws.
    fn is_demo(&self) -> bool {
        let demo = |model: &str| model == demo::NAME;
        demo(&self.model) && self.base_model.as_deref().is_none_or(demo)
    }

    /// The size of the embedded model's pictures, where nothing else draws: fal's are too large for it.
    pub(crate) fn draws_at(&self) -> anyhow::Result<Option<(u32, u32)>> {
        if !self.is_demo() {
            return Ok(None);
        }
        let demo = demo::Demo::load()?;
        Ok(Some((demo.width, demo.height)))
    }

    /// The embedded model can draw nothing but landscapes, and is looked at only where a checker is named.
    fn safety(&self, environment: &Environment, device: &Device) -> anyhow::Result<Safety> {
        if self.is_demo() && !matches!(self.safety.safety, Choice::Named(_)) {
            return Ok(Safety::Harmless);
        }
        let checker = self.safety.checker(environment, device)?;
        Ok(match checker {
            Some(checker) => {
                tracing::info!(checker = checker.name(), "pictures are looked at");
                Safety::Checked(checker)
            }
            None if self.safety.safety == Choice::Off => Safety::Off,
            None => Safety::Unchecked,
        })
    }

    fn engine(&self, environment: &Environment, device: Device) -> anyhow::Result<Engine> {
        if let Some(ms) = self.engine_sleep_ms {
            return Ok(Engine::asleep(Duration::from_millis(ms)));
        }
        let options = Options { device, ..self.check(environment)? };
        let located = |model: &str| {
            let (text_encoder, vae) = (self.text_encoder.as_deref(), self.vae.as_deref());
            let layout = model::locate(Wanted { model, text_encoder, vae }, environment)?;
            let resolution = if model == demo::NAME { demo::Demo::load()?.width } else { 1024 };
            anyhow::Ok(Served { layout, resolution })
        };
        let mut turbo = located(&self.model)?;
        if let Some(path) = &self.controlnet {
            turbo.layout = turbo.layout.with_control(path).context("--controlnet")?;
        }
        let base = match self.base_model.as_deref().filter(|base| *base != self.model) {
            Some(base) => located(base)?,
            None => turbo.clone(),
        };
        let edit = self.edit_model.as_deref().map(located).transpose()?;
        let budget = match self.memory_gb {
            Some(gigabytes) => (gigabytes * 1e9) as u64,
            // A GPU's own memory is all that its weights can have.
            None => device_memory(&options.device).map_or_else(half_the_memory, |(free, _)| free),
        };
        Ok(Engine::networks(Residency::new(Models { turbo, base, edit }, options, budget)))
    }
}

/// Where the machine does not tell, nothing is ever freed.
fn half_the_memory() -> u64 {
    let Ok(mut system) = sysinfo::System::new() else { return u64::MAX };
    system.refresh_memory();
    let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
    system.total_memory().min(limit) / 2
}

fn by_chance() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    u64::from_le_bytes(bytes)
}

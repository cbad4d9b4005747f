//! The networks of a model, each read when it is first used, in the form that a request's acceleration asks for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use candle_core::Device;
use zoetrope_api::Acceleration;
use zoetrope_checkpoint::{Layout, Role, Storage, Weights};

use crate::config::{
    self, ControlConfig, ControlRefiner, TextEncoderConfig, TinyConfig, TransformerConfig,
    VaeConfig, VisionConfig, VisionProcessor,
};
use crate::layers::{Home, Parameters};
use crate::networks::text_encoder::Depth;
use crate::networks::{ControlNet, TextEncoder, TinyDecoder, Transformer, Vae, VisionTower};
use crate::pipeline::{Event, Keep, Listener, Options};
use crate::preview::{Previewer, Projection};
use crate::{Error, Interrupt, Result, memory};

/// A model's files, and those of its networks that are in memory.
pub(crate) struct Parts {
    pub(crate) layout: Layout,
    pub(crate) options: Options,
    pub(crate) widths: TransformerConfig,
    text_encoder: Option<Held<TextEncoder>>,
    transformer: Option<Held<Transformer>>,
    vae: Option<Vae>,
    vision: Option<VisionTower>,
    control: Option<Held<Arc<ControlNet>>>,
    previewer: Option<Previewer>,
    /// A GPU before anything of this model was on it.
    gpu: OnceLock<Option<memory::Gpu>>,
}

/// A network in memory: the level that it was loaded for, and the form that its matrices got.
struct Held<T> {
    network: T,
    level: Acceleration,
    storage: Storage,
}

/// Takes the network out of `held` where it serves, so that otherwise it is gone before the other one comes.
fn fitting<T>(held: &mut Option<Held<T>>, storage: Storage) -> Option<T> {
    held.take().filter(|held| held.storage == storage).map(|held| held.network)
}

fn serves<T>(held: &Option<Held<T>>, level: Acceleration) -> bool {
    held.as_ref().is_some_and(|held| held.level == level)
}

impl Parts {
    /// Nothing is loaded yet.
    pub(crate) fn new(layout: Layout, options: Options) -> Result<Self> {
        let widths = transformer_config(&layout)?;
        Ok(Self {
            layout,
            options,
            widths,
            text_encoder: None,
            transformer: None,
            vae: None,
            vision: None,
            control: None,
            previewer: None,
            gpu: OnceLock::new(),
        })
    }

    /// The text encoder, `depth` of it or more; `vocabulary` is the tokenizer's.
    pub(crate) fn text_encoder(
        &mut self,
        vocabulary: usize,
        level: Acceleration,
        depth: Depth,
        on: &Listener,
    ) -> Result<&TextEncoder> {
        // One that is not deep enough goes before the other comes, so that there is never a second one in memory.
        self.text_encoder.take_if(|held| held.network.depth() < depth);
        if !serves(&self.text_encoder, level) {
            let weights = Weights::open(&self.layout.text_encoder, Role::TextEncoder)?;
            let storage = memory::storage_for(&weights, self.options.storage, level);
            let storage = self.fitting_form(&weights, storage);
            let network = match fitting(&mut self.text_encoder, storage) {
                Some(network) => network,
                None => self.load_text_encoder(weights, (storage, depth), vocabulary, on)?,
            };
            self.text_encoder = Some(Held { network, level, storage });
        }
        Ok(&self.text_encoder.as_ref().expect("it was loaded just now").network)
    }

    fn load_text_encoder(
        &self,
        weights: Weights,
        (storage, depth): (Storage, Depth),
        vocabulary: usize,
        on: &Listener,
    ) -> Result<TextEncoder> {
        let config = match &self.layout.text_encoder_config {
            Some(blob) => {
                config::parse::<TextEncoderConfig>(&blob.name(), &blob.read()?)?.check()?
            }
            None => TextEncoderConfig::infer(&weights)?,
        };
        if vocabulary > config.vocab_size {
            let rows = config.vocab_size;
            let problem = format!(
                "has {vocabulary} tokens, but the text encoder knows {rows}: it is of another model"
            );
            return Err(Error::Tokenizer(problem));
        }
        if depth == Depth::Features {
            // What is not run, and what is read row by row, takes no memory.
            weights.ignore(&format!("layers.{}.", config.num_hidden_layers - 1));
            weights.ignore("embed_tokens.");
        }
        let beside = self.beside_text_encoder()?;
        let parameters = self.prepare(weights, "text encoder", (storage, beside), on)?;
        Self::load(&parameters, on, |p| TextEncoder::load(p, &config, depth))
    }

    /// The transformer.
    pub(crate) fn transformer(
        &mut self,
        level: Acceleration,
        on: &Listener,
    ) -> Result<&mut Transformer> {
        if !serves(&self.transformer, level) {
            let weights = Weights::open(&self.layout.transformer, Role::Transformer)?;
            let storage = self.storage_at(&weights, level);
            let network = match fitting(&mut self.transformer, storage) {
                Some(network) => network,
                None => {
                    let parameters = self.prepare(weights, "transformer", (storage, 0), on)?;
                    Self::load(&parameters, on, |p| Transformer::load(p, &self.widths))?
                }
            };
            self.transformer = Some(Held { network, level, storage });
        }
        let network = &mut self.transformer.as_mut().expect("it was loaded just now").network;
        network.round_scores(level != Acceleration::None);
        Ok(network)
    }

    /// The form of the transformer's matrices, and of those beside it.
    fn storage_at(&self, weights: &Weights, level: Acceleration) -> Storage {
        let storage = memory::storage_for(weights, self.options.storage, level);
        let storage = match level {
            Acceleration::High => memory::eight_bits(weights, storage, &self.options.device),
            _ => storage,
        };
        self.fitting_form(weights, storage)
    }

    /// `storage`, or what a GPU has room for where nobody chose a form.
    fn fitting_form(&self, weights: &Weights, storage: Storage) -> Storage {
        let chosen = self.options.storage.is_some_and(|chosen| chosen != Storage::AsStored);
        // int8 in runs is an order of processors'.
        let storage = match storage {
            Storage::Int8 if !self.options.device.is_cpu() => Storage::Q8_0,
            storage => storage,
        };
        match self.gpu.get_or_init(|| memory::Gpu::of(&self.options.device)) {
            Some(gpu) if !chosen => gpu.fitting(storage, |form| weights.memory_bytes(form)),
            _ => storage,
        }
    }

    /// Bytes that the transformer will want beside a text encoder that stays.
    fn beside_text_encoder(&self) -> Result<u64> {
        match self.options.keep {
            Keep::All if !self.options.device.is_cpu() && self.transformer.is_none() => {
                self.transformer_bytes(Acceleration::default())
            }
            _ => Ok(0),
        }
    }

    /// The form of the transformer's matrices.
    pub(crate) fn transformer_form(&self, level: Acceleration) -> Result<Storage> {
        let weights = Weights::open(&self.layout.transformer, Role::Transformer)?;
        Ok(match self.storage_at(&weights, level) {
            Storage::AsStored => weights.form(),
            form => form,
        })
    }

    /// Bytes of the transformer's weights in memory.
    pub(crate) fn transformer_bytes(&self, level: Acceleration) -> Result<u64> {
        let weights = Weights::open(&self.layout.transformer, Role::Transformer)?;
        Ok(weights.memory_bytes(self.storage_at(&weights, level)))
    }

    /// The autoencoder.
    pub(crate) fn vae(&mut self, on: &Listener) -> Result<&Vae> {
        if self.vae.is_none() {
            let weights = Weights::open(&self.layout.vae, Role::Vae)?;
            let config = match &self.layout.vae_config {
                Some(blob) => config::parse::<VaeConfig>(&blob.name(), &blob.read()?)?.check()?,
                None => VaeConfig::infer(&weights)?,
            };
            let storage =
                memory::storage_for(&weights, self.vae_storage()?, Acceleration::default());
            let parameters = self.prepare(weights, "VAE", (storage, 0), on)?;
            self.vae = Some(Vae::load(&parameters, &config)?);
        }
        Ok(self.vae.as_ref().expect("it was loaded just now"))
    }

    /// The configuration of the control network, if there is one; nothing but headers is read.
    pub(crate) fn control_config(&self) -> Result<Option<ControlConfig>> {
        if self.layout.control.is_empty() {
            return Ok(None);
        }
        if self.widths.siglip_feat_dim.is_some() {
            return Err(Error::no_control());
        }
        Ok(Some(match &self.layout.control_config {
            Some(blob) => {
                config::parse::<ControlConfig>(&blob.name(), &blob.read()?)?.check(&self.widths)?
            }
            None => {
                let weights = Weights::open(&self.layout.control, Role::Control)?;
                ControlConfig::infer(&weights, &self.widths)?
            }
        }))
    }

    /// The control network beside the transformer.
    pub(crate) fn control(
        &mut self,
        level: Acceleration,
        on: &Listener,
    ) -> Result<Arc<ControlNet>> {
        if !serves(&self.control, level) {
            let Some(config) = self.control_config()? else {
                return Err(Error::nothing_controls());
            };
            let weights = Weights::open(&self.layout.control, Role::Control)?;
            if config.refiner()? == ControlRefiner::Layers {
                weights.ignore("control_noise_refiner.");
            }
            let storage = self.storage_at(&weights, level);
            let network = match fitting(&mut self.control, storage) {
                Some(network) => network,
                None => {
                    let parameters = self.prepare(weights, "control network", (storage, 0), on)?;
                    let load = |p: &Parameters| ControlNet::load(p, &config, &self.widths);
                    Arc::new(Self::load(&parameters, on, load)?)
                }
            };
            self.control = Some(Held { network, level, storage });
        }
        Ok(self.control.as_ref().expect("it was loaded just now").network.clone())
    }

    /// How pictures are prepared for the vision tower.
    pub(crate) fn vision_processor(&self) -> Result<VisionProcessor> {
        let processor = match &self.layout.vision_processor {
            Some(blob) => config::parse::<VisionProcessor>(&blob.name(), &blob.read()?)?,
            None => VisionProcessor::default(),
        };
        processor.check(&self.vision_config()?)
    }

    fn vision_config(&self) -> Result<VisionConfig> {
        if self.widths.siglip_feat_dim.is_none() {
            return Err(Error::no_references());
        }
        let config = match (&self.layout.vision_config, self.layout.vision.is_empty()) {
            (Some(blob), false) => config::parse::<VisionConfig>(&blob.name(), &blob.read()?)?,
            _ => {
                let file = format!("{}/siglip", self.layout.name);
                let problem = "config.json and weights of the vision tower are missing: download the whole repository";
                return Err(Error::Config { file, problem: problem.into() });
            }
        };
        let wanted = self.widths.siglip_feat_dim.unwrap_or_default();
        if config.hidden_size != wanted {
            let problem = format!(
                "`hidden_size` is {}, and the transformer's `siglip_feat_dim` {wanted}: the tower is of another model",
                config.hidden_size
            );
            return Err(Error::Config { file: "siglip/config.json".into(), problem });
        }
        config.check()
    }

    /// The vision tower.
    pub(crate) fn vision(&mut self, on: &Listener) -> Result<&VisionTower> {
        if self.vision.is_none() {
            let config = self.vision_config()?;
            let weights = Weights::open(&self.layout.vision, Role::Vision)?;
            weights.ignore("head.");
            let storage =
                memory::storage_for(&weights, self.vae_storage()?, Acceleration::default());
            let parameters = self.prepare(weights, "vision tower", (storage, 0), on)?;
            self.vision = Some(Self::load(&parameters, on, |p| VisionTower::load(p, &config))?);
        }
        Ok(self.vision.as_ref().expect("it was loaded just now"))
    }

    /// Has what previews are made with ready: a decoder made for it where there is one, else what the autoencoder teaches.
    pub(crate) fn prepare_previews(&mut self, interrupt: &Interrupt, on: &Listener) -> Result<()> {
        if self.previewer.is_some() {
            return Ok(());
        }
        self.previewer = Some(match &self.layout.tiny_config {
            Some(blob) => {
                let config = config::parse::<TinyConfig>(&blob.name(), &blob.read()?)?;
                let config = config.check(self.widths.in_channels)?;
                let weights = Weights::open(&self.layout.tiny, Role::Vae)?;
                let parameters = self.prepare(weights, "preview decoder", (Storage::F32, 0), on)?;
                Previewer::Tiny(Box::new(TinyDecoder::load(&parameters, &config)?))
            }
            None => {
                let device = self.device().clone();
                Previewer::Linear(Projection::fit(self.vae(on)?, &device, interrupt)?)
            }
        });
        Ok(())
    }

    /// What sampling needs, which was loaded before: the transformer, and what shows its steps where somebody watches.
    pub(crate) fn sampling(&self) -> (&Transformer, Option<&Previewer>) {
        let transformer = self.transformer.as_ref().expect("it is loaded before it is used");
        (&transformer.network, self.previewer.as_ref())
    }

    /// Frees the text encoder.
    pub(crate) fn release_text_encoder(&mut self) {
        self.text_encoder = None;
        zoetrope_kernels::give_back_memory();
    }

    /// Frees the autoencoder.
    pub(crate) fn release_vae(&mut self) {
        self.vae = None;
        zoetrope_kernels::give_back_memory();
    }

    /// Frees the vision tower.
    pub(crate) fn release_vision(&mut self) {
        self.vision = None;
        zoetrope_kernels::give_back_memory();
    }

    /// Frees the transformer, and what stands beside it.
    pub(crate) fn release_transformer(&mut self) {
        (self.transformer, self.control) = (None, None);
        zoetrope_kernels::give_back_memory();
    }

    /// Frees all networks.
    pub(crate) fn release(&mut self) {
        (self.text_encoder, self.transformer, self.vae) = (None, None, None);
        (self.vision, self.control) = (None, None);
        zoetrope_kernels::give_back_memory();
    }

    /// The autoencoder's form: small as it is, it follows a transformer that is kept narrow.
    fn vae_storage(&self) -> Result<Option<Storage>> {
        match self.options.storage {
            None | Some(Storage::AsStored) => {
                let transformer = Weights::open(&self.layout.transformer, Role::Transformer)?;
                let form = memory::storage_for(&transformer, None, Acceleration::default());
                Ok((form != Storage::F32).then_some(Storage::Bf16))
            }
            chosen => Ok(chosen),
        }
    }

    /// Checks that a component in `storage` fits, with so many bytes that are to come beside it, and reports while it is read.
    fn prepare(
        &self,
        weights: Weights,
        component: &'static str,
        (storage, beside): (Storage, u64),
        on: &Listener,
    ) -> Result<Parameters> {
        let device = &self.options.device;
        let home = memory::home(component, &weights, storage, device, beside)?;
        if home == Home::MainMemory {
            let text = format!(
                "the {component} does not fit into the device's memory: its weights stay in main memory and are sent for every use"
            );
            on(Event::Note { text: &text });
        }
        let (of, read, on) = (weights.file_bytes(), AtomicU64::new(0), on.clone());
        let progress = move |bytes| {
            let read = read.fetch_add(bytes, Ordering::Relaxed) + bytes;
            on(Event::Loading { component, read, of });
        };
        let weights = weights.with_storage(storage).with_progress(Arc::new(progress));
        let weights = match &self.options.packed {
            Some(folder) if self.options.device.is_cpu() => weights.with_packed(folder),
            _ => weights,
        };
        Ok(Parameters::new(weights, device).kept(home))
    }

    /// Loads a network from what was prepared, and tells what happened beside.
    fn load<T>(
        parameters: &Parameters,
        on: &Listener,
        network: impl FnOnce(&Parameters) -> Result<T>,
    ) -> Result<T> {
        let network = network(parameters);
        zoetrope_kernels::give_back_memory(); // matrices in the forms that files have
        parameters.weights().notes().iter().for_each(|text| on(Event::Note { text }));
        network
    }

    /// Where the networks run.
    pub(crate) fn device(&self) -> &Device {
        &self.options.device
    }
}

/// The transformer's configuration: its file's, or read off its tensors.
fn transformer_config(layout: &Layout) -> Result<TransformerConfig> {
    match &layout.transformer_config {
        Some(blob) => config::parse::<TransformerConfig>(&blob.name(), &blob.read()?)?.check(),
        None => TransformerConfig::infer(&Weights::open(&layout.transformer, Role::Transformer)?),
    }
}

//! From a request to pixels: the prompt's features, the sampler, the decoder; and which weights stay in memory.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use zoetrope_api::{
    Acceleration, Controls, Count, Guidance, ImageSize, InvalidField, Seed, Steps, Strength,
    Tiling, TilingMode,
};
use zoetrope_checkpoint::{Adapter, Blob, Layout, PackedFolder, Storage};
use zoetrope_kernels::Wrap;

use crate::config::{self, SchedulerConfig};
use crate::emphasis::{self, Weighted};
use crate::expand::{self, Expansion};
use crate::guides::{Control, Reference};
use crate::lora::{self, Applied};
use crate::networks::TextEncoder;
use crate::networks::text_encoder::Depth;
use crate::networks::transformer::Caption;
use crate::parts::Parts;
use crate::pixels::{self, Rgb};
pub use crate::preview::PREVIEW_SIDE;
use crate::prompt::PromptTokenizer;
use crate::sampler::{self, Conditioning, Controlled, Method, Run, Start, TOKENS_AT_ONCE};
use crate::schedule::Schedule;
use crate::{Interrupt, Result, memory, start};

/// What a picture is made from, besides the prompt.
#[derive(Clone, Debug, Default)]
pub enum Source {
    /// Nothing: text to image.
    #[default]
    Text,
    /// An image, in the request's size.
    Image {
        /// Its pixels.
        image: Rgb,
        /// How much of the schedule is run.
        strength: Strength,
    },
    /// An image of which a part is painted anew.
    Inpaint {
        /// Its pixels.
        image: Rgb,
        /// One byte a pixel; from 128 on the pixel is painted.
        mask: Vec<u8>,
        /// How much of the schedule is run.
        strength: Strength,
    },
}

/// A request, every value of it checked.
#[derive(Clone)]
pub struct Request {
    /// What the pictures shall show.
    pub prompt: String,
    /// What they shall not show; without guidance it has no effect, and absent it is empty.
    pub negative_prompt: Option<String>,
    /// Width and height.
    pub size: ImageSize,
    /// Network evaluations a picture (twice as many with guidance), unless the controls name noise levels.
    pub steps: Steps,
    /// Where the random numbers start.
    pub seed: Seed,
    /// Pictures of one draw of random numbers.
    pub count: Count,
    /// How strongly the prompt is followed.
    pub guidance: Guidance,
    /// What to start from.
    pub source: Source,
    /// Tokens kept of a prompt.
    pub tokens_max: usize,
    /// How far the pictures may be approximated.
    pub acceleration: Acceleration,
    /// Whether each step but the last is shown as a small picture.
    pub previews: bool,
    /// What a control network looks at.
    pub control: Option<Control>,
    /// Pictures that the prompt speaks of, for models that see them.
    pub references: Vec<Reference>,
    /// How the text encoder makes the prompt more detailed before it is drawn, if it does.
    pub expansion: Option<Expansion>,
    /// Sampler, noise levels, seeds and tiles.
    pub controls: Controls,
}

impl Request {
    /// Steps of the schedule.
    pub fn schedule_steps(&self) -> Steps {
        self.controls.sigmas.as_ref().map_or(self.steps, |sigmas| sigmas.steps())
    }

    /// Rows and columns of tokens that the network sees in one piece.
    fn seen_tokens(&self) -> [usize; 2] {
        let (height, width) = self.size.latent();
        let Some(Tiling { mode, size, .. }) = self.controls.tiling else {
            return [height / 2, width / 2];
        };
        let all = mode == TilingMode::Windows;
        let seen = |side: usize, windows| if windows { side.min(size as usize) } else { side } / 2;
        [seen(height, all || mode.wraps_rows()), seen(width, all || mode.wraps_columns())]
    }

    /// Which edges of the pictures meet.
    pub(crate) fn wrap(&self) -> Wrap {
        let mode = self.controls.tiling.map(|tiling| tiling.mode);
        let wraps = |of: fn(TilingMode) -> bool| mode.is_some_and(of);
        Wrap { rows: wraps(TilingMode::wraps_rows), columns: wraps(TilingMode::wraps_columns) }
    }
}

/// What a generation is doing.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// `read` of `of` bytes of a component's files were read.
    Loading {
        /// Which network.
        component: &'static str,
        /// Bytes so far.
        read: u64,
        /// Bytes in all.
        of: u64,
    },
    /// The prompt's end does not fit and was cut off.
    PromptCut {
        /// Tokens that were cut.
        tokens: usize,
    },
    /// The expanded prompt has grown.
    Words {
        /// By this.
        text: &'a str,
    },
    /// A step was taken.
    Step {
        /// Steps so far, over all pictures.
        done: usize,
        /// Steps in all.
        of: usize,
        /// `[batch, channels, height, width]`
        latents: &'a Tensor,
    },
    /// What the first picture will look like, as far as it can be told after `done` steps.
    Preview {
        /// Steps so far.
        done: usize,
        /// Steps in all.
        of: usize,
        /// At most [`PREVIEW_SIDE`] pixels a side.
        picture: &'a Rgb,
    },
    /// Latents become pixels.
    Decoding,
    /// Something beside the pictures that whoever runs the machine may want to know.
    Note {
        /// In words.
        text: &'a str,
    },
}

/// Pictures, and the latents that they were decoded from.
pub struct Generated {
    /// In the order of the noise.
    pub pictures: Vec<Rgb>,
    /// `[count, channels, height / 8, width / 8]` float32.
    pub latents: Tensor,
    /// What the prompt was expanded to, if it was.
    pub expanded: Option<String>,
}

/// How a model is kept in memory.
#[derive(Clone, Debug)]
pub struct Options {
    /// The form of the networks' matrices; `None` decides by the model.
    pub storage: Option<Storage>,
    /// Where the networks run.
    pub device: Device,
    /// Whether the text encoder stays beside the transformer.
    pub keep: Keep,
    /// Where packed weights are kept between runs, if they are.
    pub packed: Option<PackedFolder>,
}

/// What stays in memory between uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every network, for a server with memory to spare.
    All,
    /// The text encoder goes before the transformer comes: half the memory, a reload a request.
    OneAtATime,
}

/// A model, loaded as far as it was needed so far.
pub struct Pipeline {
    scheduler: SchedulerConfig,
    tokenizer: PromptTokenizer,
    pub(crate) parts: Parts,
}

/// Hears what is going on; called from several threads while weights are read.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

impl Pipeline {
    /// Reads the model's configurations and tokenizer; weights come when they are needed.
    pub fn open(layout: Layout, options: Options) -> Result<Self> {
        let scheduler = match &layout.scheduler_config {
            Some(blob) => config::parse::<SchedulerConfig>(&blob.name(), &blob.read()?)?,
            None => SchedulerConfig::with_shift(layout.family().shift()),
        };
        let tokenizer = PromptTokenizer::new(&layout.tokenizer_json()?)?;
        Ok(Self { scheduler: scheduler.check()?, tokenizer, parts: Parts::new(layout, options)? })
    }

    /// The noise schedule's configuration.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// The schedule of a request.
    pub fn schedule(&self, request: &Request) -> Schedule {
        let tokens = request.size.image_tokens();
        match &request.controls.sigmas {
            Some(sigmas) => Schedule::from_stops(&self.scheduler, sigmas.get(), tokens),
            None => Schedule::new(&self.scheduler, request.steps.get(), tokens),
        }
    }

    /// Reads adapter files against this model, whose transformer is loaded for requests of `level`.
    pub fn read_adapter(
        &mut self,
        blob: &Blob,
        level: Acceleration,
        on: &Listener,
    ) -> Result<Adapter> {
        let modules = lora::modules(self.parts.transformer(level, on)?);
        Ok(Adapter::read(blob, &modules)?)
    }

    /// Makes the pictures of `request` with `adapters`.
    pub fn generate(
        &mut self,
        request: &Request,
        adapters: &[Applied],
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Generated> {
        self.check(request)?;
        let expanded = self.expand(request, interrupt, on)?;
        let prompt = expanded.as_ref().unwrap_or(&request.prompt);
        let features = self.encode_prompts(prompt, request, interrupt, on)?;
        if self.parts.options.keep == Keep::OneAtATime {
            self.parts.release_text_encoder();
        }
        let generated = self.generate_scene(request, &features, adapters, interrupt, on)?;
        Ok(Generated { expanded, ..generated })
    }

    /// The prompt of `request` made more detailed, if it asks for that. Follows from the prompt, the seed and the expansion alone.
    pub fn expand(
        &mut self,
        request: &Request,
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Option<String>> {
        let Some(expansion) = &request.expansion else { return Ok(None) };
        expansion.check()?;
        let (level, vocabulary) = (request.acceleration, self.tokenizer.vocabulary());
        let model = self.parts.text_encoder(vocabulary, level, Depth::Full, on)?;
        let prompt = (request.prompt.as_str(), expansion);
        let told = &mut |text: &str| on(Event::Words { text });
        expand::expanded(model, &self.tokenizer, prompt, request.seed, interrupt, told).map(Some)
    }

    /// Makes the pictures of `request` from the features of its prompt and, with guidance, of its negative prompt, in
    /// place of the texts.
    pub fn generate_from(
        &mut self,
        request: &Request,
        features: &[Tensor],
        adapters: &[Applied],
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Generated> {
        self.check(request)?;
        let features: Vec<_> = features.iter().map(|f| vec![f.clone()]).collect();
        self.generate_scene(request, &features, adapters, interrupt, on)
    }

    /// The same from the features of each prompt's parts.
    fn generate_scene(
        &mut self,
        request: &Request,
        features: &[Vec<Tensor>],
        adapters: &[Applied],
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Generated> {
        let references = self.see(request, interrupt, on)?;
        let control = self.controlled(request, interrupt, on)?;
        if self.parts.options.keep == Keep::OneAtATime {
            self.parts.release_vision();
        }
        let (noise, start) = start::draw(&mut self.parts, request, interrupt, on)?;
        let device = self.parts.device().clone();
        if request.previews {
            self.parts.prepare_previews(interrupt, on)?;
        }
        let transformer = self.parts.transformer(request.acceleration, on)?;
        lora::apply(transformer, adapters, &device)?;
        let captions = features
            .iter()
            .map(|parts| transformer.scene(parts, &references, interrupt))
            .collect::<Result<Vec<_>>>()?;
        let latents = self.sample(request, (&captions, control), (noise, start), interrupt, on)?;
        sampler::check_finite(&latents, "the last step")?;
        if self.parts.options.keep == Keep::OneAtATime {
            self.parts.release_transformer();
        }
        on(Event::Decoding);
        let pictures = self.decode(request, &latents, interrupt, on)?;
        Ok(Generated { pictures, latents: latents.to_device(&Device::Cpu)?, expanded: None })
    }

    /// Refuses what can be refused before anything is loaded.
    fn check(&self, request: &Request) -> Result<()> {
        let (width, height) = (request.size.width() as usize, request.size.height() as usize);
        let fits = |image: &Rgb| image.width == width && image.height == height;
        let (image, strength) = match &request.source {
            Source::Text => (None, None),
            Source::Image { image, strength } | Source::Inpaint { image, strength, .. } => {
                (Some(image), Some(strength))
            }
        };
        if let Some(image) = image.filter(|image| !fits(image)) {
            let problem = format!(
                "is {}x{}, but the request's size is {}",
                image.width, image.height, request.size
            );
            return Err(InvalidField::new("image", problem).into());
        }
        if let Source::Inpaint { mask, .. } = &request.source
            && mask.len() != width * height
        {
            return Err(InvalidField::new("mask", "has another size than the image").into());
        }
        if let Some(strength) = strength {
            strength.first_step(request.schedule_steps())?;
        }
        let widths = &self.parts.widths;
        let limits = widths.axes_lens;
        let [rows, columns] = request.seen_tokens();
        if rows > limits[1] || columns > limits[2] {
            let problem = format!(
                "is {}; this model's rotary tables end at {}x{}",
                request.size,
                limits[2] * 16,
                limits[1] * 16
            );
            return Err(InvalidField::new("size", problem).into());
        }
        self.check_guides(request)?;
        let tokens = match request.controls.tiling {
            Some(_) => TOKENS_AT_ONCE.max(rows * columns),
            None => tokens_of(request) * self.pictures_at_once(request),
        };
        let device = self.parts.device();
        memory::check_work(tokens, widths.dim, widths.ffn_dim(), width * height, device)
    }

    /// Caption features of `prompt` and, with guidance, of the negative prompt.
    fn encode_prompts(
        &mut self,
        prompt: &str,
        request: &Request,
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Vec<Vec<Tensor>>> {
        let negative =
            request.guidance.is_on().then(|| request.negative_prompt.clone().unwrap_or_default());
        let prompts = std::iter::once(prompt.to_string()).chain(negative);
        if request.controls.prompt_weighting {
            let weighted = prompts.map(|p| emphasis::parse(&p)).collect::<Result<Vec<_>, _>>()?;
            return weighted
                .iter()
                .map(|w| Ok(vec![self.weighted(w, request, interrupt, on)?]))
                .collect();
        }
        let parts = prompts.map(|p| PromptTokenizer::scene(&p, request.references.len()));
        let tokens = parts
            .map(|parts| parts.into_iter().map(|p| self.part(p, request.tokens_max, on)).collect())
            .collect::<Result<Vec<Vec<_>>>>()?;
        let encoder = self.text_encoder(request.acceleration, on)?;
        let encode = |parts: &Vec<Vec<u32>>| {
            parts.iter().map(|ids| encoder.forward(ids, interrupt)).collect()
        };
        tokens.iter().map(encode).collect()
    }

    /// The control network of `request`, and what it looks at.
    fn controlled(
        &mut self,
        request: &Request,
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Option<Controlled>> {
        let Some(control) = &request.control else { return Ok(None) };
        let context = self.context(control, request, interrupt, on)?;
        let network = self.parts.control(request.acceleration, on)?;
        Ok(Some(Controlled { network, context, span: control.span }))
    }

    /// Caption features of a prompt with weights.
    fn weighted(
        &mut self,
        prompt: &Weighted,
        request: &Request,
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Tensor> {
        let (vocabulary, level) = (self.tokenizer.vocabulary(), request.acceleration);
        let encoder = self.parts.text_encoder(vocabulary, level, Depth::Features, on)?;
        let networks = (&self.tokenizer, encoder);
        let (features, cut) = emphasis::features(prompt, request.tokens_max, networks, interrupt)?;
        if cut > 0 {
            on(Event::PromptCut { tokens: cut });
        }
        Ok(features)
    }

    /// At most `most` tokens of `prompt`; whether it was cut is told.
    pub(crate) fn tokens(&self, prompt: &str, most: usize, on: &Listener) -> Result<Vec<u32>> {
        self.part(PromptTokenizer::chat(prompt), most, on)
    }

    /// At most `most` tokens of `text` as it is.
    fn part(&self, text: String, most: usize, on: &Listener) -> Result<Vec<u32>> {
        let tokens = self.tokenizer.tokens(text, most)?;
        if tokens.cut > 0 {
            on(Event::PromptCut { tokens: tokens.cut });
        }
        Ok(tokens.ids)
    }

    /// How many pictures go through the transformer together.
    fn pictures_at_once(&self, request: &Request) -> usize {
        if request.controls.tiling.is_some() {
            return 1; // its windows go through together
        }
        let both = if request.guidance.is_on() { 2 } else { 1 };
        (TOKENS_AT_ONCE / (tokens_of(request) * both)).clamp(1, request.count.get())
    }

    /// All steps of all pictures, some pictures at a time: `[count, channels, height, width]`.
    fn sample(
        &self,
        request: &Request,
        (captions, control): (&[Caption], Option<Controlled>),
        (noise, start): (Tensor, Start),
        watch: &Interrupt,
        on: &Listener,
    ) -> Result<Tensor> {
        let ((transformer, previewer), schedule) = (self.parts.sampling(), self.schedule(request));
        let (count, at_once) = (request.count.get(), self.pictures_at_once(request));
        let groups = count.div_ceil(at_once);
        let Controls { sampler, tiling, .. } = request.controls;
        let method = Method { sampler, tiling };
        let mut finished = Vec::with_capacity(groups);
        for group in 0..groups {
            let first = group * at_once;
            let pictures = at_once.min(count - first);
            let spread =
                |c: Option<&Caption>| vec![c.cloned(); pictures].into_iter().flatten().collect();
            let conditioning = Conditioning {
                positive: spread(captions.first()),
                negative: spread(captions.get(1)),
                guidance: request.guidance,
                control: control.clone(),
            };
            let noise = noise.narrow(0, first, pictures)?;
            let start = (noise, start.part(first, pictures)?);
            let mut run = Run::with(method, transformer, &conditioning, &schedule, start, watch)?;
            if request.acceleration == Acceleration::High {
                run = run.reusing();
            }
            for step in &mut run {
                let step = step?;
                watch.check()?;
                let (done, of) = (group * step.of + step.done, groups * step.of);
                on(Event::Step { done, of, latents: &step.latents });
                if let Some(previewer) = previewer.filter(|_| request.previews && done < of) {
                    let picture = &previewer.picture(&step.denoised.narrow(0, 0, 1)?, watch)?;
                    on(Event::Preview { done, of, picture });
                }
            }
            finished.push(run.latents().clone());
        }
        Ok(Tensor::cat(&finished, 0)?)
    }

    /// Latents to pictures, one at a time: the decoder's memory grows with the pixels.
    fn decode(
        &mut self,
        request: &Request,
        latents: &Tensor,
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Vec<Rgb>> {
        let device = self.parts.device().clone();
        let vae = self.parts.vae(on)?;
        let mut pictures = Vec::new();
        for i in 0..latents.dim(0)? {
            let latents = latents.narrow(0, i, 1)?;
            let image = vae.decode_by(&latents, start::passage(request, &device), interrupt)?;
            sampler::check_finite(&image, "the decoder")?;
            pictures.extend(pixels::to_pictures(&image)?);
        }
        Ok(pictures)
    }

    /// The text encoder, for features at least.
    pub(crate) fn text_encoder(
        &mut self,
        level: Acceleration,
        on: &Listener,
    ) -> Result<&TextEncoder> {
        self.parts.text_encoder(self.tokenizer.vocabulary(), level, Depth::Features, on)
    }

    /// The text encoder with everything that makes words.
    pub(crate) fn language_model(
        &mut self,
        level: Acceleration,
        on: &Listener,
    ) -> Result<&TextEncoder> {
        self.parts.text_encoder(self.tokenizer.vocabulary(), level, Depth::Full, on)
    }

    /// The model's networks.
    pub(crate) fn parts(&mut self) -> &mut Parts {
        &mut self.parts
    }
}

/// Tokens of a picture of `request`, and of those that it refers to.
fn tokens_of(request: &Request) -> usize {
    let beside = request.references.iter().map(|r| r.whole.width * r.whole.height / 256);
    request.size.image_tokens() + beside.sum::<usize>()
}

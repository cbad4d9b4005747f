//! The sampler: from noise to an image, one for every task. The loop belongs to the caller.

mod solver;
mod windows;

use std::ops::RangeInclusive;
use std::sync::Arc;

use candle_core::Tensor;
use zoetrope_api::{ControlSpan, Guidance, Sampler, Steps, Strength, Tiling};

use self::solver::{Solver, Way};
use self::windows::Windows;
use crate::networks::reuse::Past;
use crate::networks::transformer::{Batch, Caption};
use crate::networks::{ControlNet, Transformer};
use crate::schedule::Schedule;
use crate::{Error, Result, Watch};

/// Where a run starts.
#[derive(Clone)]
pub enum Start {
    /// From noise alone: text to image.
    Noise,
    /// From an image's latents, noised: image to image.
    Image {
        /// `[1 or batch, channels, height, width]`, in the transformer's scale; one is for all pictures.
        latents: Tensor,
        /// How much of the schedule is run.
        strength: Strength,
    },
    /// As `Image`, and where the mask is 0 the image is kept: inpainting.
    Inpaint {
        /// As above.
        latents: Tensor,
        /// `[1, 1, height, width]` of 0 (keep) and 1 (paint).
        mask: Tensor,
        /// As above.
        strength: Strength,
    },
}

impl Start {
    /// Where `pictures` pictures from the `first` on start.
    pub fn part(&self, first: usize, pictures: usize) -> Result<Self> {
        let mut part = self.clone();
        if let Self::Image { latents, .. } | Self::Inpaint { latents, .. } = &mut part
            && latents.dim(0)? > 1
        {
            *latents = latents.narrow(0, first, pictures)?;
        }
        Ok(part)
    }
}

/// Tokens that go through the transformer at once: four pictures of 1024², which fill any processor, in about 2 GB.
pub(crate) const TOKENS_AT_ONCE: usize = 4 * 4096;

/// What the pictures of a batch shall show.
pub struct Conditioning {
    /// One caption a picture.
    pub positive: Vec<Caption>,
    /// The same number of negative captions, when guidance is on.
    pub negative: Vec<Caption>,
    /// How strongly.
    pub guidance: Guidance,
    /// What they shall follow.
    pub control: Option<Controlled>,
}

/// A control network at work on all pictures of a batch.
#[derive(Clone)]
pub struct Controlled {
    /// The network.
    pub network: Arc<ControlNet>,
    /// What it looks at, `[channels, height, width]`.
    pub context: Tensor,
    /// How strongly it works, and when.
    pub span: ControlSpan,
}

/// How a run goes: Euler's method over the whole picture unless told otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Method {
    /// The solver.
    pub sampler: Sampler,
    /// The windows that the picture is drawn in.
    pub tiling: Option<Tiling>,
}

/// A run in progress; each `next` is one step.
pub struct Run<'a> {
    network: &'a Transformer,
    batches: Batches,
    guidance: Guidance,
    schedule: &'a Schedule,
    watch: &'a dyn Watch,
    solver: Solver,
    windows: Option<Windows>,
    noise: Tensor,
    kept: Option<Kept>,
    latents: Tensor,
    first: usize,
    next: usize,
}

/// What goes through the network in a step: made once, because nothing of it depends on the time.
struct Batches {
    /// With the prompt alone.
    plain: Branch,
    /// With the prompt, and then with the negative one.
    guided: Option<Branch>,
}

/// What a branch of guidance sends through the network: all pictures at once, or so many of their windows at a time.
struct Branch {
    batches: Vec<Batch>,
    /// What steps leave for one another, where they may.
    past: Option<Past>,
}

/// What inpainting restores after every step.
struct Kept {
    latents: Tensor,
    mask: Tensor,
}

/// A step that was taken.
pub struct Step {
    /// Steps taken so far in this run.
    pub done: usize,
    /// Steps that this run takes.
    pub of: usize,
    /// `[batch, channels, height, width]`
    pub latents: Tensor,
    /// Where the velocity points to: the picture as far as it can be told by now, `[batch, channels, height, width]`.
    pub denoised: Tensor,
}

impl<'a> Run<'a> {
    /// A run over `schedule` from `start`, with `noise` `[batch, channels, height, width]`.
    pub fn new(
        network: &'a Transformer,
        conditioning: &Conditioning,
        schedule: &'a Schedule,
        (noise, start): (Tensor, Start),
        watch: &'a dyn Watch,
    ) -> Result<Self> {
        Self::with(Method::default(), network, conditioning, schedule, (noise, start), watch)
    }

    /// The same by a method of the caller's choice.
    pub fn with(
        method: Method,
        network: &'a Transformer,
        conditioning: &Conditioning,
        schedule: &'a Schedule,
        (noise, start): (Tensor, Start),
        watch: &'a dyn Watch,
    ) -> Result<Self> {
        let (first, latents, kept) = match start {
            Start::Noise => (0, noise.clone(), None),
            Start::Image { latents, strength } => {
                let first = first_step(schedule, strength)?;
                (first, noised(&latents, &noise, schedule.sigma(first))?, None)
            }
            Start::Inpaint { latents, mask, strength } => {
                let first = first_step(schedule, strength)?;
                let start = noised(&latents, &noise, schedule.sigma(first))?;
                (first, start, Some(Kept { latents, mask }))
            }
        };
        let (_, _, height, width) = noise.dims4()?;
        let windows =
            method.tiling.map(|tiling| Windows::new(tiling, (height, width), noise.device()));
        let Conditioning { positive, negative, guidance, control } = conditioning;
        let batch = |captions: Vec<&Caption>| {
            let mut batches = batches(network, &captions, windows.as_ref(), (height, width))?;
            // Windows see other parts at every step, so that they go without.
            if let (Some(control), None, [whole]) = (control, &windows, &mut batches[..])
                && let Some(times) = times(control.span, schedule, first)
            {
                let contexts = vec![control.context.clone(); captions.len()];
                let scale = control.span.scale();
                network.guide(whole, &control.network, &contexts, (scale, times))?;
            }
            Ok::<_, Error>(Branch { batches, past: None })
        };
        let both = || positive.iter().chain(negative).collect();
        let guided = guidance.is_on().then(|| batch(both())).transpose()?;
        Ok(Self {
            network,
            batches: Batches { plain: batch(positive.iter().collect())?, guided },
            guidance: *guidance,
            schedule,
            watch,
            solver: Solver::new(method.sampler),
            windows,
            noise,
            kept,
            latents,
            first,
            next: first,
        })
    }

    /// The same run, in which steps that can be told from those before them are not computed in full. Windows and second
    /// evaluations of a step leave nothing that tells the next: such runs stay as they are.
    pub fn reusing(mut self) -> Self {
        if self.windows.is_some() || self.solver.sampler() == Sampler::Heun {
            return self;
        }
        let Batches { plain, guided } = &mut self.batches;
        std::iter::once(plain).chain(guided).for_each(|branch| branch.past = Some(Past::default()));
        self
    }

    /// The latents as they are now, `[batch, channels, height, width]`.
    pub fn latents(&self) -> &Tensor {
        &self.latents
    }

    /// Steps that this run takes in all.
    pub fn steps(&self) -> usize {
        self.schedule.steps() - self.first
    }

    fn step(&mut self) -> Result<Step> {
        let (sigma, next) = (self.schedule.sigma(self.next), self.schedule.sigma(self.next + 1));
        let x = self.latents.clone();
        let velocity = self.velocity(&x, self.next)?;
        // The network's velocity points from noise to image; the pipeline's from image to noise.
        let denoised = (&x + (&velocity * f64::from(sigma))?)?;
        let last = self.next + 1 == self.schedule.steps();
        let along =
            |velocity: Tensor| Ok::<_, Error>((&x - (velocity * f64::from(next - sigma))?)?);
        let mut latents = match self.solver.sampler() {
            Sampler::Euler => along(velocity)?,
            // Level 0 has no velocity.
            Sampler::Heun if last => along(velocity)?,
            Sampler::Heun => {
                let there = self.velocity(&along(velocity.clone())?, self.next + 1)?;
                along(((velocity + there)? * 0.5)?)?
            }
            Sampler::DpmPlusPlus2M | Sampler::UniPc => {
                self.solver.multistep(&x, &denoised, Way { from: sigma, to: next, last })?
            }
        };
        if let Some(Kept { latents: kept, mask }) = &self.kept {
            let kept = noised(kept, &self.noise, next)?;
            let keep = mask.affine(-1.0, 1.0)?;
            latents = (kept.broadcast_mul(&keep)? + latents.broadcast_mul(mask)?)?;
        }
        self.latents = latents;
        self.next += 1;
        let (done, of) = (self.next - self.first, self.steps());
        Ok(Step { done, of, latents: self.latents.clone(), denoised })
    }

    /// The network's velocity at `latents` and level `level`, guided: `[batch, channels, height, width]`.
    fn velocity(&mut self, latents: &Tensor, level: usize) -> Result<Tensor> {
        let t = f64::from(self.schedule.time(level));
        let last = self.next + 1 == self.schedule.steps();
        let Self { network, batches, guidance, watch, next, .. } = self;
        let windows = &self.windows;
        let forward = |branch: &mut Branch, pictures: &[Tensor]| {
            let Some(windows) = windows else {
                // The last step goes furthest, and nothing after it makes up for what it misses.
                let past = branch.past.as_mut().filter(|_| !last);
                return network.forward(&branch.batches[0], pictures, t, past, *watch);
            };
            let mut parts = Vec::new();
            for picture in pictures {
                parts.extend(windows.cut(picture, *next)?);
            }
            let mut velocities = Vec::with_capacity(parts.len());
            for batch in &branch.batches {
                let some = &parts[velocities.len()..][..batch.pictures()];
                velocities.extend(network.forward(batch, some, t, None, *watch)?);
            }
            velocities.chunks(windows.count()).map(|parts| windows.joined(parts, *next)).collect()
        };
        let pictures: Vec<Tensor> =
            (0..latents.dim(0)?).map(|i| latents.get(i)).collect::<candle_core::Result<_>>()?;
        let (Some(scale), Some(guided)) = (guidance.scale_at(t), &mut batches.guided) else {
            let velocities = forward(&mut batches.plain, &pictures)?;
            return Ok(Tensor::stack(&velocities, 0)?);
        };
        let twice = [&pictures[..], &pictures[..]].concat();
        let velocities = forward(guided, &twice)?;
        let (pos, neg) = velocities.split_at(pictures.len());
        let guided = pos.iter().zip(neg).map(|(pos, neg)| {
            let mixed = (pos + ((pos - neg)? * scale)?)?;
            match guidance.normalization() {
                Some(factor) => capped(mixed, norm(pos)? * factor),
                None => Ok(mixed),
            }
        });
        Ok(Tensor::stack(&guided.collect::<Result<Vec<_>>>()?, 0)?)
    }
}

impl Iterator for Run<'_> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.schedule.steps()).then(|| self.step())
    }
}

/// What `captions` go through the network with: every picture, or its windows, as many of them together as are worth it.
fn batches(
    network: &Transformer,
    captions: &[&Caption],
    windows: Option<&Windows>,
    size: (usize, usize),
) -> Result<Vec<Batch>> {
    let Some(windows) = windows else {
        return Ok(vec![network.batch(captions.iter().map(|caption| (*caption, size)))?]);
    };
    let (height, width) = windows.size();
    let at_once = (TOKENS_AT_ONCE / (height / 2 * (width / 2))).max(1);
    let each = |caption| std::iter::repeat_n((caption, (height, width)), windows.count());
    let all: Vec<_> = captions.iter().flat_map(|caption| each(*caption)).collect();
    all.chunks(at_once).map(|some| network.batch(some.iter().copied())).collect()
}

fn first_step(schedule: &Schedule, strength: Strength) -> Result<usize> {
    Ok(strength.first_step(Steps::new(schedule.steps() as u32)?)?)
}

/// The times at which a control network works in a run that begins with step `first`.
fn times(span: ControlSpan, schedule: &Schedule, first: usize) -> Option<RangeInclusive<f64>> {
    let steps = span.steps(schedule.steps() - first);
    let time = |step: usize| f64::from(schedule.time(first + step));
    (!steps.is_empty()).then(|| time(steps.start)..=time(steps.end - 1))
}

/// `σ · noise + (1 − σ) · latents`.
fn noised(latents: &Tensor, noise: &Tensor, sigma: f32) -> Result<Tensor> {
    let sigma = f64::from(sigma);
    Ok((noise * sigma)?.broadcast_add(&(latents * (1.0 - sigma))?)?)
}

fn norm(x: &Tensor) -> Result<f64> {
    let values = x.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt())
}

/// `x`, shrunk to a norm of at most `most`.
fn capped(x: Tensor, most: f64) -> Result<Tensor> {
    let size = norm(&x)?;
    if size > most { Ok((x * (most / size))?) } else { Ok(x) }
}

/// An error when `latents` hold something that is not a number.
pub fn check_finite(latents: &Tensor, stage: &'static str) -> Result<()> {
    let finite = norm(latents)?.is_finite();
    if finite { Ok(()) } else { Err(Error::NotANumber { stage }) }
}

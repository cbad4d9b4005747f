//! One update: pictures are drawn and noised, their gradients averaged, and the adapter moved against them.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use zoetrope_checkpoint::Adapter;
use zoetrope_engine::networks::Transformer;
use zoetrope_engine::networks::transformer::{Gradients, Point};
use zoetrope_engine::{Interrupt, lora};

use crate::chance::{self, seed};
use crate::ema::Average;
use crate::inputs::{Inputs, Shown};
use crate::lesson::Lesson;
use crate::optimizer::{self, clip};
use crate::pairs::Pairs;
use crate::rate::rate;
use crate::settings::Settings;
use crate::state::{Array, Saved};
use crate::timesteps::Times;
use crate::{Error, Result};

/// An adapter, and what makes it better.
pub(crate) struct Learner<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) inputs: &'a Inputs,
    /// Adapters that stand beside the one in training.
    pub(crate) beside: &'a [lora::Applied],
    pub(crate) pairs: Pairs,
    pub(crate) optimizer: optimizer::State,
    pub(crate) average: Option<Average>,
    pub(crate) times: Times,
    pub(crate) device: Device,
    /// Pictures whose gradients are computed at the same time.
    pub(crate) at_once: usize,
}

/// What an update came to.
pub(crate) struct Made {
    /// The mean of its pictures' losses.
    pub(crate) loss: f64,
    /// The learning rate.
    pub(crate) rate: f64,
    /// The norm of the gradients before they were clipped.
    pub(crate) norm: f64,
}

impl Learner<'_> {
    /// Makes update `step`, counted from 0.
    pub(crate) fn update(
        &mut self,
        transformer: &mut Transformer,
        step: usize,
        interrupt: &Interrupt,
    ) -> Result<Made> {
        let mut lessons = self.lessons(step)?;
        let pictures = lessons.len();
        lessons.extend(self.kept(transformer, &lessons, step, interrupt)?);
        let deltas = self.pairs.deltas(seed(self.settings.seed, "dropout", &[step as u64]))?;
        let trained = |module: &str| deltas.get(module).cloned();
        lora::apply_with(transformer, self.beside, trained, &self.device)?;
        let (losses, mut gradients) = self.gradients(transformer, &lessons, interrupt)?;
        let loss = losses[..pictures].iter().sum::<f64>() / pictures as f64;
        let norm = clip(&mut gradients, self.settings.clip);
        if !(loss.is_finite() && norm.is_finite()) {
            return Err(Error::NotANumber { step: step + 1 });
        }
        let Settings { schedule, learning_rate, warmup, steps, .. } = *self.settings;
        let rate = rate(schedule, learning_rate, warmup, step, steps);
        let mut values = self.pairs.values()?;
        self.optimizer.step(&mut values, &gradients, rate);
        self.pairs.set(&values)?;
        if let Some(average) = &mut self.average {
            average.update(&values);
        }
        Ok(Made { loss, rate, norm })
    }

    /// The pictures of update `step`, each at a noise level of its own; with a prior, as many of its pictures.
    fn lessons(&self, step: usize) -> Result<Vec<Lesson>> {
        let Settings { batch, seed: run, prior_weight, .. } = *self.settings;
        let mut lessons = Vec::new();
        for (what, list, factor) in
            [("picture", &self.inputs.shown, 1.0), ("prior", &self.inputs.prior, prior_weight)]
        {
            for place in
                (step * batch..(step + 1) * batch).take(if list.is_empty() { 0 } else { batch })
            {
                let seed = seed(run, what, &[place as u64]);
                lessons.push(self.lesson(
                    nth(list, place, self::seed(run, what, &[])),
                    seed,
                    factor,
                )?);
            }
        }
        Ok(lessons)
    }

    fn lesson(&self, shown: &Shown, seed: u64, factor: f64) -> Result<Lesson> {
        let (latents, mut features) = self.inputs.read(shown)?;
        if chance::even(self::seed(seed, "caption", &[])) < self.settings.caption_dropout {
            features = self.inputs.features("")?;
        }
        let sigma = self.times.sigma(chance::even(self::seed(seed, "time", &[])));
        Lesson::new(&latents, features, sigma, self::seed(seed, "noise", &[]), factor)
    }

    /// What holds the adapter to the frozen model: its velocities at the same places under captions that shall not change, those of the
    /// prior or none at all.
    fn kept(
        &self,
        transformer: &mut Transformer,
        lessons: &[Lesson],
        step: usize,
        interrupt: &Interrupt,
    ) -> Result<Vec<Lesson>> {
        let Settings { preserve, batch, seed: run, .. } = *self.settings;
        if preserve == 0.0 {
            return Ok(Vec::new());
        }
        lora::apply(transformer, self.beside, &self.device)?;
        let mut kept = Vec::new();
        for (i, lesson) in lessons.iter().take(batch).enumerate() {
            let place = step * batch + i;
            let features = match self.inputs.prior.as_slice() {
                [] => self.inputs.features("")?,
                prior => self.inputs.read(nth(prior, place, seed(run, "kept", &[])))?.1,
            };
            let caption = transformer.caption(&features, interrupt)?;
            let (_, height, width) = lesson.noised.dims3()?;
            let picture = transformer.batch([(&caption, (height, width))])?;
            let noised = std::slice::from_ref(&lesson.noised);
            let velocity = transformer.forward(&picture, noised, lesson.t, None, interrupt)?;
            let velocity = velocity.into_iter().next().expect("one picture has one velocity");
            kept.push(lesson.kept(features, velocity, preserve));
        }
        Ok(kept)
    }

    /// The losses of `lessons`, and the mean of their gradients, weighted. The sums are in the lessons' order, so that nothing depends on which
    /// thread is first.
    fn gradients(
        &self,
        transformer: &Transformer,
        lessons: &[Lesson],
        interrupt: &Interrupt,
    ) -> Result<(Vec<f64>, Vec<Vec<f32>>)> {
        let of = |lesson: &Lesson| {
            let loss = |velocity: &Tensor| Ok(lesson.loss(velocity)?);
            let Lesson { features, noised: latents, t, .. } = lesson;
            let point = Point { features, latents, t: *t };
            transformer.backward(point, self.settings.checkpointing, interrupt, loss)
        };
        let mut losses = Vec::new();
        let mut sums: Vec<Vec<f32>> =
            self.pairs.tensors().map(|tensor| vec![0.0; tensor.elem_count()]).collect();
        for group in lessons.chunks(self.at_once) {
            let made: Vec<zoetrope_engine::Result<(f32, Gradients)>> = match group {
                [one] => vec![of(one)],
                many => many.par_iter().map(of).collect(),
            };
            for (lesson, made) in group.iter().zip(made) {
                let (loss, gradients) = made?;
                losses.push(f64::from(loss));
                let share = (lesson.factor / self.settings.batch as f64) as f32;
                self.add(&mut sums, &gradients, share)?;
            }
        }
        Ok((losses, sums))
    }

    fn add(&self, sums: &mut [Vec<f32>], gradients: &Gradients, share: f32) -> Result<()> {
        for (sum, tensor) in sums.iter_mut().zip(self.pairs.tensors()) {
            let Some(gradient) = gradients.get(tensor) else { continue };
            let values = gradient.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
            sum.iter_mut().zip(&values).for_each(|(sum, g)| *sum += share * g);
        }
        Ok(())
    }
}

/// A checkpoint's arrays and numbers.
type Parts = (BTreeMap<String, Array>, BTreeMap<String, f64>);

impl Learner<'_> {
    /// The adapter as it would be written: its average, where there is one.
    pub(crate) fn adapter(&self) -> Result<Adapter> {
        match &self.average {
            Some(average) => self.pairs.adapter(average.values()),
            None => self.pairs.adapter(&self.pairs.values()?),
        }
    }

    /// Everything that updates change.
    pub(crate) fn saved(&self) -> Result<Parts> {
        let (mut tensors, mut numbers) = (BTreeMap::new(), BTreeMap::new());
        let mut add = |what: &str, values: &[Vec<f32>]| {
            let named = |(i, values): (usize, &Vec<f32>)| {
                (format!("{what}.{i}"), Array::F32(values.clone()))
            };
            tensors.extend(values.iter().enumerate().map(named));
        };
        add("adapter", &self.pairs.values()?);
        if let Some(average) = &self.average {
            add("average", average.values());
            numbers.insert("average.updates".into(), average.updates());
        }
        self.optimizer.save(&mut tensors, &mut numbers);
        Ok((tensors, numbers))
    }

    /// Puts back what `saved` gave.
    pub(crate) fn restore(&mut self, saved: &Saved) -> Result<()> {
        let Saved { tensors, numbers, .. } = saved;
        let mut values = self.pairs.values()?;
        let take = |what: &str, values: &mut [Vec<f32>]| {
            let mut each = values.iter_mut().enumerate();
            each.try_for_each(|(i, to)| optimizer::take(tensors, &format!("{what}.{i}"), to))
        };
        if let Some(average) = &mut self.average {
            take("average", &mut values)?;
            average.restore(values.clone(), optimizer::number(numbers, "average.updates")?);
        }
        take("adapter", &mut values)?;
        self.pairs.set(&values)?;
        self.optimizer.restore(tensors, numbers)
    }
}

/// Item `place` of an endless row in which `list` comes again and again, each time in another order.
fn nth(list: &[Shown], place: usize, seed: u64) -> &Shown {
    let (round, at) = (place / list.len(), place % list.len());
    &list[chance::shuffled(list.len(), self::seed(seed, "order", &[round as u64]))[at]]
}

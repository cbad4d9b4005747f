//! Solvers: from the latents at one noise level to those at the next.
//!
//! A flow's latents at level `σ` are `(1 − σ) · picture + σ · noise`. In the terms of diffusion solvers that is `α = 1 − σ`, and
//! `λ = ln(α / σ)` is what they count in. At level 1 `λ` is −∞ and at level 0 it is +∞; every factor below has its limit there.

use candle_core::Tensor;
use zoetrope_api::Sampler;

use crate::Result;

/// What a multistep solver remembers, and which it is.
pub(super) struct Solver {
    sampler: Sampler,
    /// Of the last two levels, the last one last.
    known: Vec<Known>,
    /// The latents that the last step of UniPC began with, and its order.
    begun: Option<(Tensor, usize)>,
}

struct Known {
    sigma: f64,
    denoised: Tensor,
}

impl Known {
    fn lambda(&self) -> f64 {
        lambda(self.sigma)
    }
}

/// A step's way: from one level to the next.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) from: f32,
    pub(super) to: f32,
    /// Whether no level follows.
    pub(super) last: bool,
}

fn lambda(sigma: f64) -> f64 {
    (1.0 - sigma).ln() - sigma.ln()
}

impl Solver {
    pub(super) fn new(sampler: Sampler) -> Self {
        Self { sampler, known: Vec::new(), begun: None }
    }

    pub(super) fn sampler(&self) -> Sampler {
        self.sampler
    }

    /// A multistep solver's step from `latents` whose picture is `denoised`, as far as it can be told.
    pub(super) fn multistep(
        &mut self,
        latents: &Tensor,
        denoised: &Tensor,
        way: Way,
    ) -> Result<Tensor> {
        match self.sampler {
            Sampler::UniPc => self.unipc(latents, denoised, way),
            _ => self.dpm(latents, denoised, way),
        }
    }

    fn remember(&mut self, sigma: f64, denoised: &Tensor) {
        if self.known.len() == 2 {
            self.known.remove(0);
        }
        self.known.push(Known { sigma, denoised: denoised.clone() });
    }

    /// DPM-Solver++(2M) (Lu et al., 2022), midpoint form. The last step is of first order: level 0 has no `λ`.
    fn dpm(&mut self, latents: &Tensor, denoised: &Tensor, way: Way) -> Result<Tensor> {
        let (from, to) = (f64::from(way.from), f64::from(way.to));
        self.remember(from, denoised);
        let first = first_order(latents, denoised, (from, to))?;
        let [before, here] = &self.known[..] else { return Ok(first) };
        let h = lambda(to) - here.lambda();
        if way.last || !h.is_finite() {
            return Ok(first);
        }
        let ratio = h / (here.lambda() - before.lambda());
        let slope = ((&here.denoised - &before.denoised)? * ratio)?;
        Ok((first - (slope * (0.5 * (1.0 - to) * (-h).exp_m1()))?)?)
    }

    /// UniPC of second order with `B(h) = e^h − 1` (Zhao et al., 2023): the step that led here is corrected by what was found
    /// here, and then the next one is predicted.
    fn unipc(&mut self, latents: &Tensor, denoised: &Tensor, way: Way) -> Result<Tensor> {
        let (from, to) = (f64::from(way.from), f64::from(way.to));
        let corrected = self.corrected(latents, denoised, from)?;
        self.remember(from, denoised);
        let first = first_order(&corrected, denoised, (from, to))?;
        let order = if way.last { 1 } else { self.known.len() };
        let next = match &self.known[..] {
            [before, here] if order == 2 => {
                let h = lambda(to) - here.lambda();
                let slope = slope(before, here, h)?;
                (first - (slope * (0.5 * (1.0 - to) * (-h).exp_m1()))?)?
            }
            _ => first,
        };
        self.begun = Some((corrected, order));
        Ok(next)
    }

    /// `latents`, to which the last step led, corrected by their own `denoised` at level `sigma`.
    fn corrected(&self, latents: &Tensor, denoised: &Tensor, sigma: f64) -> Result<Tensor> {
        let (Some((begun, order)), Some(here)) = (&self.begun, self.known.last()) else {
            return Ok(latents.clone());
        };
        let h = lambda(sigma) - here.lambda();
        let grown = (-h).exp_m1();
        let first = first_order(begun, &here.denoised, (here.sigma, sigma))?;
        let found = (denoised - &here.denoised)?;
        let change = match &self.known[..] {
            [before, here] if *order == 2 => {
                // Two equations for two weights: they add up to b1, and with the ratio r of the levels' distances to b2.
                let phi_1 = grown / -h - 1.0;
                let phi_2 = phi_1 / -h - 0.5;
                let (b1, b2) = (phi_1 / grown, 2.0 * phi_2 / grown);
                let ratio = (before.lambda() - here.lambda()) / h;
                let of_slope = (b2 - b1) / (ratio - 1.0);
                ((slope(before, here, h)? * of_slope)? + (found * (b1 - of_slope))?)?
            }
            _ => (found * 0.5)?,
        };
        Ok((first - (change * ((1.0 - sigma) * grown))?)?)
    }
}

/// The exact solution where the picture is taken to stay what it is: `σ' / σ · x − α' · (e^−h − 1) · picture`.
fn first_order(latents: &Tensor, denoised: &Tensor, (from, to): (f64, f64)) -> Result<Tensor> {
    let grown = (-(lambda(to) - lambda(from))).exp_m1();
    Ok(((latents * (to / from))? - (denoised * ((1.0 - to) * grown))?)?)
}

/// What the picture changes by over `h`, told from two levels.
fn slope(before: &Known, here: &Known, h: f64) -> Result<Tensor> {
    let ratio = (before.lambda() - here.lambda()) / h;
    Ok(((&before.denoised - &here.denoised)? / ratio)?)
}

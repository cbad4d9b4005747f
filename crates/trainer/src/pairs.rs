//! The adapter in training: a pair of low-rank matrices beside each of the layers that are adapted.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use rand_mt::Mt;
use zoetrope_checkpoint::{Adapter, Delta};
use zoetrope_engine::layers;

use crate::settings::{Lora, Targets};
use crate::{Error, Result};

/// All pairs, by the names of their layers.
pub(crate) struct Pairs {
    pairs: Vec<Pair>,
    /// alpha / rank.
    scale: f64,
    dropout: f64,
}

struct Pair {
    module: String,
    down: Var, // [rank, in]
    up: Var,   // [out, rank]
}

/// How a layer's published name ends, by kind.
const ATTENTION: [&str; 4] =
    [".attention.to_q", ".attention.to_k", ".attention.to_v", ".attention.to_out.0"];
const FEED_FORWARD: [&str; 3] = [".feed_forward.w1", ".feed_forward.w2", ".feed_forward.w3"];
const MODULATION: [&str; 1] = [".adaLN_modulation.0"];

impl Targets {
    /// Whether the layer of this name is adapted. What is no part of a block never is.
    pub fn include(self, module: &str) -> bool {
        let kinds: [(bool, &[&str]); 3] = [
            (self.attention, &ATTENTION),
            (self.feed_forward, &FEED_FORWARD),
            (self.modulation, &MODULATION),
        ];
        let of_kind = |endings: &[&str]| endings.iter().any(|ending| module.ends_with(ending));
        kinds.iter().any(|(wanted, endings)| *wanted && of_kind(endings))
    }
}

impl Pairs {
    /// Pairs that change nothing yet, as LoRA begins: `down` evenly random within ±1/√in, `up` 0.
    pub(crate) fn new(
        modules: &BTreeMap<String, [usize; 2]>,
        lora: &Lora,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let mut words = Mt::new(seed as u32);
        let wanted = modules.iter().filter(|(module, _)| lora.targets.include(module));
        let pair = |(module, [out, width]): (&String, &[usize; 2])| {
            let bound = 1.0 / (*width as f32).sqrt();
            let even = |_| ((words.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0) * bound;
            let down: Vec<f32> = (0..lora.rank * width).map(even).collect();
            Ok(Pair {
                module: module.clone(),
                down: Var::from_vec(down, (lora.rank, *width), device)?,
                up: Var::zeros((*out, lora.rank), candle_core::DType::F32, device)?,
            })
        };
        let pairs = wanted.map(pair).collect::<Result<Vec<_>>>()?;
        Ok(Self { pairs, scale: lora.alpha / lora.rank as f64, dropout: lora.dropout })
    }

    /// Begins where `adapter` is, which must have exactly the layers and the rank of these pairs.
    pub(crate) fn continue_from(&mut self, adapter: &Adapter) -> Result<()> {
        let place = &adapter.name;
        let strangers =
            adapter.deltas.keys().filter(|m| !self.pairs.iter().any(|p| p.module == **m));
        if let Some(module) = strangers.into_iter().next() {
            let problem = format!(
                "adapts `{module}`, which is none of the layers that shall be trained; choose --targets that include it"
            );
            return Err(Error::data(place, problem));
        }
        for pair in &self.pairs {
            let Some(delta) = adapter.deltas.get(&pair.module) else {
                let problem = format!(
                    "has nothing for `{}`, which shall be trained; choose --targets that it has",
                    pair.module
                );
                return Err(Error::data(place, problem));
            };
            let Delta::LowRank { down, up, scale } = delta else {
                return Err(Error::data(place, "is no plain LoRA: only those can be trained on"));
            };
            if down.dims() != pair.down.dims() {
                let (has, wanted) = (down.dim(0)?, pair.down.dim(0)?);
                let problem =
                    format!("has rank {has}, but rank {wanted} shall be trained; use --rank {has}");
                return Err(Error::data(place, problem));
            }
            // The file's own alpha goes into `up`, so that the product is the same under this run's.
            pair.down.set(down)?;
            pair.up.set(&(up * (f64::from(*scale) / self.scale))?)?;
        }
        Ok(())
    }

    /// The tensors that are trained, `down` and `up` of each pair in turn.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.vars().map(Var::as_tensor)
    }

    fn vars(&self) -> impl Iterator<Item = &Var> {
        self.pairs.iter().flat_map(|pair| [&pair.down, &pair.up])
    }

    /// Their values, in the order of `tensors`.
    pub(crate) fn values(&self) -> Result<Vec<Vec<f32>>> {
        self.tensors().map(|t| Ok(t.flatten_all()?.to_vec1::<f32>()?)).collect()
    }

    /// Puts `values` in the place of theirs.
    pub(crate) fn set(&self, values: &[Vec<f32>]) -> Result<()> {
        for (var, values) in self.vars().zip(values) {
            let values = Tensor::from_slice(values, var.shape(), &Device::Cpu)?;
            var.set(&values.to_device(var.device())?)?;
        }
        Ok(())
    }

    /// The deltas of one update by their layers' names, joined to the graph of gradients. With dropout each layer does not see some of its
    /// inputs, drawn from `seed`; the others weigh more.
    pub(crate) fn deltas(&self, seed: u64) -> Result<BTreeMap<&str, layers::Delta>> {
        let mut words = Mt::new(seed as u32);
        let mut deltas = BTreeMap::new();
        for pair in &self.pairs {
            let mut down = pair.down.as_tensor().clone();
            if self.dropout > 0.0 {
                let mask = self.mask(down.dim(1)?, &mut words);
                down = down.broadcast_mul(&Tensor::new(&mask[..], down.device())?.unsqueeze(0)?)?;
            }
            let up = pair.up.as_tensor().clone();
            let delta = layers::Delta::LowRank { down, up, scale: self.scale };
            deltas.insert(pair.module.as_str(), delta);
        }
        Ok(deltas)
    }

    /// Which of `width` inputs are seen, and how much more they weigh for it.
    fn mask(&self, width: usize, words: &mut Mt) -> Vec<f32> {
        let kept = 1.0 - self.dropout;
        let mut seen = || f64::from(words.next_u32()) / 2f64.powi(32) < kept;
        (0..width).map(|_| if seen() { (1.0 / kept) as f32 } else { 0.0 }).collect()
    }

    /// `values`, in the order of `tensors`, as an adapter that can be drawn with.
    pub(crate) fn adapter(&self, values: &[Vec<f32>]) -> Result<Adapter> {
        let delta = |(pair, values): (&Pair, &[Vec<f32>])| {
            let tensor =
                |values: &[f32], like: &Var| Tensor::from_slice(values, like.shape(), &Device::Cpu);
            let down = tensor(&values[0], &pair.down)?;
            let up = tensor(&values[1], &pair.up)?;
            let delta = Delta::LowRank { down, up, scale: self.scale as f32 };
            Ok((pair.module.clone(), delta))
        };
        let deltas = self.pairs.iter().zip(values.chunks_exact(2)).map(delta);
        Ok(Adapter {
            name: "the adapter in training".into(),
            deltas: deltas.collect::<Result<_>>()?,
        })
    }
}

//! LoRA and LoKr files: every naming in use, reduced to the transformer's modules.

mod write;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde_json::Value;

pub use write::Naming;

use crate::blob::Blob;
use crate::convert::Rows;
use crate::file::{Entry, WeightFile};
use crate::{Error, Result};

/// One adapter file: what it changes, by the transformer's module names.
pub struct Adapter {
    /// The file, for messages.
    pub name: String,
    /// By module, as `layers.0.attention.to_q`.
    pub deltas: BTreeMap<String, Delta>,
}

/// The change of one linear layer's weight, `[out, in]`, at scale 1. Tensors are float32.
pub enum Delta {
    /// `scale · up · down`
    LowRank {
        /// `[rank, in]`
        down: Tensor,
        /// `[out, rank]`
        up: Tensor,
        /// alpha / rank; 1 for files without alpha.
        scale: f32,
    },
    /// `scale · left ⊗ right`
    Kronecker {
        /// `[a, b]`
        left: Tensor,
        /// `[c, d]`, with `a · c = out` and `b · d = in`
        right: Tensor,
        /// alpha / rank where a factor is itself of low rank, else 1.
        scale: f32,
    },
    /// `scale · delta`
    Dense {
        /// `[out, in]`
        delta: Tensor,
        /// 1, or as above.
        scale: f32,
    },
}

/// A module's tensors in the file, by role.
type Parts = BTreeMap<Part, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Down,
    Up,
    Alpha,
    Diff,
    W1,
    W1a,
    W1b,
    W2,
    W2a,
    W2b,
}

/// How keys end, in all spellings.
const ENDINGS: &[(&str, Part)] = &[
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_A.default.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".alpha", Part::Alpha),
    (".diff", Part::Diff),
    (".lokr_w1", Part::W1),
    (".lokr_w1_a", Part::W1a),
    (".lokr_w1_b", Part::W1b),
    (".lokr_w2", Part::W2),
    (".lokr_w2_a", Part::W2a),
    (".lokr_w2_b", Part::W2b),
];

/// Kinds of adapters that are recognised to be refused by name.
const REFUSED: &[(&str, &str)] = &[
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("hada_w", "LoHa"),
    ("oft_", "OFT"),
    ("lokr_t2", "LoKr with a Tucker core"),
    ("lora_mid", "LoCon with a core"),
];

const PREFIXES: &[&str] = &[
    "base_model.model.",
    "transformer.",
    "diffusion_model.",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
];

impl Adapter {
    /// Reads a file against `modules`, the transformer's linear layers with `[out, in]`. Whatever fits none of them is
    /// an error, and so are values that are not finite.
    pub fn read(blob: &Blob, modules: &BTreeMap<String, [usize; 2]>) -> Result<Self> {
        let file = WeightFile::open(blob)?;
        let reader =
            Reader { targets: targets(modules), modules, alphas: Alphas::of(&file), file: &file };
        let mut deltas = BTreeMap::new();
        for (module, parts) in reader.group()? {
            for (name, delta) in reader.deltas(&module, &parts)? {
                deltas.insert(name, delta);
            }
        }
        if deltas.is_empty() {
            return Err(Error::broken(&file.name, "holds no adapter: it changes no layer"));
        }
        Ok(Self { name: file.name.clone(), deltas })
    }
}

/// Which modules a file's name stands for, by the name with underscores for dots: that is kohya's spelling, and
/// makes all others alike. A fused name stands for three.
fn targets(modules: &BTreeMap<String, [usize; 2]>) -> BTreeMap<String, Vec<String>> {
    let mut targets = BTreeMap::new();
    let mut insert = |name: String, to: Vec<String>| targets.insert(name.replace('.', "_"), to);
    for module in modules.keys() {
        insert(module.clone(), vec![module.clone()]);
        if let Some(attention) = module.strip_suffix("to_out.0") {
            insert(format!("{attention}out"), vec![module.clone()]);
            insert(format!("{attention}to_out"), vec![module.clone()]);
        }
        if let Some(attention) = module.strip_suffix("to_q") {
            insert(
                format!("{attention}qkv"),
                ["to_q", "to_k", "to_v"].map(|p| format!("{attention}{p}")).to_vec(),
            );
        }
        for (published, comfy) in
            [("all_x_embedder.2-1", "x_embedder"), ("all_final_layer.2-1", "final_layer")]
        {
            if let Some(rest) = module.strip_prefix(published) {
                insert(format!("{comfy}{rest}"), vec![module.clone()]);
            }
        }
    }
    targets
}

struct Reader<'a> {
    file: &'a WeightFile,
    modules: &'a BTreeMap<String, [usize; 2]>,
    targets: BTreeMap<String, Vec<String>>,
    alphas: Alphas,
}

impl Reader<'_> {
    fn broken(&self, problem: String) -> Error {
        Error::broken(&self.file.name, problem)
    }

    /// The file's keys by module; an error when one fits nothing.
    fn group(&self) -> Result<BTreeMap<String, Parts>> {
        let mut groups: BTreeMap<String, Parts> = BTreeMap::new();
        let mut strangers = Vec::new();
        for key in self.file.entries.keys() {
            if let Some((_, kind)) = REFUSED.iter().find(|(mark, _)| key.contains(mark)) {
                return Err(self.broken(format!(
                    "is a {kind} adapter (`{key}`), which is not supported; LoRA and LoKr are"
                )));
            }
            let found =
                ENDINGS.iter().find_map(|(ending, part)| Some((key.strip_suffix(ending)?, *part)));
            match found.and_then(|(module, part)| Some((self.flat(module)?, part))) {
                Some((module, part)) => {
                    if groups.entry(module.clone()).or_default().insert(part, key.clone()).is_some()
                    {
                        return Err(
                            self.broken(format!("`{key}` is there twice, in two spellings"))
                        );
                    }
                }
                None => strangers.push(key),
            }
        }
        match strangers.first() {
            None => Ok(groups),
            Some(first) => {
                let (n, all) = (strangers.len(), self.file.entries.len());
                Err(self.broken(format!(
                    "{n} of {all} keys fit no layer of Z-Image, first `{first}`. The file was trained for another model."
                )))
            }
        }
    }

    /// The module's name as [`targets`] has it.
    fn flat(&self, module: &str) -> Option<String> {
        let mut name = module;
        while let Some(rest) = PREFIXES.iter().find_map(|p| name.strip_prefix(p)) {
            name = rest;
        }
        Some(name.replace('.', "_")).filter(|name| self.targets.contains_key(name))
    }

    /// The deltas of one group: one, or three for a fused module.
    fn deltas(&self, module: &str, parts: &Parts) -> Result<Vec<(String, Delta)>> {
        let names = &self.targets[module];
        let [out, width] =
            names.first().and_then(|n| self.modules.get(n)).copied().unwrap_or([0, 0]);
        let whole = [names.len() * out, width];
        let alpha = parts.get(&Part::Alpha).map(|key| self.number(key)).transpose()?;
        let delta = if let (Some(down), Some(up)) = (parts.get(&Part::Down), parts.get(&Part::Up)) {
            self.low_rank((down, up), whole, alpha.or_else(|| self.alphas.of_module(names)))?
        } else if let Some(diff) = parts.get(&Part::Diff) {
            Delta::Dense { delta: self.matrix(diff, [Some(whole[0]), Some(width)])?, scale: 1.0 }
        } else if parts.keys().any(|p| *p >= Part::W1) {
            self.kronecker(module, parts, whole, alpha)?
        } else {
            let key = parts.values().next().map_or(module, |k| k);
            return Err(
                self.broken(format!("`{key}` lacks its other half: the file is incomplete"))
            );
        };
        names
            .iter()
            .enumerate()
            .map(|(i, name)| Ok((name.clone(), split(&delta, i, names.len(), out)?)))
            .collect()
    }

    fn low_rank(
        &self,
        (down, up): (&str, &str),
        [out, width]: [usize; 2],
        alpha: Option<f32>,
    ) -> Result<Delta> {
        let down = self.matrix(down, [None, Some(width)])?;
        let rank = down.dim(0)?;
        let up = self.matrix(up, [Some(out), Some(rank)])?;
        let divisor = if self.alphas.rank_stabilised { (rank as f32).sqrt() } else { rank as f32 };
        Ok(Delta::LowRank { down, up, scale: alpha.map_or(1.0, |alpha| alpha / divisor) })
    }

    fn kronecker(
        &self,
        module: &str,
        parts: &Parts,
        whole: [usize; 2],
        alpha: Option<f32>,
    ) -> Result<Delta> {
        let mut rank = None;
        let mut factor = |all, a, b| -> Result<Tensor> {
            match (parts.get(&all), parts.get(&a), parts.get(&b)) {
                (Some(key), None, None) => self.matrix(key, [None, None]),
                (None, Some(a), Some(b)) => {
                    let a = self.matrix(a, [None, None])?;
                    rank = Some(a.dim(1)?);
                    Ok(a.matmul(&self.matrix(b, [Some(a.dim(1)?), None])?)?)
                }
                _ => Err(self.broken(format!(
                    "`{module}` lacks a factor of its LoKr: the file is incomplete"
                ))),
            }
        };
        let (left, right) =
            (factor(Part::W1, Part::W1a, Part::W1b)?, factor(Part::W2, Part::W2a, Part::W2b)?);
        let ((a, b), (c, d)) = (left.dims2()?, right.dims2()?);
        if [a.saturating_mul(c), b.saturating_mul(d)] != whole {
            return Err(self.broken(format!(
                "`{module}` is [{a}, {b}] ⊗ [{c}, {d}], but the layer is {whole:?}"
            )));
        }
        // Whole factors carry their own size; alpha then means nothing.
        let scale = rank.and_then(|rank| Some(alpha? / rank as f32)).unwrap_or(1.0);
        Ok(Delta::Kronecker { left, right, scale })
    }

    fn number(&self, key: &str) -> Result<f32> {
        let values = self.values(key)?;
        match values.as_slice() {
            [value] => Ok(*value),
            _ => {
                Err(self
                    .broken(format!("`{key}` has {} values; an alpha is one number", values.len())))
            }
        }
    }

    /// A matrix whose known sides are `wanted`; 1 × 1 convolutions count as matrices.
    fn matrix(&self, key: &str, wanted: [Option<usize>; 2]) -> Result<Tensor> {
        let mut shape = self.entry(key).shape.clone();
        while shape.len() > 2 && shape.last() == Some(&1) {
            shape.pop();
        }
        let fits = shape.len() == 2
            && shape.iter().all(|n| *n > 0)
            && shape.iter().zip(wanted).all(|(found, wanted)| wanted.is_none_or(|w| w == *found));
        if !fits {
            let side = |w: Option<usize>| w.map_or("any".into(), |w| w.to_string());
            let wanted = format!("[{}, {}]", side(wanted[0]), side(wanted[1]));
            let found = &self.entry(key).shape;
            return Err(self.broken(format!(
                "`{key}` is {found:?}, but the layer wants {wanted}. The file was trained for another model."
            )));
        }
        Ok(Tensor::from_vec(self.values(key)?, shape, &Device::Cpu)?)
    }

    fn values(&self, key: &str) -> Result<Vec<f32>> {
        let entry = self.entry(key);
        let bytes = &self.file.bytes.all()[entry.start..entry.end];
        let rows =
            Rows { kind: entry.kind, bytes, shape: [1, entry.shape.iter().product()], scale: 1.0 };
        let not_finite = || Error::NotFinite { file: self.file.name.clone(), tensor: key.into() };
        rows.to_f32()?.ok_or_else(not_finite)
    }

    fn entry(&self, key: &str) -> &Entry {
        &self.file.entries[key]
    }
}

/// Part `i` of `of` of a delta's rows, `out` rows each.
fn split(delta: &Delta, i: usize, of: usize, out: usize) -> Result<Delta> {
    let rows = |t: &Tensor, count: usize| t.narrow(0, i * count, count)?.contiguous();
    Ok(match delta {
        Delta::LowRank { down, up, scale } => {
            Delta::LowRank { down: down.clone(), up: rows(up, out)?, scale: *scale }
        }
        Delta::Dense { delta, scale } => Delta::Dense { delta: rows(delta, out)?, scale: *scale },
        Delta::Kronecker { left, right, scale } if left.dim(0)? % of == 0 => Delta::Kronecker {
            left: rows(left, left.dim(0)? / of)?,
            right: right.clone(),
            scale: *scale,
        },
        // The cut runs through a block of the product, which must be written out.
        Delta::Kronecker { left, right, scale } => {
            let ((a, b), (c, d)) = (left.dims2()?, right.dims2()?);
            let left = left.reshape((a, 1, b, 1))?;
            let whole =
                left.broadcast_mul(&right.reshape((1, c, 1, d))?)?.reshape((a * c, b * d))?;
            Delta::Dense { delta: rows(&whole, out)?, scale: *scale }
        }
    })
}

/// Alphas that PEFT writes into the file's metadata instead of tensors.
struct Alphas {
    default: Option<f32>,
    by_module: BTreeMap<String, f32>,
    rank_stabilised: bool,
}

impl Alphas {
    fn of(file: &WeightFile) -> Self {
        let text = file.metadata.get("lora_adapter_metadata").map_or("", String::as_str);
        let json: Value = serde_json::from_str(text).unwrap_or_default();
        let field = |name: &str| json.get(format!("transformer.{name}")).or_else(|| json.get(name));
        let pattern = field("alpha_pattern").and_then(Value::as_object).into_iter().flatten();
        Self {
            default: field("lora_alpha").and_then(Value::as_f64).map(|a| a as f32),
            by_module: pattern
                .filter_map(|(name, a)| Some((name.clone(), a.as_f64()? as f32)))
                .collect(),
            rank_stabilised: field("use_rslora").and_then(Value::as_bool).unwrap_or(false),
        }
    }

    fn of_module(&self, names: &[String]) -> Option<f32> {
        names.first().and_then(|name| self.by_module.get(name)).copied().or(self.default)
    }
}

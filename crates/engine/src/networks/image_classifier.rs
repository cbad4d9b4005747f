//! A picture's labels: ViT with a linear classifier on its class token (transformers' `ViTForImageClassification`).

use candle_core::Tensor;

use super::vision::{Layer, Sizes, VIT, patches};
use crate::layers::{LayerNorm, Linear, Parameters};
use crate::{Result, Watch};

/// ViT, and the classifier of its class token.
pub struct ImageClassifier {
    cls_token: Tensor,           // [1, 1, hidden]
    position_embeddings: Tensor, // [1, 1 + patches, hidden]
    patch_embeddings: Linear,
    layer: Vec<Layer>,
    layernorm: LayerNorm,
    classifier: Linear,
    sizes: Sizes,
}

impl ImageClassifier {
    /// The network in `parameters`, which tells `labels` apart.
    pub fn load(parameters: &Parameters, sizes: &Sizes, labels: usize) -> Result<Self> {
        let vit = parameters.at("vit");
        let embeddings = vit.at("embeddings");
        let layer = |i| Layer::load(&vit.at("encoder.layer").at(i), sizes, &VIT);
        let network = Self {
            cls_token: embeddings.tensor("cls_token", &[1, 1, sizes.hidden])?,
            position_embeddings: embeddings
                .tensor("position_embeddings", &[1, 1 + sizes.patches(), sizes.hidden])?,
            patch_embeddings: Linear::load_patches(
                &embeddings.at("patch_embeddings.projection"),
                [sizes.hidden, 3, sizes.patch],
                true,
            )?,
            layer: (0..sizes.layers).map(layer).collect::<Result<_>>()?,
            layernorm: LayerNorm::load(&vit.at("layernorm"), sizes.hidden, sizes.eps)?,
            classifier: Linear::load_precise(&parameters.at("classifier"), labels, sizes.hidden)?,
            sizes: *sizes,
        };
        parameters.weights().ignore("vit.pooler."); // a classifier has no use for it
        parameters.weights().finish()?;
        Ok(network)
    }

    /// What `pixels`, `[batch, 3, image, image]` as the processor makes them, show: logits `[batch, labels]`.
    pub fn forward(&self, pixels: &Tensor, watch: &dyn Watch) -> Result<Tensor> {
        let batch = pixels.dim(0)?;
        let patches = self.patch_embeddings.forward(&patches(pixels, self.sizes.patch)?)?;
        let class = self.cls_token.expand((batch, 1, self.sizes.hidden))?;
        let x = Tensor::cat(&[&class, &patches], 1)?; // [batch, 1 + patches, hidden]
        let mut x = x.broadcast_add(&self.position_embeddings)?;
        watch.stage(&"embeddings", &x)?;
        for (i, layer) in self.layer.iter().enumerate() {
            x = layer.forward(&x)?;
            watch.stage(&format_args!("layer.{i}"), &x)?;
        }
        // The norm is of each token by itself, and only the first is looked at.
        let class = self.layernorm.forward(&x.narrow(1, 0, 1)?)?.squeeze(1)?;
        self.classifier.forward(&class)
    }
}

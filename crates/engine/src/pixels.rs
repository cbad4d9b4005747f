//! Between bytes and tensors.

use candle_core::{Device, Tensor};
use zoetrope_api::ImageSize;

use crate::Result;

/// An RGB picture, 8 bit, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `3 · width · height` bytes.
    pub bytes: Vec<u8>,
}

/// A picture as the autoencoder takes it: `[1, 3, height, width]` in −1..1.
pub fn to_tensor(picture: &Rgb, device: &Device) -> Result<Tensor> {
    let Rgb { width, height, bytes } = picture;
    let values: Vec<f32> = bytes.iter().map(|b| f32::from(*b) / 255.0 * 2.0 - 1.0).collect();
    let x = Tensor::from_vec(values, (1, *height, *width, 3), device)?;
    Ok(x.permute((0, 3, 1, 2))?.contiguous()?)
}

/// A control picture's mask beside it, `[1, 1, height / 8, width / 8]`: 1 where the picture is kept.
pub fn kept_latent(mask: &[u8], size: ImageSize, device: &Device) -> Result<Tensor> {
    Ok(mask_to_latent(mask, size, device)?.affine(-1.0, 1.0)?)
}

/// `picture` with grey, 0, where `mask` is painted: what is around a gap, `[1, 3, height, width]`.
pub fn around(picture: &Rgb, mask: &[u8], device: &Device) -> Result<Tensor> {
    let kept: Vec<f32> =
        mask.iter().map(|byte| if is_painted(*byte) { 0.0 } else { 1.0 }).collect();
    let kept = Tensor::from_vec(kept, (1, 1, picture.height, picture.width), device)?;
    Ok(to_tensor(picture, device)?.broadcast_mul(&kept)?)
}

/// Whether a mask's byte says that its pixel is painted.
fn is_painted(byte: u8) -> bool {
    f32::from(byte) / 255.0 >= 0.5
}

/// `image`: `[batch, 3, height, width]` in about −1..1. Rounds half to even, as the reference does.
pub fn to_pictures(image: &Tensor) -> Result<Vec<Rgb>> {
    let (batch, _, height, width) = image.dims4()?;
    let picture = |i: usize| {
        let values = image.get(i)?.permute((1, 2, 0))?.flatten_all()?.to_vec1::<f32>()?;
        let bytes = values
            .iter()
            .map(|v| ((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8);
        Ok(Rgb { width, height, bytes: bytes.collect() })
    };
    (0..batch).map(picture).collect()
}

/// A mask in the picture's size, one byte a pixel, to the latents' size, `[1, 1, height / 8, width / 8]`: split at
/// one half, and taken at the top left pixel of each 8 × 8.
pub fn mask_to_latent(mask: &[u8], size: ImageSize, device: &Device) -> Result<Tensor> {
    let (height, width) = size.latent();
    let at = |row: usize, column: usize| mask[row * 8 * size.width() as usize + column * 8];
    let values: Vec<f32> = (0..height)
        .flat_map(|row| (0..width).map(move |column| (row, column)))
        .map(|(row, column)| if is_painted(at(row, column)) { 1.0 } else { 0.0 })
        .collect();
    Ok(Tensor::from_vec(values, (1, 1, height, width), device)?)
}

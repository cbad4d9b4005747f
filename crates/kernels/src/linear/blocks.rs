//! GGML's blocks of four to six bits into panels, bit for bit: only the order of words changes.

use candle_core::quantized::GgmlDType;

use crate::product::WIDE;
use crate::product::blocks::Blocks;

/// The format of panels for a format of files; `None` for those that are not multiplied as they are.
pub(super) fn known(kind: GgmlDType) -> Option<Blocks> {
    match kind {
        GgmlDType::Q4_0 => Some(Blocks::Q4_0),
        GgmlDType::Q4K => Some(Blocks::Q4K),
        GgmlDType::Q5K => Some(Blocks::Q5K),
        GgmlDType::Q6K => Some(Blocks::Q6K),
        _ => None,
    }
}

/// Puts a row of blocks into its column of a panel, all of whose units are zero before.
pub(super) fn pack_row(format: Blocks, row: &[u8], column: usize, panel: &mut [u32]) {
    let layout = format.layout();
    let blocks = row.chunks_exact(layout.bytes);
    for (block, to) in blocks.zip(panel.chunks_exact_mut(layout.units())) {
        let (floats, words) = to.split_at_mut(layout.floats.len() * WIDE / 2);
        for (at, to) in layout.floats.iter().zip(floats.chunks_exact_mut(WIDE / 2)) {
            let bits = u16::from_le_bytes([block[*at], block[at + 1]]);
            to[column / 2] |= u32::from(bits) << (16 * (column % 2));
        }
        let from = block[layout.words..].chunks_exact(4);
        for (from, to) in from.zip(words.chunks_exact_mut(WIDE)) {
            to[column] = u32::from_le_bytes([from[0], from[1], from[2], from[3]]);
        }
    }
}

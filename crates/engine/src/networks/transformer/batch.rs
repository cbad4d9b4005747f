//! What goes through the network together, and where its tokens stand.

use candle_core::{Device, Tensor};

use super::block::{Sequence, Span, join};
use super::control::Guide;
use super::{SEQ_MULTI_OF, split};
use crate::Result;
use crate::layers::RopeTable;

/// A caption as the main layers take it, and with it the pictures that it speaks of. It does not depend on the time, so it is
/// made once a picture.
#[derive(Clone)]
pub struct Caption {
    /// Tokens ahead of the pictures': the caption's, in networks with a vision branch.
    pub(super) before: Option<Part>,
    /// Tokens behind them: the caption's, and in networks with a vision branch what its tower saw.
    pub(super) after: Option<Part>,
    /// Pictures without noise that stand ahead of the one that is drawn.
    pub(super) references: Vec<Patches>,
    /// Where the picture that is drawn stands on the first axis.
    pub(super) place: usize,
}

/// Tokens that do not depend on the time.
#[derive(Clone)]
pub(super) struct Part {
    /// `[tokens, dim]`
    pub(super) tokens: Tensor,
    pub(super) positions: Vec<[usize; 3]>,
    /// So many of them, the first ones, belong to pictures without noise.
    pub(super) clean: usize,
}

/// A picture's patches.
#[derive(Clone)]
pub(super) struct Patches {
    /// Embedded and padded, `[tokens, dim]`.
    pub(super) tokens: Tensor,
    /// Rows and columns.
    pub(super) grid: (usize, usize),
    /// On the first axis.
    pub(super) place: usize,
}

impl Part {
    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    fn spans(&self) -> [Span; 2] {
        [Span::clean(self.clean), Span::noisy(self.len() - self.clean)]
    }
}

impl Caption {
    /// Tokens beside those of the picture that is drawn, with padding.
    pub fn padded_tokens(&self) -> usize {
        let parts = self.before.iter().chain(&self.after);
        parts.map(Part::len).sum::<usize>() + self.reference_tokens()
    }

    fn reference_tokens(&self) -> usize {
        self.references.iter().map(|r| padded(r.grid)).sum()
    }
}

/// Pictures that go through the network together, and all of them that does not depend on the time.
///
/// Their tokens stand one after another as the rows of one matrix, so that every weight is read once for all of them
/// and nothing is filled up for another's sake: the two branches of guidance differ in the lengths of their captions.
pub struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) images: Sequence,
    pub(super) whole: Sequence,
    /// What a control network adds, and when.
    pub(super) guide: Option<Guide>,
}

pub(super) struct Item {
    pub(super) caption: Caption,
    /// Rows and columns of patches of the picture that is drawn.
    pub(super) grid: (usize, usize),
}

impl Item {
    /// Tokens of the picture that is drawn.
    pub(super) fn tokens(&self) -> usize {
        self.grid.0 * self.grid.1
    }

    /// Where these stand among all of the item's tokens.
    pub(super) fn start(&self) -> usize {
        self.caption.before.as_ref().map_or(0, Part::len) + self.caption.reference_tokens()
    }

    fn image_positions(&self) -> Vec<[usize; 3]> {
        let references = self.caption.references.iter().map(|r| (r.grid, r.place));
        let all = references.chain([(self.grid, self.caption.place)]);
        all.flat_map(|((rows, columns), place)| image_positions(rows, columns, place)).collect()
    }

    fn image_spans(&self) -> [Span; 2] {
        [Span::clean(self.caption.reference_tokens()), Span::noisy(padded(self.grid))]
    }

    fn positions(&self) -> Vec<[usize; 3]> {
        let of = |part: &Option<Part>| part.as_ref().map_or(Vec::new(), |p| p.positions.clone());
        [of(&self.caption.before), self.image_positions(), of(&self.caption.after)].concat()
    }

    fn spans(&self) -> Vec<Span> {
        let of = |part: &Option<Part>| part.as_ref().map_or(Vec::new(), |p| p.spans().to_vec());
        [of(&self.caption.before), self.image_spans().to_vec(), of(&self.caption.after)].concat()
    }
}

impl Batch {
    /// Pictures of `(height, width)` of latents, each with its caption.
    pub(super) fn new<'a>(
        pictures: impl IntoIterator<Item = (&'a Caption, (usize, usize))>,
        rope: &RopeTable,
        device: &Device,
    ) -> Result<Self> {
        let item = |(caption, (height, width)): (&Caption, _)| Item {
            caption: caption.clone(),
            grid: (height / 2, width / 2),
        };
        let items: Vec<_> = pictures.into_iter().map(item).collect();
        let sequence = |positions: Vec<Vec<[usize; 3]>>, spans: Vec<Span>| {
            let lengths = positions.iter().map(Vec::len).collect();
            let angles = rope.angles(&positions.concat(), device)?;
            Ok::<_, crate::Error>(Sequence::new(angles, lengths, &spans))
        };
        let images = sequence(
            items.iter().map(Item::image_positions).collect(),
            items.iter().flat_map(Item::image_spans).collect(),
        )?;
        let whole = sequence(
            items.iter().map(Item::positions).collect(),
            items.iter().flat_map(Item::spans).collect(),
        )?;
        Ok(Self { items, images, whole, guide: None })
    }

    /// What enters the main layers, `[1, tokens, dim]`, from the pictures' tokens: of each item what stands before, the pictures, and
    /// what stands behind.
    pub(super) fn unified(&self, images: &Tensor) -> Result<Tensor> {
        let images = split(&images.squeeze(0)?, self.images.lengths.iter().copied())?;
        let mut parts = Vec::with_capacity(3 * images.len());
        for (Item { caption, .. }, images) in self.items.iter().zip(images) {
            parts.extend(caption.before.as_ref().map(|part| part.tokens.clone()));
            parts.push(images);
            parts.extend(caption.after.as_ref().map(|part| part.tokens.clone()));
        }
        join(&parts)
    }

    /// How many pictures it holds.
    pub fn pictures(&self) -> usize {
        self.items.len()
    }

    /// Whether some of its tokens belong to pictures without noise.
    pub(super) fn has_references(&self) -> bool {
        self.items.iter().any(|item| !item.caption.references.is_empty())
    }
}

/// Tokens of a picture of `(rows, columns)` patches with its padding.
pub(super) fn padded((rows, columns): (usize, usize)) -> usize {
    (rows * columns).next_multiple_of(SEQ_MULTI_OF)
}

/// Caption tokens, padding included, stand at (1, 0, 0), (2, 0, 0), …
pub fn caption_positions(padded: usize) -> Vec<[usize; 3]> {
    (0..padded).map(|i| [1 + i, 0, 0]).collect()
}

/// A picture's tokens stand at (place, row, column); their padding at (0, 0, 0).
pub fn image_positions(rows: usize, columns: usize, place: usize) -> Vec<[usize; 3]> {
    let grid = (0..rows).flat_map(|row| (0..columns).map(move |column| [place, row, column]));
    grid.chain(std::iter::repeat([0; 3])).take(padded((rows, columns))).collect()
}

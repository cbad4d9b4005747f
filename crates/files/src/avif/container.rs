//! What an AVIF file holds: where its pictures' AV1 data is, and how they are put together, turned and coloured
//! (ISO/IEC 14496-12 and 23008-12; AV1 Image File Format).

use crate::glance::{Part, be16, be32, boxes};

/// Primaries, transfer and matrix by their numbers, and whether values take their full range.
pub(super) type Nclx = ([u16; 3], bool);

/// An AVIF file's picture.
#[derive(Debug)]
pub(super) struct Container {
    /// Pixels across and down, before it is turned.
    pub(super) size: (u32, u32),
    pub(super) colour: Layer,
    /// How opaque it is; fully where there is none.
    pub(super) alpha: Option<Layer>,
    /// Whether colours were multiplied by the opacity.
    pub(super) premultiplied: bool,
    /// Quarter turns against the clock, before it is mirrored.
    pub(super) turns: u8,
    pub(super) mirror: Option<Mirror>,
    pub(super) icc: Option<Vec<u8>>,
    /// Primaries, transfer and matrix by their numbers in H.273, and whether all levels are used.
    pub(super) nclx: Option<Nclx>,
}

/// What is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mirror {
    TopAndBottom,
    LeftAndRight,
}

/// AV1 data: of one picture, or of the cells of a grid, row by row.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) cells: Vec<Vec<u8>>,
    pub(super) columns: usize,
}

/// Cells of a grid: far more than any encoder makes.
const CELLS_MAX: usize = 1024;

/// What of a file's description is of use.
#[derive(Default)]
struct Description<'a> {
    primary: u32,
    kinds: Vec<(u32, [u8; 4])>,
    places: Vec<Place>,
    /// Kind, from which item, to which.
    references: Vec<([u8; 4], u32, Vec<u32>)>,
    properties: Vec<Property<'a>>,
    /// Items, and which of the properties are theirs; properties count from 1.
    owners: Vec<(u32, Vec<usize>)>,
    /// Data that stands in the description itself.
    inline: &'a [u8],
}

struct Place {
    item: u32,
    inline: bool,
    /// Offsets and lengths.
    extents: Vec<(usize, usize)>,
}

#[derive(Clone, Copy)]
struct Property<'a> {
    kind: [u8; 4],
    bytes: &'a [u8],
}

/// Reads what `file` says; `None` where it is damaged, or says what no still picture does.
pub(super) fn parse(file: &[u8]) -> Option<Container> {
    let meta = child(file, b"meta")?;
    let description = describe(meta.get(4..)?)?;
    let primary = description.primary;
    let (colour, size) = description.layer(file, primary)?;
    let auxiliary = |item: u32| {
        let of = |(kind, from, to): &([u8; 4], u32, Vec<u32>)| {
            kind == b"auxl" && *from == item && to.contains(&primary)
        };
        let is_alpha = description
            .property(item, b"auxC")
            .is_some_and(|bytes| contains(bytes, b"auxiliary:alpha"));
        is_alpha && description.references.iter().any(of)
    };
    let alpha = description.kinds.iter().map(|(item, _)| *item).find(|item| auxiliary(*item));
    let premultiplied = alpha.is_some_and(|alpha| {
        let of = |(kind, from, to): &([u8; 4], u32, Vec<u32>)| {
            kind == b"prem" && *from == primary && to.contains(&alpha)
        };
        description.references.iter().any(of)
    });
    let alpha = match alpha {
        None => None,
        Some(item) => Some(description.layer(file, item)?.0),
    };
    let (icc, nclx) = description.colours(primary);
    let mirror = description.property(primary, b"imir").and_then(|bytes| bytes.first());
    Some(Container {
        size,
        colour,
        alpha,
        premultiplied,
        turns: description.property(primary, b"irot").and_then(|b| b.first()).map_or(0, |b| b & 3),
        mirror: mirror
            .map(|b| if b & 1 == 0 { Mirror::TopAndBottom } else { Mirror::LeftAndRight }),
        icc,
        nclx,
    })
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|found| found == text)
}

fn content<'a>(bytes: &'a [u8], part: &Part) -> Option<&'a [u8]> {
    bytes.get(part.start..part.end)
}

fn child<'a>(bytes: &'a [u8], kind: &[u8]) -> Option<&'a [u8]> {
    let part = boxes(bytes).find(|part| part.kind == kind)?;
    content(bytes, &part)
}

fn describe(meta: &[u8]) -> Option<Description<'_>> {
    let mut found = Description::default();
    for part in boxes(meta) {
        let bytes = content(meta, &part)?;
        match part.kind {
            b"pitm" => found.primary = Reader::full(bytes)?.number_of(0, 2, 4)?,
            b"iinf" => found.kinds = kinds(bytes)?,
            b"iloc" => found.places = places(bytes)?,
            b"iref" => found.references = references(bytes)?,
            b"idat" => found.inline = bytes,
            b"iprp" => {
                let all = child(bytes, b"ipco")?;
                for property in boxes(all) {
                    let kind = property.kind.try_into().ok()?;
                    found.properties.push(Property { kind, bytes: content(all, &property)? });
                }
                for part in boxes(bytes).filter(|part| part.kind == b"ipma") {
                    found.owners.extend(owners(content(bytes, &part)?)?);
                }
            }
            _ => {}
        }
    }
    Some(found)
}

impl Description<'_> {
    /// The first property of `kind` that `item` has.
    fn property(&self, item: u32, kind: &[u8; 4]) -> Option<&[u8]> {
        self.properties_of(item).find(|property| property.kind == *kind).map(|p| p.bytes)
    }

    fn properties_of(&self, item: u32) -> impl Iterator<Item = &Property<'_>> {
        let own = self.owners.iter().filter(move |(owner, _)| *owner == item);
        own.flat_map(|(_, numbers)| numbers).filter_map(|n| self.properties.get(n.checked_sub(1)?))
    }

    fn colours(&self, item: u32) -> (Option<Vec<u8>>, Option<Nclx>) {
        let (mut icc, mut nclx) = (None, None);
        for property in self.properties_of(item).filter(|property| property.kind == *b"colr") {
            let bytes = property.bytes;
            match bytes.get(..4) {
                Some(b"prof" | b"rICC") => icc = Some(bytes[4..].to_vec()),
                Some(b"nclx") => {
                    let number = |at| be16(bytes, at).map(|n| n as u16);
                    if let (Some(a), Some(b), Some(c), Some(range)) =
                        (number(4), number(6), number(8), bytes.get(10))
                    {
                        nclx = Some(([a, b, c], range & 0x80 != 0));
                    }
                }
                _ => {}
            }
        }
        (icc, nclx)
    }

    /// An item's AV1 data and its size.
    fn layer(&self, file: &[u8], item: u32) -> Option<(Layer, (u32, u32))> {
        let kind = self.kinds.iter().find(|(id, _)| *id == item)?.1;
        let extent = self.property(item, b"ispe")?;
        let size = (be32(extent, 4)?, be32(extent, 8)?);
        match &kind {
            b"av01" => Some((Layer { cells: vec![self.data(file, item)?], columns: 1 }, size)),
            b"grid" => {
                let grid = self.data(file, item)?;
                let (rows, columns) =
                    (usize::from(*grid.get(2)?) + 1, usize::from(*grid.get(3)?) + 1);
                let cells = self
                    .references
                    .iter()
                    .find(|(kind, from, _)| kind == b"dimg" && *from == item)?;
                if cells.2.len() != rows * columns || rows * columns > CELLS_MAX {
                    return None;
                }
                let cells = cells.2.iter().map(|cell| self.data(file, *cell));
                Some((Layer { cells: cells.collect::<Option<_>>()?, columns }, size))
            }
            _ => None,
        }
    }

    fn data(&self, file: &[u8], item: u32) -> Option<Vec<u8>> {
        let place = self.places.iter().find(|place| place.item == item)?;
        let from = if place.inline { self.inline } else { file };
        let mut data = Vec::new();
        for (offset, length) in &place.extents {
            let rest = from.get(*offset..)?;
            // Nothing is everything.
            data.extend_from_slice(if *length == 0 { rest } else { rest.get(..*length)? });
            if data.len() > file.len() {
                return None; // extents over one another
            }
        }
        Some(data)
    }
}

/// Numbers in their order.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    version: u8,
    flags: u32,
}

impl<'a> Reader<'a> {
    /// After the version and flags that many boxes begin with.
    fn full(bytes: &'a [u8]) -> Option<Self> {
        let head = be32(bytes, 0)?;
        Some(Self { bytes, at: 4, version: (head >> 24) as u8, flags: head & 0xff_ffff })
    }

    /// A number of so many bytes, at most 8.
    fn number(&mut self, bytes: usize) -> Option<u64> {
        let found = self.bytes.get(self.at..self.at + bytes)?;
        self.at += bytes;
        Some(found.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A number of `few` bytes up to version `last`, of `many` in later ones.
    fn number_of(&mut self, last: u8, few: usize, many: usize) -> Option<u32> {
        let bytes = if self.version <= last { few } else { many };
        u32::try_from(self.number(bytes)?).ok()
    }
}

fn kinds(bytes: &[u8]) -> Option<Vec<(u32, [u8; 4])>> {
    let mut reader = Reader::full(bytes)?;
    reader.number_of(0, 2, 4)?; // how many
    let inside = bytes.get(reader.at..)?;
    let mut kinds = Vec::new();
    for part in boxes(inside).filter(|part| part.kind == b"infe") {
        let mut entry = Reader::full(content(inside, &part)?)?;
        let item = entry.number_of(2, 2, 4)?;
        entry.number(2)?; // protection
        kinds.push((item, entry.bytes.get(entry.at..entry.at + 4)?.try_into().ok()?));
    }
    Some(kinds)
}

fn places(bytes: &[u8]) -> Option<Vec<Place>> {
    let mut reader = Reader::full(bytes)?;
    let sizes = reader.number(2)?;
    let size = |shift: u32| (sizes >> shift & 15) as usize;
    let (offset, length, base, index) = (size(12), size(8), size(4), size(0));
    if [offset, length, base, index].iter().any(|size| *size > 8) {
        return None;
    }
    let later = reader.version == 1 || reader.version == 2;
    let count = reader.number_of(1, 2, 4)?;
    let mut places = Vec::new();
    for _ in 0..count {
        let item = reader.number_of(1, 2, 4)?;
        let method = if later { reader.number(2)? & 15 } else { 0 };
        reader.number(2)?; // which file
        let base = reader.number(base)?;
        let mut extents = Vec::new();
        for _ in 0..reader.number(2)? {
            if later {
                reader.number(index)?;
            }
            let offset = base.checked_add(reader.number(offset)?)?;
            let length = reader.number(length)?;
            extents.push((usize::try_from(offset).ok()?, usize::try_from(length).ok()?));
        }
        places.push(Place { item, inline: method == 1, extents });
    }
    Some(places)
}

/// A kind of reference, the item that it is from, and those that it is to.
type References = Vec<([u8; 4], u32, Vec<u32>)>;

fn references(bytes: &[u8]) -> Option<References> {
    let outer = Reader::full(bytes)?;
    let inside = bytes.get(outer.at..)?;
    let mut references = Vec::new();
    for part in boxes(inside) {
        let kind = part.kind.try_into().ok()?;
        let bytes = content(inside, &part)?;
        let mut reader = Reader { bytes, at: 0, version: outer.version, flags: 0 };
        let from = reader.number_of(0, 2, 4)?;
        let count = reader.number(2)?;
        let to = (0..count).map(|_| reader.number_of(0, 2, 4)).collect::<Option<_>>()?;
        references.push((kind, from, to));
    }
    Some(references)
}

fn owners(bytes: &[u8]) -> Option<Vec<(u32, Vec<usize>)>> {
    let mut reader = Reader::full(bytes)?;
    let wide = reader.flags & 1 != 0;
    let count = reader.number(4)?;
    let mut owners = Vec::new();
    for _ in 0..count {
        let item = reader.number_of(0, 2, 4)?;
        let properties = reader.number(1)?;
        // The first bit says whether it is essential.
        let property = |reader: &mut Reader| match wide {
            true => Some(reader.number(2)? as usize & 0x7fff),
            false => Some(reader.number(1)? as usize & 0x7f),
        };
        owners.push((item, (0..properties).map(|_| property(&mut reader)).collect::<Option<_>>()?));
    }
    Some(owners)
}

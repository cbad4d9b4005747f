//! What a deployment asks for its work.

use std::fmt;

use serde::Deserialize;
use zoetrope_api::Micros;

/// A price list. All amounts are added up and rounded once each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// What is counted.
    pub unit: Unit,
    /// For one unit.
    pub amount: Micros,
    /// What certain parameters cost besides.
    pub surcharges: Vec<Surcharge>,
}

/// What is counted, of successful calls only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Pictures.
    Image,
    /// A million pixels, exactly as many as were made; what the provider rounds, its bill says.
    Megapixel,
    /// Calls.
    Request,
    /// Seconds of the provider's work; an estimate takes what was measured.
    Second,
}

/// What a flag costs where it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surcharge {
    /// The flag's canonical name, as `enable_prompt_expansion`.
    pub parameter: String,
    /// What is counted.
    pub unit: Unit,
    /// For one unit.
    pub amount: Micros,
}

/// A line of an estimate or a bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Whether it is about what goes in or what comes out.
    pub kind: ComponentKind,
    /// What is counted.
    pub unit: Unit,
    /// Millionths of units: pixels, where those are megapixels.
    pub quantity_millionths: u64,
    /// For one unit.
    pub unit_price: Micros,
    /// For all of them.
    pub total: Micros,
}

/// Which side of a call is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComponentKind {
    /// What is sent, and what is done to it first.
    Input,
    /// The pictures.
    Output,
}

/// What a provider says about its bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bill {
    /// Nothing: the estimate counts.
    #[default]
    Unsaid,
    /// Millionths of the price's units.
    Units(u64),
    /// The amount.
    Amount(Micros),
}

/// What a price list is applied to: what was made, or what would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage<'a> {
    /// Pictures.
    pub pictures: u32,
    /// Of all pictures together, as the provider makes them.
    pub pixels: u64,
    /// Calls.
    pub calls: u32,
    /// Millionths of seconds of the provider's work, where somebody knows.
    pub seconds_millionths: Option<u64>,
    /// Canonical names of the flags that reach the provider as true.
    pub flags: &'a [&'a str],
}

/// The lines that `price` comes to for `usage`; `None` where it counts what is not known.
pub fn estimate(price: &Price, usage: &Usage<'_>) -> Option<Vec<Component>> {
    let quantity = usage.of(price.unit)?;
    lines(price, quantity, usage)
}

/// What a successful call costs. What the provider says counts; where it says nothing, the price list does; `None` where
/// there is neither. A bill in units is of the list's own unit, without surcharges.
pub fn settle(price: Option<&Price>, usage: &Usage<'_>, bill: Bill) -> Option<Micros> {
    let list = match bill {
        Bill::Amount(amount) => return Some(amount),
        Bill::Units(quantity) => lines(price?, quantity, usage)?,
        Bill::Unsaid => estimate(price?, usage)?,
    };
    Some(total(&list))
}

/// The sum of `components`.
pub fn total(components: &[Component]) -> Micros {
    components.iter().map(|component| component.total).sum()
}

fn lines(price: &Price, quantity: u64, usage: &Usage<'_>) -> Option<Vec<Component>> {
    let mut lines = vec![Component::of(ComponentKind::Output, price.unit, quantity, price.amount)];
    let due = price.surcharges.iter().filter(|one| usage.flags.contains(&one.parameter.as_str()));
    for Surcharge { unit, amount, .. } in due {
        lines.push(Component::of(ComponentKind::Input, *unit, usage.of(*unit)?, *amount));
    }
    Some(lines)
}

impl Usage<'_> {
    /// Millionths of `unit`.
    fn of(&self, unit: Unit) -> Option<u64> {
        match unit {
            Unit::Image => Some(u64::from(self.pictures) * 1_000_000),
            Unit::Megapixel => Some(self.pixels), // a pixel is the millionth of a megapixel
            Unit::Request => Some(u64::from(self.calls) * 1_000_000),
            Unit::Second => self.seconds_millionths,
        }
    }
}

impl Unit {
    /// As estimates have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Megapixel => "megapixel",
            Self::Request => "request",
            Self::Second => "second",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Component {
    /// `quantity_millionths` of units at `unit_price`.
    pub fn of(
        kind: ComponentKind,
        unit: Unit,
        quantity_millionths: u64,
        unit_price: Micros,
    ) -> Self {
        let total = unit_price.times_millionths(quantity_millionths);
        Self { kind, unit, quantity_millionths, unit_price, total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fal() -> Price {
        let surcharge = Surcharge {
            parameter: "enable_prompt_expansion".into(),
            unit: Unit::Request,
            amount: Micros(2_500),
        };
        Price { unit: Unit::Megapixel, amount: Micros(5_000), surcharges: vec![surcharge] }
    }

    /// Two pictures of 1024 × 1024.
    const TWO: Usage<'static> =
        Usage { pictures: 2, pixels: 2 << 20, calls: 1, seconds_millionths: None, flags: &[] };

    #[test]
    fn an_estimate_counts_exact_pixels_and_surcharges_of_flags_that_are_set() {
        let plain = estimate(&fal(), &TWO).unwrap();
        assert_eq!((plain.len(), plain[0].quantity_millionths), (1, 2_097_152));
        assert_eq!(total(&plain), Micros(10_486));
        let expanded = Usage { flags: &["enable_prompt_expansion"], ..TWO };
        let lines = estimate(&fal(), &expanded).unwrap();
        assert_eq!((lines[1].kind, lines[1].total), (ComponentKind::Input, Micros(2_500)));
        assert_eq!(total(&lines), Micros(12_986));
    }

    #[test]
    fn a_bill_counts_more_than_the_list() {
        let list = fal();
        let settled = |bill| settle(Some(&list), &TWO, bill);
        assert_eq!(settled(Bill::Unsaid), Some(Micros(10_486)));
        assert_eq!(settled(Bill::Units(3_000_000)), Some(Micros(15_000)));
        assert_eq!(settled(Bill::Amount(Micros(7))), Some(Micros(7)));
        assert_eq!(settle(None, &TWO, Bill::Units(1)), None);
        assert_eq!(settle(None, &TWO, Bill::Amount(Micros(7))), Some(Micros(7)));
    }

    #[test]
    fn seconds_that_nobody_measured_have_no_price() {
        let list = Price { unit: Unit::Second, amount: Micros(300), surcharges: Vec::new() };
        assert_eq!(estimate(&list, &TWO), None);
        let measured = Usage { seconds_millionths: Some(1_500_000), ..TWO };
        assert_eq!(estimate(&list, &measured).map(|lines| total(&lines)), Some(Micros(450)));
        assert_eq!(settle(Some(&list), &TWO, Bill::Units(2_000_000)), Some(Micros(600)));
    }
}

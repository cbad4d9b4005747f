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

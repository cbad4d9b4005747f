//! How far a picture may be approximated to be ready sooner.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidField;

/// How far a picture may be approximated to be ready sooner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acceleration {
    /// Weights as their dtype says, and every step computed in full.
    None,
    /// The same; of weights whose form nobody chose, float16 ones are taken as bfloat16, which processors multiply, and beside weights that
    /// are multiplied as bfloat16 attention's scores are computed in 8 bits there.
    #[default]
    Regular,
    /// The transformer in 8 bits, and steps that can be told from those before them are not computed in full.
    High,
}

impl Acceleration {
    /// All of them, from exact to fast.
    pub const ALL: [Self; 3] = [Self::None, Self::Regular, Self::High];
    /// Their names, in the same order.
    pub const NAMES: [&str; 3] = ["none", "regular", "high"];
}

impl fmt::Display for Acceleration {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

impl FromStr for Acceleration {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let found = Self::ALL.into_iter().find(|level| level.to_string() == text);
        found.ok_or_else(|| {
            let problem = format!("is `{text}`; the levels are none, regular and high");
            InvalidField::new("acceleration", problem)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (level, name) in Acceleration::ALL.into_iter().zip(Acceleration::NAMES) {
            assert_eq!((level.to_string().as_str(), name.parse()), (name, Ok(level)));
            assert_eq!(serde_json::to_value(level).unwrap(), name);
        }
        let error = "max".parse::<Acceleration>().unwrap_err().to_string();
        assert_eq!(error, "`acceleration` is `max`; the levels are none, regular and high");
    }
}

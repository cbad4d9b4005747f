//! What becomes of a picture that a safety checker found unsafe.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidField;

/// What becomes of a picture that a safety checker found unsafe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFlagged {
    /// It is delivered as it is, and said to be unsafe.
    Flag,
    /// A black one of its size is delivered in its place.
    #[default]
    Blank,
    /// The request ends with `content_policy_violation`, and none of its pictures is delivered.
    Refuse,
}

impl OnFlagged {
    /// All of them, from lenient to strict.
    pub const ALL: [Self; 3] = [Self::Flag, Self::Blank, Self::Refuse];
    /// Their names, in the same order.
    pub const NAMES: [&str; 3] = ["flag", "blank", "refuse"];
}

impl fmt::Display for OnFlagged {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

impl FromStr for OnFlagged {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let found = Self::ALL.into_iter().find(|policy| policy.to_string() == text);
        found.ok_or_else(|| {
            let problem = format!("is `{text}`; the policies are flag, blank and refuse");
            InvalidField::new("on_flagged", problem)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (policy, name) in OnFlagged::ALL.into_iter().zip(OnFlagged::NAMES) {
            assert_eq!((policy.to_string().as_str(), name.parse()), (name, Ok(policy)));
            assert_eq!(serde_json::to_value(policy).unwrap(), name);
        }
        let error = "hide".parse::<OnFlagged>().unwrap_err().to_string();
        assert_eq!(error, "`on_flagged` is `hide`; the policies are flag, blank and refuse");
    }
}

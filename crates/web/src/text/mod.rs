//! The words of the pages: a typed table for each part, both languages side by side, so that neither can lack one.

pub(crate) mod arena;
pub(crate) mod common;
pub(crate) mod fields;
pub(crate) mod gallery;
pub(crate) mod models;
pub(crate) mod performance;
pub(crate) mod playground;
pub(crate) mod training;

/// A language of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    English,
    Chinese,
}

impl Language {
    pub(crate) const ALL: [Self; 2] = [Self::English, Self::Chinese];

    /// As it stands in addresses, cookies and `lang`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh",
        }
    }

    /// In its own words.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Chinese => "中文",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.name() == name)
    }

    /// The one that `Accept-Language` wants most; English where it wants neither.
    pub(crate) fn accepted(header: &str) -> Self {
        let mut best = (0.0, Self::English);
        for part in header.split(',') {
            let (tag, weight) = part.split_once(";q=").unwrap_or((part, "1"));
            let primary = tag.trim().split('-').next().unwrap_or_default().to_ascii_lowercase();
            let weight: f64 = weight.trim().parse().unwrap_or(0.0);
            if let Some(language) = Self::named(&primary)
                && weight > best.0
            {
                best = (weight, language);
            }
        }
        best.1
    }
}

/// A table of texts: `name: "English", "Chinese";` each. `Name::of(language)` is the table in that language.
macro_rules! texts {
    ($(#[$doc:meta])* $table:ident { $($name:ident: $english:literal, $chinese:literal;)* }) => {
        $(#[$doc])*
        pub(crate) struct $table {
            $(pub(crate) $name: &'static str,)*
        }

        impl $table {
            const ENGLISH: Self = Self { $($name: $english,)* };
            const CHINESE: Self = Self { $($name: $chinese,)* };

            /// The texts in `language`.
            pub(crate) fn of(language: $crate::text::Language) -> &'static Self {
                match language {
                    $crate::text::Language::English => &Self::ENGLISH,
                    $crate::text::Language::Chinese => &Self::CHINESE,
                }
            }
        }
    };
}
pub(crate) use texts;

/// `pattern` with its `{}`, one after the other, replaced by `values`.
pub(crate) fn filled(pattern: &str, values: &[&dyn std::fmt::Display]) -> String {
    let mut parts = pattern.split("{}");
    let mut out = parts.next().unwrap_or_default().to_string();
    let mut values = values.iter();
    for part in parts {
        if let Some(value) = values.next() {
            out.push_str(&value.to_string());
        }
        out.push_str(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_the_one_that_is_wanted_most() {
        let cases = [
            ("", Language::English),
            ("de-DE,de;q=0.9", Language::English),
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Chinese),
            ("en-GB,zh;q=0.9", Language::English),
            ("de, zh-Hans;q=0.5, en;q=0.3", Language::Chinese),
            ("zh;q=0", Language::English),
            ("ZH", Language::Chinese),
        ];
        for (header, expected) in cases {
            assert_eq!(Language::accepted(header), expected, "{header}");
        }
    }

    #[test]
    fn values_stand_where_the_pattern_has_them() {
        assert_eq!(filled("{} of {}", &[&1, &"2"]), "1 of 2");
        assert_eq!(filled("no place", &[&1]), "no place");
        assert_eq!(filled("第 {} 步", &[]), "第  步");
    }
}

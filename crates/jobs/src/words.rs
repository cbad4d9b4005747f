//! Words of a text as they are searched: the same in both databases, and for scripts that put no space between words.

/// `text` in small letters, its words separated by one blank. Every character of Chinese and Japanese is a word of its own: where
/// one ends is nowhere written, and whoever searches for two of them finds them beside each other.
pub(crate) fn searchable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in parts(text) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&part.text);
    }
    out
}

/// A word, and whether it stood right behind the one before.
struct Part {
    text: String,
    joined: bool,
}

fn parts(text: &str) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::new();
    let (mut open, mut touching) = (false, false);
    for c in text.chars() {
        if is_ideographic(c) {
            let joined =
                touching && out.last().is_some_and(|part| part.text.chars().all(is_ideographic));
            out.push(Part { text: c.into(), joined });
            (open, touching) = (false, true);
        } else if c.is_alphanumeric() {
            let lower = c.to_lowercase().filter(|c| c.is_alphanumeric());
            match out.last_mut().filter(|_| open) {
                Some(part) => part.text.extend(lower),
                None => out.push(Part { text: lower.collect(), joined: false }),
            }
            (open, touching) = (true, true);
        } else {
            (open, touching) = (false, false);
        }
    }
    out.retain(|part| !part.text.is_empty());
    out
}

/// Chinese characters and Japanese syllables.
fn is_ideographic(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// The words that somebody looks for: each must be there, the last letters may be missing, and what was written without a space must
/// stand so. `None` where nothing can be looked for.
pub(crate) fn sought(text: &str, dialect: crate::database::Dialect) -> Option<String> {
    use crate::database::Dialect;
    let (mut groups, mut of_letters): (Vec<Vec<String>>, Vec<bool>) = (Vec::new(), Vec::new());
    for part in parts(text).into_iter().take(WORDS_MAX) {
        match groups.last_mut() {
            Some(group) if part.joined => group.push(part.text),
            _ => {
                of_letters.push(!part.text.chars().all(is_ideographic));
                groups.push(vec![part.text]);
            }
        }
    }
    // Letters and digits only, so that nothing in them means anything to a database.
    let written = groups.iter().zip(of_letters).map(|(group, letters)| match dialect {
        Dialect::Sqlite => format!("\"{}\"{}", group.join(" "), if letters { "*" } else { "" }),
        Dialect::Postgres => {
            let words: Vec<String> = group.iter().map(|word| format!("'{word}'")).collect();
            format!("({}{})", words.join(" <-> "), if letters { ":*" } else { "" })
        }
    });
    let written: Vec<String> = written.collect();
    let and = match dialect {
        Dialect::Sqlite => " AND ",
        Dialect::Postgres => " & ",
    };
    (!written.is_empty()).then(|| written.join(and))
}

/// Words of one search; more narrow nothing down.
const WORDS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Dialect;

    #[test]
    fn words_are_what_people_search_for() {
        let cases = [
            ("A Red-Fox, 2 eyes!", "a red fox 2 eyes"),
            ("红色的房子, sun", "红 色 的 房 子 sun"),
            ("Ärger (STRASSE)", "ärger strasse"),
            ("'; DROP TABLE pictures; --", "drop table pictures"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(searchable(text), expected);
        }
    }

    #[test]
    fn a_search_is_words_and_never_syntax() {
        let cases = [
            ("red ho", r#""red"* AND "ho"*"#, "('red':*) & ('ho':*)"),
            ("房子 sun", r#""房 子" AND "sun"*"#, "('房' <-> '子') & ('sun':*)"),
            (
                r#"a" OR NEAR('b"#,
                r#""a"* AND "or"* AND "near"* AND "b"*"#,
                "('a':*) & ('or':*) & ('near':*) & ('b':*)",
            ),
        ];
        for (text, sqlite, postgres) in cases {
            assert_eq!(sought(text, Dialect::Sqlite).unwrap(), sqlite);
            assert_eq!(sought(text, Dialect::Postgres).unwrap(), postgres);
        }
        assert_eq!(sought("–!?", Dialect::Sqlite), None);
    }
}

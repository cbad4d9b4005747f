//! An expanded prompt on its way into the log, where it comes as lines.

/// Text that has not become a line yet: there is one for every few words, which is as fine as anyone reads.
#[derive(Default)]
pub(crate) struct Words {
    text: String,
}

impl Words {
    /// Characters after which a line ends at the next space.
    const LINE: usize = 40;

    /// A line, once there is one.
    pub(crate) fn push(&mut self, more: &str) -> Option<String> {
        self.text.push_str(more);
        let start = self.text.char_indices().nth(Self::LINE)?.0;
        let breaks = |c: char| c.is_whitespace() || "，。、；！？".contains(c);
        let (at, found) = self.text[start..].char_indices().find(|(_, c)| breaks(*c))?;
        let rest = self.text.split_off(start + at + found.len_utf8());
        Some(format!("Prompt: {}", std::mem::replace(&mut self.text, rest).trim()))
    }

    /// What is left.
    pub(crate) fn rest(&mut self) -> Option<String> {
        let text = std::mem::take(&mut self.text);
        Some(format!("Prompt: {}", text.trim())).filter(|_| !text.trim().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expanded_prompt_is_told_in_lines_of_whole_words() {
        let mut words = Words::default();
        let text = "A red house under an old pine tree, with a long shadow on the snow behind it.";
        let mut lines: Vec<String> = Vec::new();
        for piece in text.as_bytes().chunks(3) {
            lines.extend(words.push(std::str::from_utf8(piece).unwrap()));
        }
        lines.extend(words.rest());
        assert_eq!(
            lines,
            [
                "Prompt: A red house under an old pine tree, with",
                "Prompt: a long shadow on the snow behind it."
            ]
        );
        assert_eq!(words.rest(), None);
    }
}

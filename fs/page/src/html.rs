//! HTML that data cannot get into unescaped.

use std::fmt::{self, Display, Write};

/// A piece of HTML. Markup is `&'static str`, which only the program's own text is; everything else goes through [`Html::text`]
/// or an attribute's value, which escape.
#[derive(Default)]
pub(crate) struct Html(String);

impl Html {
    pub(crate) fn new() -> Html {
        Html::default()
    }

    /// Markup of our own.
    pub(crate) fn markup(&mut self, markup: &'static str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    /// Anything, as text.
    pub(crate) fn text(&mut self, text: impl Display) -> &mut Html {
        // Writing to a string does not fail, and neither does what is shown here.
        let _ = write!(Escape(&mut self.0), "{text}");
        self
    }

    /// A start tag with attributes.
    pub(crate) fn open(
        &mut self,
        name: &'static str,
        attributes: &[(&'static str, &dyn Display)],
    ) -> &mut Html {
        self.0.push('<');
        self.0.push_str(name);
        for (attribute, value) in attributes {
            self.0.push(' ');
            self.0.push_str(attribute);
            self.0.push_str("=\"");
            self.text(value);
            self.0.push('"');
        }
        self.0.push('>');
        self
    }

    /// An element that holds text.
    pub(crate) fn element(&mut self, name: &'static str, text: impl Display) -> &mut Html {
        self.open(name, &[]).text(text).close(name)
    }

    pub(crate) fn close(&mut self, name: &'static str) -> &mut Html {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
        self
    }

    /// Sentences of our own, with `code` in them.
    pub(crate) fn prose(&mut self, sentences: &'static str) -> &mut Html {
        for (number, part) in sentences.split('`').enumerate() {
            match number % 2 {
                0 => self.text(part),
                _ => self.element("code", part),
            };
        }
        self
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// Whether a character is drawn as itself. What is not could stand for another, reorder what is around it, or hide.
pub(crate) fn is_visible(c: char) -> bool {
    match c {
        // Letters and symbols that are drawn as nothing.
        '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' => false,
        ' '..='~' => true,
        // What cannot be printed, and what changes the character before it.
        c => c.escape_debug().len() == 1,
    }
}

/// Writes text so that it is text in HTML, between tags and between double quotes.
struct Escape<'a>(&'a mut String);

impl Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c if is_visible(c) => self.0.push(c),
                c => self.0.extend(c.escape_default()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> String {
        let mut html = Html::new();
        html.text(text);
        html.finish()
    }

    #[test]
    fn what_would_be_markup_is_text() {
        assert_eq!(
            text("<script>alert('&\"')</script>"),
            "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"
        );
        let mut html = Html::new();
        html.open("a", &[("title", &"\" onclick=\"x")]).close("a");
        assert_eq!(html.finish(), "<a title=\"&quot; onclick=&quot;x\"></a>");
    }

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        assert_eq!(text("a\nb\u{202e}c\u{200b}d\0\u{3164}e"), "a\\nb\\u{202e}c\\u{200b}d\\u{0}\\u{3164}e");
        assert_eq!(text("Grüße, 日本語, עברית, \u{1f600}"), "Grüße, 日本語, עברית, \u{1f600}");
    }

    #[test]
    fn sentences_have_code_in_them() {
        let mut html = Html::new();
        html.prose("run `cp -a <x>`, then look");
        assert_eq!(html.finish(), "run <code>cp -a &lt;x&gt;</code>, then look");
    }

    proptest! {
        #[test]
        fn no_text_has_a_character_in_it_that_means_something(any in any::<String>()) {
            let html = text(&any);
            prop_assert!(!html.contains(['<', '>', '"', '\'']), "{html}");
            prop_assert!(html.chars().all(is_visible), "{html:?}");
            for after in html.split('&').skip(1) {
                let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
                prop_assert!(known.iter().any(|known| after.starts_with(known)), "{html}");
            }
        }
    }
}

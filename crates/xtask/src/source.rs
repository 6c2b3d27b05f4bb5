//! Rust text with comments and the insides of literals blanked out, so that rules can look for
//! words without being fooled by prose. It does not parse: it only knows where code is not.

/// Replaces comments and the contents of string and character literals by spaces. Lines and
/// columns stay where they were.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at).unwrap_or(at);
        if end > at {
            out.extend(chars[at..end].iter().map(|&it| if it == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// The lines of `text` before its tests: by habit tests are one module at the end of the file.
pub fn before_tests(code: &str) -> impl Iterator<Item = (usize, &str)> {
    numbered(code).take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
}

pub fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Finds `word` where it is not part of a longer name.
pub fn names(line: &str, word: &str) -> bool {
    let part = |it: char| it.is_alphanumeric() || it == '_';
    let first = word.chars().next().is_some_and(part);
    let last = word.chars().next_back().is_some_and(part);
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back().is_some_and(part);
        let after = line[start + word.len()..].chars().next().is_some_and(part);
        !(first && before || last && after)
    })
}

/// If a comment or literal begins at `at`, the index behind it.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => Some(line_end(chars, at)),
        '/' if next == Some('*') => Some(block_end(chars, at)),
        '"' => Some(string_end(chars, at)),
        '\'' => character_end(chars, at),
        'r' | 'b' | 'c' if !continues_a_name(chars, at) => prefixed_end(chars, at),
        _ => None,
    }
}

fn continues_a_name(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|&it| it == '\n').map_or(chars.len(), |length| at + length)
}

fn block_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut index) = (0_usize, at);
    while index < chars.len() {
        match (chars[index], chars.get(index + 1)) {
            ('/', Some('*')) => (depth, index) = (depth + 1, index + 2),
            ('*', Some('/')) if depth == 1 => return index + 2,
            ('*', Some('/')) => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut index = at + 1;
    while index < chars.len() {
        match chars[index] {
            '\\' => index += 2,
            '"' => return index + 1,
            _ => index += 1,
        }
    }
    chars.len()
}

/// A character literal; `None` for a lifetime.
fn character_end(chars: &[char], at: usize) -> Option<usize> {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), Some(_)) => {
            let tail = chars.get(at + 3..)?;
            tail.iter().position(|&it| it == '\'').map(|length| at + 4 + length)
        }
        (Some(_), Some('\'')) => Some(at + 3),
        _ => None,
    }
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `c"…"`, `b'…'`; `None` for a name that begins alike.
fn prefixed_end(chars: &[char], at: usize) -> Option<usize> {
    let letters = chars[at..].iter().take(2).take_while(|it| matches!(it, 'r' | 'b' | 'c')).count();
    let raw = chars[at..at + letters].contains(&'r');
    let quote = at + letters;
    let fences = chars[quote..].iter().take_while(|&&it| it == '#').count();
    match chars.get(quote + fences) {
        Some('"') if raw => {
            let mut index = quote + fences + 1;
            while index < chars.len() {
                let closing = chars[index + 1..].iter().take_while(|&&it| it == '#').count();
                if chars[index] == '"' && closing >= fences {
                    return Some(index + 1 + fences);
                }
                index += 1;
            }
            Some(chars.len())
        }
        Some('"') if fences == 0 => Some(string_end(chars, quote)),
        Some('\'') if fences == 0 && chars[at] == 'b' => character_end(chars, quote),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let squeezed = code_only(text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed, want, "of {text}");
    }

    #[test]
    fn prose_is_blanked_and_code_stays() {
        check("let a = 1; // todo", "let a = 1;");
        check("a /* one /* two */ three */ b", "a b");
        check(r#"f("say \"x\" now", g)"#, "f( , g)");
        check("f(r#\"a \" b\"#, g)", "f( , g)");
        check(r#"f(b"x", br"y", c"z")"#, "f( , , )");
        check("for<'a> fn(&'a str) -> char { '\"' }", "for<'a> fn(&'a str) -> char { }");
        check(
            r"match it { '\'' => 1, '\u{1}' => 2, '\n' => 3, b'x' => 4 }",
            "match it { => 1, => 2, => 3, => 4 }",
        );
        check("let r = b.c; bar(r)", "let r = b.c; bar(r)");
    }

    #[test]
    fn lines_stay_where_they_were() {
        let code = code_only("a /*\n\n*/ b\n\"x\ny\" c\n");
        assert_eq!(code.lines().count(), 5);
        assert!(code.lines().nth(2).is_some_and(|it| it.ends_with(" b")));
    }

    #[test]
    fn words_are_found_as_words() {
        assert!(names("use rand::Rng;", "rand"));
        assert!(!names("let operand = brand;", "rand"));
        assert!(names("async fn go()", "async fn"));
        assert!(names("Timestamp::now()", "::now("));
    }
}

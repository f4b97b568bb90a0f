//! Which plain files belong to a set: a path with wildcards, matched name by name.
//!
//! A stencil laid over each folder: `*` any run of characters, `?` one, `[a-z]` or `[!a-z]` one of a set; never across a `/`,
//! and a leading dot must be asked for. The longest part without a wildcard is the root beneath which files are opened.
//! The weakness: no `**`; whoever needs a tree names its levels.

use std::path::PathBuf;

/// A set of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    /// The longest fixed directory.
    pub(super) root: PathBuf,
    /// What names below it must look like, a pattern a level; the last one is of files.
    pub(super) levels: Vec<Vec<u8>>,
}

/// Levels below the fixed directory that are walked.
const LEVELS_MAX: usize = 16;

impl Glob {
    /// Errors: a sentence that names the pattern.
    pub(super) fn parse(pattern: &str) -> Result<Glob, String> {
        if !pattern.starts_with('/') {
            return Err(format!("{pattern:?} is no absolute path: begin it with /"));
        }
        let names: Vec<&str> = pattern.split('/').filter(|name| !name.is_empty()).collect();
        if let Some(bad) = names.iter().find(|name| **name == ".." || **name == "." || name.contains("**")) {
            return Err(format!(
                "{pattern:?} holds {bad:?}, which is not followed: name each level, with * where it varies"
            ));
        }
        let fixed = names.iter().take_while(|name| !name.contains(['*', '?', '['])).count();
        // The last level is a file, even if it is fixed.
        let fixed = fixed.min(names.len().saturating_sub(1));
        let levels: Vec<Vec<u8>> = names.iter().skip(fixed).map(|name| name.as_bytes().to_vec()).collect();
        if levels.is_empty() || levels.len() > LEVELS_MAX {
            return Err(format!("{pattern:?} names no file, or has more than {LEVELS_MAX} levels with wildcards"));
        }
        let root = names.iter().take(fixed).fold(PathBuf::from("/"), |path, name| path.join(name));
        Ok(Glob { root, levels })
    }
}

/// Whether a name fits a pattern. Time: at most the product of both lengths.
pub(super) fn fits(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where to go on if what followed the last star did not fit: behind it, one character later.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let one = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(b'?') => Some(p + 1),
            Some(b'[') => match set(&pattern[p..], name[n]) {
                Some((len, hit)) => hit.then_some(p + len),
                None => (name[n] == b'[').then_some(p + 1),
            },
            Some(&c) => (c == name[n]).then_some(p + 1),
            None => None,
        };
        match (one, star) {
            (Some(next), _) => (p, n) = (next, n + 1),
            (None, Some((behind, at))) => {
                (p, n) = (behind, at + 1);
                star = Some((behind, at + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Length of the set that the pattern begins with, and whether it holds the character. `None`: the bracket is never closed.
fn set(pattern: &[u8], c: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let from = if negated { 2 } else { 1 };
    let end = pattern.iter().skip(from + 1).position(|&c| c == b']')? + from + 1;
    let inside = &pattern[from..end];
    let mut hit = false;
    let mut i = 0;
    while let Some(&first) = inside.get(i) {
        match (inside.get(i + 1), inside.get(i + 2)) {
            (Some(b'-'), Some(&last)) => {
                hit |= (first..=last).contains(&c);
                i += 3;
            }
            _ => {
                hit |= first == c;
                i += 1;
            }
        }
    }
    Some((end + 1, hit != negated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_fit_as_in_a_shell() {
        let table: [(&str, &str, bool); 20] = [
            ("*", "a", true),
            ("*", "", true),
            ("*", ".a", false),
            (".*", ".a", true),
            ("*.log", "a.log", true),
            ("*.log", "a.log.1", false),
            ("*.log*", "a.log.1", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("?", "a", true),
            ("?", "", false),
            ("[ab]", "b", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("[]a]", "]", true),
            ("[a", "[a", true),
            ("syslog", "syslog", true),
            ("syslog", "syslog.1", false),
            ("**", "abc", true),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_longest_fixed_folder_is_the_root() {
        let of = |pattern| Glob::parse(pattern).map(|g| (g.root.display().to_string(), g.levels.len()));
        assert_eq!(of("/var/log/syslog"), Ok(("/var/log".into(), 1)));
        assert_eq!(of("/var/log/*/x/*.log"), Ok(("/var/log".into(), 3)));
        assert_eq!(of("/*"), Ok(("/".into(), 1)));
        for bad in ["var/log/x", "/a/../b", "/a/**/b", "/", "/./a"] {
            assert!(of(bad).is_err_and(|e| e.contains(bad)), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_and_any_name_end_in_an_answer(pattern in "[ab*?\\[\\]!-]{0,12}", name in "[ab\\[\\]-]{0,24}") {
            let _ = fits(pattern.as_bytes(), name.as_bytes());
        }

        #[test]
        fn a_name_fits_itself_and_any_star(name in "[a-z][a-z.]{0,12}", cut in any::<prop::sample::Index>()) {
            let (start, end) = name.split_at(cut.index(name.len() + 1));
            prop_assert!(fits(name.as_bytes(), name.as_bytes()));
            let starred = format!("{start}*{end}");
            prop_assert!(fits(starred.as_bytes(), name.as_bytes()), "{}", starred);
        }
    }
}

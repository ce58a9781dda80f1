//! A path in the policy: literal segments, `*` for one segment, `**` for any number of them.
//!
//! Matching is by segment, and each segment was percent-decoded once by the front door, so that
//! `/v1/%75sers` is judged as `/v1/users`. It never sees a query.

use std::fmt;

/// Segments of a pattern: as many as [`States`] has bits.
const SEGMENTS_MAX: usize = 64;

/// A parsed pattern such as `/v1/datasets/**`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    One,
    Any,
}

/// Why a text is no path pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// It has to begin with a slash.
    #[error("a path begins with `/`")]
    NoSlash,
    /// `*` stands for a whole segment.
    #[error("`*` and `**` stand for whole segments: write `/v1/*/rows`, not `/v1/data*`")]
    PartialWildcard,
    /// Nobody means so many segments.
    #[error("a path has at most {SEGMENTS_MAX} segments here")]
    TooLong,
    /// Such a path never arrives: the front door refuses it.
    #[error(
        "`.` and `..` segments, `?`, `#`, `\\`, spaces and control characters never match: the front door refuses them"
    )]
    NeverMatches,
}

impl std::str::FromStr for PathPattern {
    type Err = PathPatternError;

    fn from_str(text: &str) -> Result<Self, PathPatternError> {
        let Some(rest) = text.strip_prefix('/') else { return Err(PathPatternError::NoSlash) };
        let bad = |c: char| matches!(c, '?' | '#' | '\\') || !c.is_ascii_graphic();
        if text.contains(bad) {
            return Err(PathPatternError::NeverMatches);
        }
        let segments = rest.split('/').map(|segment| match segment {
            "**" => Ok(Segment::Any),
            "*" => Ok(Segment::One),
            "." | ".." => Err(PathPatternError::NeverMatches),
            part if part.contains('*') => Err(PathPatternError::PartialWildcard),
            part => Ok(Segment::Literal(part.to_owned())),
        });
        let segments = segments.collect::<Result<Vec<_>, _>>()?;
        if segments.len() > SEGMENTS_MAX {
            return Err(PathPatternError::TooLong);
        }
        Ok(Self { text: text.to_owned(), segments })
    }
}

impl PathPattern {
    /// Whether a path is one of those meant, given as the decoded segments behind its first `/`:
    /// `/v1/` is `["v1", ""]`.
    #[must_use]
    pub fn matches<S: AsRef<str>>(&self, parts: &[S]) -> bool {
        matches_all(&self.segments, parts)
    }

    /// Whether a lenient server might take a path for one of those meant: letters of either case,
    /// parameters behind `;` cut off or not, encoded slashes taken for slashes, and each empty segment,
    /// of the path or the pattern, there or not.
    #[must_use]
    pub fn matches_leniently<S: AsRef<str>>(&self, parts: &[S]) -> bool {
        let parts = parts.iter().flat_map(|part| part.as_ref().split('/'));
        let mut states = States::new(&self.segments);
        parts.for_each(|part| states.advance(part));
        states.end
    }
}

/// How far a path may have come in a pattern, for all its readings at once.
struct States<'a> {
    segments: &'a [Segment],
    /// A bit for each segment: whether it may be what comes next.
    next: u64,
    /// Whether nothing more may have to come.
    end: bool,
}

impl<'a> States<'a> {
    fn new(segments: &'a [Segment]) -> Self {
        let (mut comes, mut next) = (true, 0);
        for (at, segment) in segments.iter().take(SEGMENTS_MAX).enumerate() {
            next |= u64::from(comes) << at;
            comes &= segment.may_be_nothing();
        }
        Self { segments, next, end: comes }
    }

    fn advance(&mut self, part: &str) {
        let name = part.split_once(';').map_or(part, |(name, _)| name);
        // Whether the segment that is looked at is reached from the one before it.
        let (mut comes, mut next) = (false, 0);
        for (at, segment) in self.segments.iter().take(SEGMENTS_MAX).enumerate() {
            let was_next = self.next >> at & 1 == 1;
            let takes = match segment {
                Segment::Any => false,
                Segment::One => true,
                Segment::Literal(want) => {
                    [part, name].iter().any(|it| want.eq_ignore_ascii_case(it))
                }
            };
            let is_next = comes || was_next && (name.is_empty() || *segment == Segment::Any);
            next |= u64::from(is_next) << at;
            comes = was_next && takes || is_next && segment.may_be_nothing();
        }
        self.next = next;
        self.end = comes || self.end && name.is_empty();
    }
}

impl Segment {
    fn may_be_nothing(&self) -> bool {
        match self {
            Self::Literal(text) => text.is_empty(),
            Self::One => false,
            Self::Any => true,
        }
    }
}

/// Linear in the path for each `**`: on a mismatch only the last `**` takes one segment more.
fn matches_all<S: AsRef<str>>(pattern: &[Segment], parts: &[S]) -> bool {
    let (mut at, mut part) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(at), parts.get(part)) {
            (None, None) => return true,
            (Some(Segment::Any), _) => {
                retry = Some((at + 1, part));
                at += 1;
                continue;
            }
            (Some(Segment::One), Some(_)) => {
                (at, part) = (at + 1, part + 1);
                continue;
            }
            (Some(Segment::Literal(want)), Some(have)) if want == have.as_ref() => {
                (at, part) = (at + 1, part + 1);
                continue;
            }
            _ => {}
        }
        match retry {
            Some((after, from)) if from < parts.len() => {
                retry = Some((after, from + 1));
                (at, part) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let pattern: PathPattern = pattern.parse().unwrap();
        let matches = |path: &str| pattern.matches(&path[1..].split('/').collect::<Vec<_>>());
        for path in yes {
            assert!(matches(path), "{pattern} should match {path}");
        }
        for path in no {
            assert!(!matches(path), "{pattern} should not match {path}");
        }
    }

    #[test]
    fn segments_match_whole_and_stars_match_segments() {
        check("/v1/users", &["/v1/users"], &["/v1/users/", "/v1/users/7", "/v1/user", "/v1"]);
        check("/v1/*/rows", &["/v1/a/rows", "/v1//rows"], &["/v1/rows", "/v1/a/b/rows"]);
        check(
            "/v1/users/**",
            &["/v1/users", "/v1/users/", "/v1/users/a/b"],
            &["/v1/usersx", "/v1"],
        );
        check("/**", &["/", "/a", "/a/b/"], &[]);
        check("/a/**/z", &["/a/z", "/a/b/z", "/a/b/c/z", "/a/z/z"], &["/a", "/a/b", "/a/z/b"]);
        check("/a/**/b/**/c", &["/a/b/c", "/a/x/b/y/b/c"], &["/a/c/b", "/a/b/b"]);
    }

    #[test]
    fn a_pattern_that_could_never_match_is_an_error() {
        for (text, want) in [
            ("v1", PathPatternError::NoSlash),
            ("/v1/data*", PathPatternError::PartialWildcard),
            ("/v1/***", PathPatternError::PartialWildcard),
            ("/v1/../x", PathPatternError::NeverMatches),
            ("/v1?x=1", PathPatternError::NeverMatches),
            ("/a b", PathPatternError::NeverMatches),
            (&"/a".repeat(SEGMENTS_MAX + 1), PathPatternError::TooLong),
        ] {
            assert_eq!(text.parse::<PathPattern>(), Err(want), "{text}");
        }
    }

    #[test]
    fn the_longest_pattern_matches_to_its_end() {
        let path = format!("{}/z", "/a".repeat(SEGMENTS_MAX - 1));
        let pattern: PathPattern = path.parse().unwrap();
        let parts: Vec<_> = path[1..].split('/').collect();
        assert!(pattern.matches(&parts) && pattern.matches_leniently(&parts));
        assert!(!pattern.matches_leniently(&parts[1..]));
    }

    proptest::proptest! {
        /// Against the obvious recursive definition.
        #[test]
        fn matching_agrees_with_its_definition(
            pattern in "/(a|b|\\*|\\*\\*)(/(a|b|\\*|\\*\\*)){0,5}", path in "/(a|b)?(/(a|b)?){0,6}"
        ) {
            fn slow(pattern: &[&str], parts: &[&str]) -> bool {
                match (pattern.split_first(), parts.split_first()) {
                    (None, None) => true,
                    (Some((&"**", rest)), None) => slow(rest, &[]),
                    (Some((&"**", rest)), Some((_, tail))) => {
                        slow(rest, parts) || slow(pattern, tail)
                    }
                    (Some((&"*", rest)), Some((_, tail))) => slow(rest, tail),
                    (Some((want, rest)), Some((have, tail))) => want == have && slow(rest, tail),
                    _ => false,
                }
            }
            let want: Vec<&str> = pattern[1..].split('/').collect();
            let have: Vec<&str> = path[1..].split('/').collect();
            let parsed: PathPattern = pattern.parse().unwrap();
            proptest::prop_assert_eq!(parsed.matches(&have), slow(&want, &have));
        }

        /// Whatever is denied stays denied, however it is spelled.
        #[test]
        fn a_spelling_of_what_matches_matches_leniently(
            pattern in "/(a|b|\\*|\\*\\*|)(/(a|b|\\*|\\*\\*|)){0,5}",
            parts in proptest::collection::vec(("(a|b|)", 0..4_u8, "(|;|;x|;a=b)"), 1..7),
        ) {
            let path: Vec<&str> = parts.iter().map(|(part, ..)| &**part).collect();
            let mut spelled = Vec::new();
            for (part, how, behind) in &parts {
                spelled.push(match how {
                    0 => part.to_ascii_uppercase(),
                    1 => format!("/{part}"),
                    2 => format!("{part}/"),
                    _ => format!("{part}{behind}"),
                });
            }
            let pattern: PathPattern = pattern.parse().unwrap();
            let gets_past = pattern.matches(&path) && !pattern.matches_leniently(&spelled);
            proptest::prop_assert!(!gets_past, "{pattern} {spelled:?}");
        }
    }
}

//! Stop strings in text that arrives in pieces.

/// Passes text on as soon as it cannot be part of a stop string any more.
#[derive(Debug, Clone)]
pub(crate) struct StopScanner<'a> {
    stops: &'a [String],
    held: String,
}

impl<'a> StopScanner<'a> {
    /// A scanner for `stops`; empty strings are ignored.
    pub(crate) fn new(stops: &'a [String]) -> Self {
        Self {
            stops,
            held: String::new(),
        }
    }

    /// Takes the next piece; returns the text to pass on and whether a stop string was met (it and what follows are dropped).
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        let stops = || self.stops.iter().filter(|stop| !stop.is_empty());
        if let Some(at) = stops()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min()
        {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        // Hold back the longest end that a stop string may begin with.
        let starts_a_stop = |at: &usize| stops().any(|stop| stop.starts_with(&self.held[*at..]));
        let keep_from = self
            .held
            .char_indices()
            .map(|(at, _)| at)
            .find(starts_a_stop)
            .unwrap_or(self.held.len());
        let held = self.held.split_off(keep_from);
        (std::mem::replace(&mut self.held, held), false)
    }

    /// The text still held back.
    pub(crate) fn finish(self) -> String {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut scanner = StopScanner::new(&stops);
        let mut out = Vec::new();
        for piece in pieces {
            let (text, stopped) = scanner.push(piece);
            out.push(text);
            if stopped {
                return (out, true);
            }
        }
        out.push(scanner.finish());
        (out, false)
    }

    #[test]
    fn a_stop_string_across_pieces_is_cut_off() {
        assert_eq!(
            run(&["끝\n"], &["안녕 끝", "\n더"]),
            (vec!["안녕 ".into(), String::new()], true)
        );
    }

    #[test]
    fn text_that_only_looked_like_a_stop_is_passed_on() {
        assert_eq!(
            run(&["abc"], &["xab", "ab", "d"]),
            (
                vec!["x".into(), "ab".into(), "abd".into(), String::new()],
                false
            )
        );
    }

    #[test]
    fn the_earliest_stop_wins_and_empty_ones_are_ignored() {
        assert_eq!(run(&["", "c", "b"], &["abc"]), (vec!["a".into()], true));
        assert_eq!(
            run(&[], &["abc"]),
            (vec!["abc".into(), String::new()], false)
        );
    }
}

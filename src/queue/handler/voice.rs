//! What a handler says, on its way to b24's standard error: bounded, without
//! secrets of b24, and on a terminal without characters that move its cursor.
//!
//! A handler repeats what a portal wrote, and may repeat what it should not
//! know. Where standard error is no terminal its lines are passed on as they
//! are, but for the secrets: another program reads them.

use crate::json;
use crate::secret::Redactor;
use std::io::{self, Write};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// How much of what a handler says is kept for its dead letters, in bytes.
const KEPT: usize = 4096;

/// Longest line that is passed on; secrets are looked for in a little more, so
/// that the cut leaves no part of one.
const LONGEST: usize = 16 * 1024;
const LOOKED_AT: usize = LONGEST + 4096;

/// How much is passed on of one event's process, or of a lasting one in a
/// second, in bytes.
const MOST: usize = 1024 * 1024;

/// What b24's standard error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// A person's terminal.
    Terminal,
    /// Something that keeps or reads lines.
    Stream,
}

/// How long what was passed on counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// As long as the process lives.
    ForGood,
    /// A second.
    ASecond,
}

/// How a handler's words are passed on.
#[derive(Debug, Clone)]
pub(super) struct Voice {
    pub(super) redactor: Redactor,
    pub(super) screen: Screen,
    pub(super) counts: Counts,
}

/// What was heard so far.
struct Heard {
    voice: Voice,
    /// The line that has no end yet, and how much of it was not kept.
    line: Vec<u8>,
    left_out: usize,
    /// The last of what was said, without secrets.
    kept: Vec<u8>,
    said: usize,
    unsaid: usize,
    since: Instant,
}

/// Passes what a handler says on to b24's standard error and returns the end
/// of it.
pub(super) async fn pass_on(mut stream: impl AsyncRead + Unpin, voice: Voice) -> String {
    let mut heard = Heard { voice, line: Vec::new(), left_out: 0, kept: Vec::new(), said: 0, unsaid: 0, since: Instant::now() };
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        heard.take(&buffer[..read], &mut io::stderr());
    }
    heard.end(&mut io::stderr())
}

impl Heard {
    fn take(&mut self, bytes: &[u8], out: &mut impl Write) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = LOOKED_AT.saturating_sub(self.line.len()).min(text.len());
            self.line.extend_from_slice(&text[..room]);
            self.left_out += text.len() - room;
            if text.len() < piece.len() {
                self.finish_line(out);
            }
        }
    }

    fn finish_line(&mut self, out: &mut impl Write) {
        let line = std::mem::take(&mut self.line);
        let line = self.voice.redactor.redact(&line);
        let shown = &line[..line.len().min(LONGEST)];
        let left_out = std::mem::take(&mut self.left_out) + line.len() - shown.len();
        self.kept.extend_from_slice(shown);
        self.kept.push(b'\n');
        if self.kept.len() > LONGEST + KEPT {
            self.kept.drain(..self.kept.len() - KEPT);
        }
        if self.voice.counts == Counts::ASecond && self.since.elapsed() >= Duration::from_secs(1) {
            self.tell_unsaid(out);
            (self.said, self.since) = (0, Instant::now());
        }
        if self.said + shown.len() > MOST {
            self.unsaid += shown.len() + left_out + 1;
            return;
        }
        self.said += shown.len() + 1;
        let more = if left_out > 0 { format!(" … {left_out} more bytes") } else { String::new() };
        let mut bytes = match self.voice.screen {
            Screen::Terminal => visible(&String::from_utf8_lossy(shown)).into_bytes(),
            Screen::Stream => shown.to_vec(),
        };
        bytes.extend_from_slice(more.as_bytes());
        bytes.push(b'\n');
        // Nobody reads it: no reason to leave the handler.
        let _ = out.write_all(&bytes);
    }

    fn tell_unsaid(&mut self, out: &mut impl Write) {
        let unsaid = std::mem::take(&mut self.unsaid);
        if unsaid > 0 {
            let _ = writeln!(out, "(b24: the handler said {unsaid} more bytes, which are left out)");
        }
    }

    fn end(mut self, out: &mut impl Write) -> String {
        if !self.line.is_empty() || self.left_out > 0 {
            self.finish_line(out);
        }
        self.tell_unsaid(out);
        let from = self.kept.len().saturating_sub(KEPT);
        String::from_utf8_lossy(&self.kept[from..]).trim().to_owned()
    }
}

/// Shows every character of a line that would move a cursor or print nothing.
fn visible(line: &str) -> String {
    let show = |c: char| match c.is_control() && c != '\t' {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    };
    json::escape_deceptive(&line.chars().map(show).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn heard(screen: Screen, counts: Counts) -> Heard {
        let mut redactor = Redactor::default();
        redactor.learn(&Secret::new("canary-0123456789".to_owned()));
        let voice = Voice { redactor, screen, counts };
        Heard { voice, line: Vec::new(), left_out: 0, kept: Vec::new(), said: 0, unsaid: 0, since: Instant::now() }
    }

    fn passed(screen: Screen, pieces: &[&[u8]]) -> (String, String) {
        let (mut heard, mut out) = (heard(screen, Counts::ForGood), Vec::new());
        pieces.iter().for_each(|piece| heard.take(piece, &mut out));
        let kept = heard.end(&mut out);
        (String::from_utf8_lossy(&out).into_owned(), kept)
    }

    #[test]
    fn a_terminal_gets_no_control_character_and_a_stream_gets_what_was_said() {
        let said: &[u8] = "a\u{1b}[2J\r\tb\u{9b}\u{202e}\n".as_bytes();
        assert_eq!(passed(Screen::Terminal, &[said]).0.trim_end(), "a\\u001b[2J\\u000d\\u0009b\\u009b\\u202e");
        assert_eq!(passed(Screen::Stream, &[said]).0.as_bytes(), said);
    }

    #[test]
    fn a_secret_is_taken_out_wherever_it_is_torn() {
        let long = "x".repeat(LONGEST - 8);
        let text = format!("{long}canary-0123456789{long}\nlast canary-0123456789");
        for cut in [1, LONGEST - 4, LONGEST, 2 * LONGEST, text.len() - 5] {
            for screen in [Screen::Terminal, Screen::Stream] {
                let (out, kept) = passed(screen, &[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
                assert!(!out.contains("canary") && !kept.contains("canary"), "{cut}");
                assert!(out.contains("more bytes") && kept.ends_with("last ***"), "{cut}: {kept}");
            }
        }
    }

    #[test]
    fn a_flood_is_cut_off_and_told() {
        let line = [b"y".repeat(999), b"\n".to_vec()].concat();
        let pieces: Vec<&[u8]> = (0..5000).map(|_| line.as_slice()).collect();
        let (out, kept) = passed(Screen::Stream, &pieces);
        assert!(out.len() < MOST + 1000 && kept.len() <= KEPT, "{}", out.len());
        assert!(out.trim_end().ends_with("more bytes, which are left out)"));
    }
}

//! Keeps HTTP/2's own opening words back until they can travel with an answer.
//!
//! A server begins with its SETTINGS and then confirms the client's, in a packet each. The plugin sends its whole request
//! with the preamble and has nothing to say to either, but is woken by both, confirms the first, and so wakes the daemon
//! again, all of it just when its pod is being wired, on a node's few processors. Nobody else loses by it: a client that
//! wants to see the SETTINGS before it asks gets them at once. Knows neither sockets nor tasks.

/// Longer opening words than these are let through as they come.
const MOST: usize = 256;
/// A frame's header: its length in three bytes, its type, and more.
const HEADER: usize = 9;
const SETTINGS: u8 = 4;
/// How often a silent client is looked at, each time after whatever else can run has run, before it is taken for one that
/// waits: the server looks twice at a time, and a request that it has read begins only after that.
const LOOKS: u8 = 4;

/// What is kept back of one connection.
#[derive(Debug, Default)]
pub struct Cork {
    held: Vec<u8>,
    /// How often the client had nothing more to say.
    looks: u8,
    /// Nothing is kept back any more.
    pulled: bool,
}

impl Cork {
    /// Whether these bytes, which are to be sent, are kept back; the cork has them then.
    pub fn holds(&mut self, bytes: &[u8]) -> bool {
        if self.pulled || self.held.len() + bytes.len() > MOST || !is_settings(bytes) {
            return false;
        }
        self.held.extend(bytes);
        true
    }

    /// What goes out before anything else.
    #[must_use]
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// So many bytes went out, of what is held and of what follows; says how many of the latter.
    pub fn sent(&mut self, bytes: usize) -> usize {
        self.pulled = true;
        let held = bytes.min(self.held.len());
        self.held.drain(..held);
        bytes - held
    }

    /// The client has nothing more to say for now: whether it must hear what is held.
    pub fn silent(&mut self, a_request_is_under_way: bool) -> Silence {
        if self.held.is_empty() || a_request_is_under_way {
            Silence::Wait
        } else if self.looks == LOOKS {
            Silence::Speak
        } else {
            self.looks += 1;
            Silence::LookAgain
        }
    }
}

/// What a client's silence asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// There is nothing to be said, or an answer will take it along.
    Wait,
    /// To be asked once more, after whatever else can run has run.
    LookAgain,
    /// It may be waiting for what is held.
    Speak,
}

/// Whether these are SETTINGS frames, whole ones, and nothing else.
fn is_settings(mut bytes: &[u8]) -> bool {
    while let Some((&[a, b, c, kind, ..], _)) = bytes.split_first_chunk::<HEADER>() {
        let length = HEADER + u32::from_be_bytes([0, a, b, c]) as usize;
        match bytes.get(length..) {
            Some(rest) if kind == SETTINGS => bytes = rest,
            _ => return false,
        }
    }
    bytes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &[u8] = &[0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
    const CONFIRMED: &[u8] = &[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0];
    const ANSWER: &[u8] = &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];

    #[test]
    fn opening_words_wait_for_an_answer() {
        let mut cork = Cork::default();
        assert!(cork.holds(OURS) && cork.holds(CONFIRMED));
        assert_eq!(cork.silent(true), Silence::Wait);
        assert!(!cork.holds(ANSWER));
        assert_eq!(cork.held(), [OURS, CONFIRMED].concat());
        // The socket takes what it takes.
        assert_eq!(cork.sent(OURS.len()), 0);
        assert_eq!(cork.held(), CONFIRMED);
        assert_eq!(cork.sent(CONFIRMED.len() + 4), 4);
        assert!(cork.held().is_empty());
        assert!(!cork.holds(CONFIRMED), "nothing is kept back twice");
    }

    #[test]
    fn a_client_that_waits_is_told() {
        let mut cork = Cork::default();
        assert_eq!(cork.silent(false), Silence::Wait);
        assert!(cork.holds(OURS));
        for _ in 0..LOOKS {
            assert_eq!(cork.silent(false), Silence::LookAgain);
        }
        assert_eq!(cork.silent(false), Silence::Speak);
        cork.sent(OURS.len());
        assert_eq!(cork.silent(false), Silence::Wait);
    }

    #[test]
    fn only_whole_settings_are_kept_back_and_not_too_many() {
        let both = [OURS, ANSWER].concat();
        for bytes in [ANSWER, &both, &OURS[..OURS.len() - 1], &OURS[..4]] {
            assert!(!Cork::default().holds(bytes), "{bytes:?}");
        }
        let mut cork = Cork::default();
        let kept = (0..MOST).filter(|_| cork.holds(CONFIRMED)).count();
        assert_eq!(kept, MOST / CONFIRMED.len());
    }
}

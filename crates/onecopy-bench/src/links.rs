//! The link that is open, kept from one row to the next.

use crate::control::Meeting;
use crate::options::Workload;
use crate::plan::Case;
use crate::session::{Failure, Session, Setting, Terms};
use crate::transport::Transport;

/// At most one link between two workers at a time, and what was learned about their limits.
pub(crate) struct Links<'a> {
    setting: &'a Setting,
    open: Option<(Terms, Session<'a>)>,
    /// The longest message of each transport, as far as rows met it.
    limits: Vec<(Transport, usize)>,
}

impl<'a> Links<'a> {
    pub(crate) fn new(setting: &'a Setting) -> Self {
        Self { setting, open: None, limits: Vec::new() }
    }

    /// A link for `case`, which fragments its messages where they do not fit otherwise: that costs two more copies.
    ///
    /// # Errors
    ///
    /// [`Failure::TooLong`] where they do not fit and fragments make no sense.
    pub(crate) fn session(&mut self, case: &Case) -> Result<&mut Session<'a>, Failure> {
        let mut terms =
            Terms { wait: case.wait, channels: case.channels, ..Terms::of(Meeting::Transport(case.transport)) };
        let may_fragment = case.transport.is_fragmented() && case.workload != Workload::Layer;
        terms.fragmented = may_fragment && self.is_beyond_known_limit(case);
        if let Err(failure) = self.open(terms)?.fits(case.size_bytes) {
            let limit = self.open(terms)?.limit_bytes().filter(|_| may_fragment).ok_or(failure)?;
            self.limits.push((case.transport, limit));
            terms.fragmented = true;
        }
        self.open(terms)
    }

    /// Ends the workers of the open link, if there is one.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    fn open(&mut self, terms: Terms) -> Result<&mut Session<'a>, Failure> {
        if self.open.as_ref().is_none_or(|(of, _)| *of != terms) {
            // The old workers end before the new ones start.
            self.close();
            self.open = Some((terms, Session::open(self.setting, terms)?));
        }
        match &mut self.open {
            Some((_, session)) => Ok(session),
            None => Err(Failure::Failed("there is no link".into())),
        }
    }

    fn is_beyond_known_limit(&self, case: &Case) -> bool {
        self.limits.iter().any(|(transport, limit)| *transport == case.transport && case.size_bytes > *limit)
    }
}

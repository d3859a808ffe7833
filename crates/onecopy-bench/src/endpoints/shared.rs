//! One object that both sends and receives, as a sender and a receiver.

use std::cell::RefCell;
use std::rc::Rc;

use onecopy::{Deadline, Receiver, Result, Sender};

use super::Ends;

/// A share in an object of one thread. Its two holders never use it at the same time: a call ends before the next begins.
struct Shared<T>(Rc<RefCell<T>>);

impl<T: Sender> Sender for Shared<T> {
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.0.borrow_mut().send_by(message, deadline)
    }

    fn limit_bytes(&self) -> Option<usize> {
        self.0.borrow().limit_bytes()
    }

    fn flush_by(&mut self, deadline: Deadline) -> Result<()> {
        self.0.borrow_mut().flush_by(deadline)
    }
}

impl<T: Receiver> Receiver for Shared<T> {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.0.borrow_mut().recv_into_by(buffer, deadline)
    }

    fn usual_bytes(&self) -> usize {
        self.0.borrow().usual_bytes()
    }
}

/// Both directions of an object that has both.
pub(super) fn ends<T: Sender + Receiver + 'static>(both: T) -> Ends {
    let both = Rc::new(RefCell::new(both));
    Ends { sender: Box::new(Shared(Rc::clone(&both))), receiver: Box::new(Shared(both)) }
}

//! One object that both sends and receives, as a sender and a receiver.

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::rc::Rc;

use onecopy::stream::{ByteReader, ByteWriter};
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

/// A share in a stream, which keeps its address: that cannot be borrowed through the cell.
struct Half<T> {
    stream: Rc<RefCell<T>>,
    object: String,
}

impl<T: ByteReader> ByteReader for Half<T> {
    fn read_vectored_by(&mut self, buffers: &mut [IoSliceMut<'_>], deadline: Deadline) -> Result<usize> {
        self.stream.borrow_mut().read_vectored_by(buffers, deadline)
    }

    fn object(&self) -> &str {
        &self.object
    }
}

impl<T: ByteWriter> ByteWriter for Half<T> {
    fn write_vectored_by(&mut self, buffers: &[IoSlice<'_>], deadline: Deadline) -> Result<usize> {
        self.stream.borrow_mut().write_vectored_by(buffers, deadline)
    }

    fn object(&self) -> &str {
        &self.object
    }
}

/// A stream as a reader and a writer.
pub(super) fn halves<T: ByteReader + ByteWriter>(both: T) -> (impl ByteReader, impl ByteWriter) {
    let object = ByteReader::object(&both).to_owned();
    let stream = Rc::new(RefCell::new(both));
    (Half { stream: Rc::clone(&stream), object: object.clone() }, Half { stream, object })
}

/// Both directions of an object that has both.
pub(super) fn ends<T: Sender + Receiver + 'static>(both: T) -> Ends {
    let both = Rc::new(RefCell::new(both));
    Ends::new(Shared(Rc::clone(&both)), Shared(both))
}

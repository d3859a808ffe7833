//! Messages over byte streams.

use std::os::fd::AsFd;

use onecopy::stream::framed::{FramedReceiver, FramedSender};
use onecopy::stream::{ByteReader, ByteWriter};

use super::{Ends, plain};
use crate::control::Layer;

/// Both directions over streams of their own.
pub(super) fn ends<R, W>(reader: R, writer: W, layer: Layer) -> Ends
where
    R: ByteReader + AsFd + 'static,
    W: ByteWriter + AsFd + 'static,
{
    match layer {
        Layer::Ours => {
            Ends { sender: Box::new(FramedSender::new(writer)), receiver: Box::new(FramedReceiver::new(reader)) }
        }
        Layer::Plain => Ends { sender: Box::new(plain::Stream(writer)), receiver: Box::new(plain::Stream(reader)) },
    }
}

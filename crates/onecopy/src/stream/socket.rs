//! What the connections of sockets share: both traits, for the owner and for a reference, which two threads can hold.

macro_rules! socket_stream {
    ($($stream:ty),+) => {$(
        impl $crate::stream::ByteReader for $stream {
            fn read_vectored_by(
                &mut self,
                buffers: &mut [std::io::IoSliceMut<'_>],
                deadline: $crate::Deadline,
            ) -> $crate::Result<usize> {
                self.socket.read_stream_by(buffers, deadline)
            }

            fn object(&self) -> &str {
                self.socket.object()
            }
        }

        impl $crate::stream::ByteWriter for $stream {
            fn write_vectored_by(
                &mut self,
                buffers: &[std::io::IoSlice<'_>],
                deadline: $crate::Deadline,
            ) -> $crate::Result<usize> {
                self.socket.write_stream_by(buffers, deadline)
            }

            fn object(&self) -> &str {
                self.socket.object()
            }
        }
    )+};
}

pub(super) use socket_stream;

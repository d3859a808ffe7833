//! What the streams with two directions share: both traits, for the owner and for a reference, which two threads can hold.

macro_rules! duplex_stream {
    ($field:ident: $($stream:ty),+) => {$(
        impl $crate::stream::ByteReader for $stream {
            fn read_vectored_by(
                &mut self,
                buffers: &mut [std::io::IoSliceMut<'_>],
                deadline: $crate::Deadline,
            ) -> $crate::Result<usize> {
                self.$field.read_stream_by(buffers, deadline)
            }

            fn object(&self) -> &str {
                self.$field.object()
            }
        }

        impl $crate::stream::ByteWriter for $stream {
            fn write_vectored_by(
                &mut self,
                buffers: &[std::io::IoSlice<'_>],
                deadline: $crate::Deadline,
            ) -> $crate::Result<usize> {
                self.$field.write_stream_by(buffers, deadline)
            }

            fn finish_by(&mut self, deadline: $crate::Deadline) -> $crate::Result<()> {
                self.$field.finish_stream_by(deadline)
            }

            fn object(&self) -> &str {
                self.$field.object()
            }
        }
    )+};
}

pub(super) use duplex_stream;

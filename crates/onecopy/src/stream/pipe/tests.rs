//! Frames, and what becomes of them, without a pipe.

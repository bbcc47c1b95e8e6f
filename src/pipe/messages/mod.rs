//! Messages of any length through a pipe, many of them in one write.

mod reader;
mod writer;

pub use reader::MessageReader;
pub use writer::MessageWriter;

use super::buffered::BUFFER;
use super::{PipeReader, PipeWriter};

//! RTP and its companions as values: bytes in, values out, and back.
//!
//! Nothing here does I/O, keeps time or allocates on the per-packet path. Parsers take a slice and return
//! borrowed views or small `Copy` values; builders write into a buffer their caller owns. Every parser is total:
//! whatever a peer sends, the answer is a value or `None`/an error, never a panic.

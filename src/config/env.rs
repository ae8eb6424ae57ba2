//! The environment variables and files that a configuration refers to.

/// Functions that read environment variables and files.
pub struct Surroundings<'e> {
    /// Returns the value of an environment variable, if it is set.
    pub env: &'e dyn Fn(&str) -> Option<String>,
    /// Reads a file.
    pub file: &'e dyn Fn(&str) -> std::io::Result<Vec<u8>>,
}

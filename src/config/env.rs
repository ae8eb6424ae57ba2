//! The environment variables and files that a configuration refers to.

/// Functions that read environment variables and files.
pub struct Surroundings<'e> {
    /// Returns the value of an environment variable, or `None` if the variable is not set.
    pub env: &'e dyn Fn(&str) -> Option<String>,
    /// Reads the file at a path.
    pub file: &'e dyn Fn(&str) -> std::io::Result<Vec<u8>>,
}

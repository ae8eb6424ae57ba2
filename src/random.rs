//! Ids that cannot be guessed.

/// Returns random bytes. Returns `None` if the operating system cannot provide random numbers.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// Returns a new id: `prefix` and 128 random bits in base32. Returns `None` if the operating system cannot provide
/// random numbers.
pub fn new_id(prefix: &str) -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(format!("{prefix}{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()))
}

/// Returns a random number that need not be secret. Returns 0 if the operating system cannot provide random numbers.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Returns a random UUID (RFC 9562 version 4). Returns `None` if the operating system cannot provide random numbers.
pub fn new_uuid() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    let mut text = data_encoding::HEXLOWER.encode(&bytes);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_form() {
        let (id, other) = (new_id("int_").unwrap(), new_id("int_").unwrap());
        assert!(id.starts_with("int_") && id.len() == 30 && id != other);
        let uuid = new_uuid().unwrap();
        assert_eq!(uuid.len(), 36);
        assert_eq!((&uuid[14..15], "89ab".contains(&uuid[19..20])), ("4", true), "{uuid}");
    }
}

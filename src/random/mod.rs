//! Random bytes and ids that cannot be guessed.

#[cfg(test)]
#[cfg_attr(not(feature = "proxy"), allow(dead_code, reason = "the simulation needs the proxy"))]
pub(crate) mod splitmix;

/// Returns random bytes. Returns `None` if the operating system cannot provide random numbers.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Some(bytes)
}

/// Returns a new random id: `prefix`, followed by 128 random bits in base32. Returns `None` if the operating system
/// cannot provide random numbers.
pub fn new_id(prefix: &str) -> Option<String> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    Some(format!("{prefix}{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()))
}

/// Returns a random number that need not be secret. Returns 0 if the operating system cannot provide random numbers.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    let _ = fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Returns a random UUID (RFC 9562 version 4). Returns `None` if the operating system cannot provide random numbers.
pub fn new_uuid() -> Option<String> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    let mut text = data_encoding::HEXLOWER.encode(&bytes);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    Some(text)
}

fn fill(bytes: &mut [u8]) -> Option<()> {
    #[cfg(test)]
    if repeatable::fill(bytes) {
        return Some(());
    }
    getrandom::fill(bytes).ok()
}

/// Reproducible random numbers for simulations. They depend only on a seed.
#[cfg(test)]
pub(crate) mod repeatable {
    use std::cell::Cell;

    use super::splitmix::Random;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Sets the source of all random numbers of this thread. With a seed, the source is a reproducible generator with
    /// this seed. Without a seed, the source is the operating system.
    pub(crate) fn set(seed: Option<u64>) {
        STATE.set(seed);
    }

    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        let Some(state) = STATE.get() else { return false };
        let mut random = Random(state);
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
        STATE.set(Some(random.0));
        true
    }
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

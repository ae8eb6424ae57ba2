//! Stale progress: progress that is lower than previously reported progress, or that arrives after a final callback.

use super::state::State;

/// What Callgate does with stale progress: progress that is lower than previously reported progress, or that arrives
/// after a final callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stale {
    /// The callback is delivered, even after a final callback.
    Deliver,
    /// The callback is not delivered. The caller receives status 200.
    Drop,
}

/// Reports whether the progress of a callback is lower than `highest`, the highest progress that earlier callbacks
/// reported. Returns false for a final callback.
pub(super) fn is_lower(highest: Option<f64>, reported: Option<f64>, is_final: bool) -> bool {
    !is_final && matches!((highest, reported), (Some(highest), Some(reported)) if reported < highest)
}

/// Returns true if a callback reports progress after the final callback, and the route has a rule for stale progress.
/// Without a rule, the interaction accepts no callback after the final callback.
pub(super) fn is_after_final(state: State, is_progress: bool, rule: Option<Stale>) -> bool {
    matches!(state, State::Done | State::Failed) && is_progress && rule.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_progress_is_lower() {
        assert!(is_lower(Some(50.0), Some(49.5), false));
        for (highest, reported, is_final) in [
            (Some(50.0), Some(50.0), false),
            (Some(50.0), Some(51.0), false),
            (Some(50.0), Some(49.0), true),
            (Some(50.0), None, false),
            (None, Some(0.0), false),
        ] {
            assert!(!is_lower(highest, reported, is_final), "{highest:?} {reported:?} {is_final}");
        }
    }

    #[test]
    fn progress_after_a_final_callback_needs_a_rule() {
        for state in [State::Done, State::Failed] {
            assert!(is_after_final(state, true, Some(Stale::Drop)));
            assert!(is_after_final(state, true, Some(Stale::Deliver)));
            assert!(!is_after_final(state, true, None));
            assert!(!is_after_final(state, false, Some(Stale::Deliver)));
        }
        for state in [State::Open, State::Revoked, State::Expired] {
            assert!(!is_after_final(state, true, Some(Stale::Deliver)), "{state:?}");
        }
    }
}

//! Cases in which something must have come before the next thing is sent.

use super::{CLOSED, Expect, PATIENCE, PROTOCOL, REFUSED, Stepwise, data, dummy, get, ping, priority};
use crate::h2_wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Event, HEADERS, RST_STREAM, SETTINGS, Wire, frame,
    settings, window_update,
};

/// Waits for an event.
fn until(wire: &mut Wire, wanted: impl Fn(&Event) -> bool) -> Option<()> {
    loop {
        match wire.next(PATIENCE) {
            Event::Closed | Event::Nothing => return None,
            event if wanted(&event) => return Some(()),
            _ => {}
        }
    }
}

/// Waits for the end of the answer.
fn answered(wire: &mut Wire) -> Option<()> {
    until(wire, |event| {
        ((event.is(DATA) || event.is(HEADERS)) && event.has(END_STREAM))
            || (event.is(RST_STREAM) && event.code() == Some(0))
    })
}

/// Sends settings and waits until they hold.
fn set(wire: &mut Wire, pairs: &[(u16, u32)]) -> Option<()> {
    wire.send(&settings(pairs));
    until(wire, |event| event.is(SETTINGS) && event.has(ACK))
}

/// SETTINGS_INITIAL_WINDOW_SIZE.
const WINDOW: u16 = 4;
/// SETTINGS_MAX_CONCURRENT_STREAMS.
const STREAMS: u16 = 3;

pub(super) const CASES: &[Stepwise] = &[
    (
        "generic/2/2 WINDOW_UPDATE on half-closed",
        |wire| {
            set(wire, &[(WINDOW, 0)])?;
            wire.send(&get(1));
            until(wire, |event| event.is(HEADERS))?;
            wire.send(&window_update(1, 1));
            Some(())
        },
        Expect::Data(None),
    ),
    (
        "generic/2/3 PRIORITY on half-closed",
        |wire| {
            set(wire, &[(WINDOW, 0)])?;
            wire.send(&get(1));
            until(wire, |event| event.is(HEADERS))?;
            wire.send(&[priority(1, 0, 0), window_update(1, 1)].concat());
            Some(())
        },
        Expect::Data(None),
    ),
    (
        "generic/2/5 PRIORITY on closed",
        |wire| {
            wire.send(&get(1));
            answered(wire)?;
            wire.send(&[priority(1, 0, 0), ping(1)].concat());
            Some(())
        },
        Expect::Ping(1),
    ),
    (
        "http2/5.1/11 closed: DATA",
        |wire| {
            wire.send(&get(1));
            answered(wire)?;
            wire.send(&data(1, END_STREAM, b"test"));
            Some(())
        },
        Expect::Stream(&[CLOSED]),
    ),
    (
        "http2/5.1/12 closed: HEADERS",
        |wire| {
            wire.send(&get(1));
            answered(wire)?;
            wire.send(&get(1));
            Some(())
        },
        Expect::Connection(&[CLOSED]),
    ),
    (
        "http2/5.1/13 closed: CONTINUATION",
        |wire| {
            wire.send(&get(1));
            answered(wire)?;
            wire.send(&frame(CONTINUATION, END_HEADERS, 1, &dummy()));
            Some(())
        },
        Expect::Connection(&[CLOSED, PROTOCOL]),
    ),
    (
        "http2/5.1.2/1 more streams than allowed",
        |wire| {
            let allowed = wire.settings.iter().find(|(id, _)| *id == STREAMS).map(|(_, value)| *value)?;
            wire.send(&settings(&[(WINDOW, 0)]));
            wire.send(&(0..=allowed).flat_map(|number| get(number * 2 + 1)).collect::<Vec<_>>());
            Some(())
        },
        Expect::Stream(&[PROTOCOL, REFUSED]),
    ),
    (
        "http2/6.5.3/1 the last value of a setting holds",
        |wire| {
            set(wire, &[(WINDOW, 100), (WINDOW, 1)])?;
            wire.send(&get(1));
            Some(())
        },
        Expect::Data(Some(1)),
    ),
    (
        "http2/6.9.1/1 a window of 1",
        |wire| {
            set(wire, &[(WINDOW, 1)])?;
            wire.send(&get(1));
            Some(())
        },
        Expect::Data(Some(1)),
    ),
    (
        "http2/6.9.2/1 the window changes behind HEADERS",
        |wire| {
            set(wire, &[(WINDOW, 0)])?;
            wire.send(&get(1));
            wire.send(&settings(&[(WINDOW, 1)]));
            Some(())
        },
        Expect::Data(Some(1)),
    ),
    (
        "http2/6.9.2/2 a negative window",
        |wire| {
            set(wire, &[(WINDOW, 3)])?;
            wire.send(&get(1));
            until(wire, |event| event.is(DATA))?;
            set(wire, &[(WINDOW, 2)])?;
            wire.send(&window_update(1, 2));
            Some(())
        },
        Expect::Data(Some(1)),
    ),
];

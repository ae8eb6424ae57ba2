//! Classifies the errors of a call: whether the script may have been executed, and where to repeat the call.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// The description of the error that too few replicas have confirmed a change.
pub(in crate::store::redis) const TOO_FEW_REPLICAS: &str = "too few replicas confirmed the change";

/// The consequence of an error for the next attempt of a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::store::redis) enum Fault {
    /// The slot of the keys is being moved. The keys are already on the node with this address.
    Asked(Box<str>),
    /// The script was not executed. Another node may have the keys.
    Elsewhere,
    /// The script was not executed. The same node can execute the script soon.
    NotNow,
    /// The script was not executed. Another attempt is useless until an operator repairs the Redis server.
    Refused,
    /// The script may have been executed.
    Unknown,
}

/// The failure of a call, which therefore has no result.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::store::redis) struct Failure {
    /// Whether the script may have been executed, or may still be executed.
    pub(in crate::store::redis) may_have_happened: bool,
    /// The address of the node that has no memory for the change, if this is the reason for the failure.
    pub(in crate::store::redis) full_node: Option<Box<str>>,
    /// An explanation for the log.
    pub(in crate::store::redis) reason: String,
}

impl Failure {
    pub(in crate::store::redis) fn of(error: &RedisError, address: &str) -> Self {
        let may_have_happened = classify(error) == Fault::Unknown;
        let reason = format!("{address}: {error}");
        // Redis 6.2 reports the errors of commands in a script with another code.
        let is_full = error.code() == Some("OOM") || reason.contains("OOM command not allowed");
        Self { may_have_happened, full_node: is_full.then(|| address.into()), reason }
    }

    pub(in crate::store::redis) fn unknown(reason: &str) -> Self {
        Self { may_have_happened: true, full_node: None, reason: reason.to_owned() }
    }

    pub(in crate::store::redis) fn not_executed(reason: String) -> Self {
        Self { may_have_happened: false, full_node: None, reason }
    }

    pub(in crate::store::redis) fn refused(reason: &str) -> Self {
        Self::not_executed(reason.to_owned())
    }
}

/// Classifies an error by its consequence for the next attempt.
pub(in crate::store::redis) fn classify(error: &RedisError) -> Fault {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Ask) => match error.redirect_node() {
            Some((address, _)) => Fault::Asked(address.into()),
            None => Fault::NotNow,
        },
        ErrorKind::Server(
            ServerErrorKind::Moved
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown,
        ) => Fault::Elsewhere,
        ErrorKind::Server(ServerErrorKind::TryAgain | ServerErrorKind::BusyLoading) => Fault::NotNow,
        ErrorKind::Io if error.is_connection_refusal() => Fault::Elsewhere,
        ErrorKind::Io | ErrorKind::Parse => Fault::Unknown,
        ErrorKind::Client if error.to_string().contains(TOO_FEW_REPLICAS) => Fault::Unknown,
        _ if error.code() == Some("CLUSTERDOWN") => Fault::Elsewhere,
        // Errors such as OOM, NOREPLICAS, MISCONF, NOPERM and WRONGPASS are refusals.
        _ => Fault::Refused,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn server(line: &str) -> RedisError {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(redis::Value::ServerError(error)) => error.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errors_say_whether_a_script_may_have_been_executed() {
        for (line, fault) in [
            ("MOVED 7 10.0.0.1:7001", Fault::Elsewhere),
            ("ASK 7 10.0.0.1:7001", Fault::Asked("10.0.0.1:7001".into())),
            ("READONLY You can't write against a read only replica.", Fault::Elsewhere),
            ("CLUSTERDOWN Hash slot not served", Fault::Elsewhere),
            ("MASTERDOWN Link with MASTER is down", Fault::Elsewhere),
            ("LOADING Redis is loading the dataset in memory", Fault::NotNow),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Fault::NotNow),
            ("OOM command not allowed when used memory > 'maxmemory'.", Fault::Refused),
            ("NOREPLICAS Not enough good replicas to write.", Fault::Refused),
            ("MISCONF Errors writing to the AOF file", Fault::Refused),
            ("NOAUTH Authentication required.", Fault::Refused),
            ("NOPERM this user has no permissions", Fault::Refused),
        ] {
            assert_eq!(classify(&server(line)), fault, "{line}");
            let full = Failure::of(&server(line), "a:1").full_node;
            assert_eq!(full.as_deref(), line.starts_with("OOM").then_some("a:1"), "{line}");
        }
        let of_script = "ERR Error running script (call to f_1): @user_script: 4: -OOM command not allowed when used memory";
        assert!(Failure::of(&server(of_script), "a:1").full_node.is_some());
        for kind in [io::ErrorKind::TimedOut, io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
            let error = RedisError::from(io::Error::from(kind));
            assert!(Failure::of(&error, "a:1").may_have_happened, "{kind}");
        }
        let refused = RedisError::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(classify(&refused), Fault::Elsewhere);
        assert_eq!(classify(&RedisError::from((ErrorKind::Client, TOO_FEW_REPLICAS))), Fault::Unknown);
    }
}

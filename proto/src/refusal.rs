//! Owns refusals: their texts, their encoding in gRPC, and the table from reasons to codes.
//!
//! Makes no decisions: the caller provides the reason. Runtimes print the texts in their error line, so each text is
//! one line.

use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};

use crate::v1;
pub use crate::v1::Reason;

/// The maximum length of a text in bytes. Details are sent as a header, whose size both sides of HTTP/2 limit.
const TEXT_MAX: usize = 1024;

/// A refused request: the reason, the evidence, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Refusal {
    /// Programs depend only on this.
    pub reason: Reason,
    /// One sentence: what was refused and the evidence, with operands.
    pub cause: String,
    /// One sentence: the remedy; empty if there is none.
    pub remedy: String,
    /// When a retry can succeed; `None` if it cannot.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with texts that are safe for every reader: one line, bounded, and without the words for which
    /// containerd's go-cni treats a failed DEL as a success ("not found" and "no such file or directory").
    #[must_use]
    pub fn new(reason: Reason, cause: &str, remedy: &str, retry_after: Option<Duration>) -> Self {
        Self {
            reason,
            cause: safe_text(cause),
            remedy: safe_text(remedy),
            retry_after,
        }
    }

    /// Parses a refusal. Details that are absent, broken or of a newer contract still give a refusal, from the status's
    /// own code and message.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let by_code = reason_of_code(status.code());
        let details = Some(status.details()).filter(|details| !details.is_empty());
        let Some(wire) = details.and_then(|details| v1::Refusal::decode(details).ok()) else {
            let cause = match status.message() {
                "" => format!("the daemon answered {:?} without a reason", status.code()),
                message => message.to_owned(),
            };
            return Self::new(by_code, &cause, "", None);
        };
        let reason = match wire.reason() {
            Reason::Unspecified => by_code,
            reason => reason,
        };
        let cause = match wire.cause.as_str() {
            "" => status.message(),
            cause => cause,
        };
        let retry_after = (wire.retry_after_ms > 0)
            .then(|| Duration::from_millis(u64::from(wire.retry_after_ms)));
        Self::new(reason, cause, &wire.remedy, retry_after)
    }

    /// The CNI error code of this refusal.
    #[must_use]
    pub fn cni_code(&self) -> u32 {
        cni_code(self.reason)
    }

    /// The text after the cause: the remedy, the name of the reason (as in metrics, log and catalogue), and when to try
    /// again.
    #[must_use]
    pub fn advice(&self) -> String {
        let name = self.reason.as_str_name();
        let when = self
            .retry_after
            .map(|after| {
                let milliseconds = after.as_millis().max(1);
                #[expect(clippy::cast_precision_loss, reason = "a waiting time, for people")]
                let seconds = milliseconds as f64 / 1e3;
                format!(", try again after {seconds} s")
            })
            .unwrap_or_default();
        let space = if self.remedy.is_empty() { "" } else { " " };
        format!("{}{space}({name}{when})", self.remedy)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        // The fields are public, so the texts are made safe here too.
        let refusal = Refusal::new(
            refusal.reason,
            &refusal.cause,
            &refusal.remedy,
            refusal.retry_after,
        );
        let retry_after_ms = refusal.retry_after.map_or(0, |after| {
            u32::try_from(after.as_millis()).unwrap_or(u32::MAX).max(1)
        });
        let details = v1::Refusal {
            reason: refusal.reason.into(),
            cause: refusal.cause.clone(),
            remedy: refusal.remedy,
            retry_after_ms,
        };
        let code = row(refusal.reason).0;
        Self::with_details(code, refusal.cause, details.encode_to_vec().into())
    }
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        Self::from_status(status)
    }
}

/// The CNI error code of a reason: 3, 5, 7, 8 and 11 as defined by the CNI specification, from 100 our own.
#[must_use]
pub fn cni_code(reason: Reason) -> u32 {
    row(reason).1
}

/// The gRPC status code of a reason.
#[must_use]
pub fn grpc_code(reason: Reason) -> Code {
    row(reason).0
}

/// Whether the same request may succeed later without a change of the request.
#[must_use]
pub fn is_retryable(reason: Reason) -> bool {
    cni_code(reason) == TRY_AGAIN
}

const TRY_AGAIN: u32 = 11;

/// The table: reason → (gRPC code, CNI code). 11 is for everything that a retry may solve, even if an operator must act
/// first: the runtime tries again anyway, and the text informs the operator.
fn row(reason: Reason) -> (Code, u32) {
    match reason {
        Reason::Unspecified => (Code::Internal, 999),
        Reason::Starting => (Code::Unavailable, TRY_AGAIN),
        Reason::Stopping => (Code::Unavailable, TRY_AGAIN),
        Reason::PodLimit => (Code::ResourceExhausted, TRY_AGAIN),
        Reason::PoolEmpty => (Code::ResourceExhausted, TRY_AGAIN),
        Reason::SubnetExhausted => (Code::ResourceExhausted, TRY_AGAIN),
        Reason::Ec2Throttled => (Code::Unavailable, TRY_AGAIN),
        Reason::Ec2Denied => (Code::PermissionDenied, TRY_AGAIN),
        Reason::Ec2Refused => (Code::FailedPrecondition, TRY_AGAIN),
        Reason::Ec2Unreachable => (Code::Unavailable, TRY_AGAIN),
        Reason::EniLimit => (Code::ResourceExhausted, TRY_AGAIN),
        Reason::NoSubnet => (Code::FailedPrecondition, TRY_AGAIN),
        Reason::Busy => (Code::Aborted, TRY_AGAIN),
        Reason::HostPortInUse => (Code::FailedPrecondition, TRY_AGAIN),
        Reason::SandboxDeleted => (Code::FailedPrecondition, 3),
        Reason::Store => (Code::Internal, 5),
        Reason::InvalidRequest => (Code::InvalidArgument, 7),
        Reason::NetnsInvalid => (Code::InvalidArgument, 8),
        Reason::UnknownSandbox => (Code::NotFound, 100),
        Reason::Drift => (Code::FailedPrecondition, 101),
        Reason::InterfaceExists => (Code::AlreadyExists, 102),
        Reason::Datapath => (Code::Internal, 103),
    }
}

/// The most likely reason of a status without usable details.
fn reason_of_code(code: Code) -> Reason {
    match code {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted
        | Code::ResourceExhausted => Reason::Busy,
        Code::InvalidArgument => Reason::InvalidRequest,
        _ => Reason::Unspecified,
    }
}

/// Converts a text to one bounded line that no runtime treats as success; see [`Refusal::new`].
#[must_use]
pub fn safe_text(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut line = line
        .replace("not found", "absent")
        .replace("no such file or directory", "path is absent")
        .replace("No such file or directory", "path is absent");
    line.truncate(line.floor_char_boundary(TEXT_MAX));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons() -> impl Iterator<Item = Reason> {
        (0..).map_while(|number| Reason::try_from(number).ok())
    }

    #[test]
    fn every_reason_survives_the_round_trip() {
        assert_eq!(reasons().count(), 22);
        for reason in reasons().skip(1) {
            let refusal = Refusal::new(
                reason,
                "10.0.0.7 is gone",
                "look again",
                Some(Duration::from_millis(1500)),
            );
            let status = Status::from(refusal.clone());
            assert_eq!(status.code(), grpc_code(reason));
            assert_eq!(Refusal::from_status(&status), refusal, "{reason:?}");
        }
    }

    #[test]
    fn codes_are_those_of_the_specification_or_our_own() {
        for reason in reasons() {
            let code = cni_code(reason);
            assert!(
                [3, 5, 7, 8, 11, 999].contains(&code) || (100..200).contains(&code),
                "{reason:?} has {code}"
            );
            assert_ne!(grpc_code(reason), Code::Ok, "{reason:?}");
        }
        assert_eq!(cni_code(Reason::NetnsInvalid), 8);
        assert_eq!(cni_code(Reason::InvalidRequest), 7);
        assert_eq!(cni_code(Reason::Starting), 11);
    }

    #[test]
    fn own_codes_are_distinct() {
        let mut own: Vec<u32> = reasons().map(cni_code).filter(|c| *c >= 100).collect();
        let all = own.len();
        own.sort_unstable();
        own.dedup();
        assert_eq!(own.len(), all);
    }

    #[test]
    fn status_without_details_is_still_usable() {
        let refusal = Refusal::from_status(&Status::unavailable("transport error"));
        assert_eq!(refusal.reason, Reason::Busy);
        assert_eq!(refusal.cni_code(), 11);
        assert_eq!(refusal.cause, "transport error");

        let refusal = Refusal::from_status(&Status::new(Code::Unimplemented, ""));
        assert_eq!(refusal.cni_code(), 999);
        assert!(refusal.cause.contains("Unimplemented"));
    }

    #[test]
    fn undecodable_details_fall_back_to_code_and_message() {
        let status = Status::with_details(Code::InvalidArgument, "odd", vec![0xff; 9].into());
        let refusal = Refusal::from_status(&status);
        assert_eq!(
            (refusal.reason, refusal.cause.as_str()),
            (Reason::InvalidRequest, "odd")
        );
    }

    #[test]
    fn reason_of_a_newer_daemon_keeps_its_texts() {
        let details = v1::Refusal {
            reason: 4711,
            cause: "a new cause".to_owned(),
            remedy: "a new remedy".to_owned(),
            retry_after_ms: 0,
        };
        let status =
            Status::with_details(Code::ResourceExhausted, "m", details.encode_to_vec().into());
        let refusal = Refusal::from_status(&status);
        assert_eq!(refusal.reason, Reason::Busy);
        assert_eq!(refusal.cause, "a new cause");
        assert_eq!(refusal.remedy, "a new remedy");
        assert_eq!(refusal.retry_after, None);
    }

    #[test]
    fn advice_names_remedy_reason_and_time() {
        let advice = |remedy, after| Refusal::new(Reason::PoolEmpty, "x", remedy, after).advice();
        let after = |ms| Some(Duration::from_millis(ms));
        assert_eq!(
            advice("wait", after(1500)),
            "wait (POOL_EMPTY, try again after 1.5 s)"
        );
        assert_eq!(advice("wait", None), "wait (POOL_EMPTY)");
        assert_eq!(
            advice("", after(0)),
            "(POOL_EMPTY, try again after 0.001 s)"
        );
    }

    #[test]
    fn texts_that_make_a_runtime_ignore_errors_are_replaced() {
        for reason in reasons() {
            let refusal = Refusal {
                reason,
                cause: "pod not found,\nretry".to_owned(),
                remedy: "open: No such file or directory".to_owned(),
                retry_after: None,
            };
            let status = Status::from(refusal);
            let read = Refusal::from_status(&status);
            for text in [status.message(), &read.cause, &read.remedy] {
                assert!(!text.contains("not found"), "{text}");
                assert!(!text.to_lowercase().contains("no such file"), "{text}");
                assert!(!text.contains('\n'), "{text}");
            }
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let refusal = Refusal::new(Reason::Busy, &"é".repeat(5000), "", None);
        assert!(refusal.cause.len() <= TEXT_MAX);
        assert!(refusal.cause.ends_with('é'));
    }

    #[test]
    fn retry_after_saturates_and_never_becomes_zero() {
        let read = |after| {
            let refusal = Refusal::new(Reason::Busy, "x", "", Some(after));
            Refusal::from_status(&Status::from(refusal)).retry_after
        };
        assert_eq!(
            read(Duration::from_micros(3)),
            Some(Duration::from_millis(1))
        );
        assert_eq!(
            read(Duration::MAX),
            Some(Duration::from_millis(u64::from(u32::MAX)))
        );
    }
}

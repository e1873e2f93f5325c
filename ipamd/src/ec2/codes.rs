//! What each error code of EC2 means for the pool, and what helps.
//!
//! [`table`] has the codes. [`super::classify`] uses them for the pool's calls, and `ipamd doctor` for its dry runs. No
//! I/O, no decisions: the planner decides what follows from a class.
//!
//! May use the planner's words for a class. Must not know calls or the client that makes them.

mod table;

use planner::event::Rest;

pub use self::table::TABLE;

/// The meaning of a code, in the planner's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Throttled,
    /// The subnet has no free address.
    NoAddress,
    /// The subnet has no free block for a prefix.
    NoBlock,
    /// One of the two, depending on the request.
    NoRoom,
    /// The instance or the interface is full.
    Limit,
    NotFound,
    InUse,
    /// By IAM.
    Denied,
    Refused(Rest),
    /// An error of EC2 itself. A call that changes something may have taken effect.
    Internal,
}

impl Meaning {
    /// Its name in `docs/ec2-errors.md`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::NoAddress => "no address",
            Self::NoBlock => "no block",
            Self::NoRoom => "no room",
            Self::Limit => "limit",
            Self::NotFound => "not found",
            Self::InUse => "in use",
            Self::Denied => "denied",
            Self::Refused(Rest::Long) => "refused",
            Self::Refused(Rest::Short) => "refused for now",
            Self::Internal => "internal",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub code: &'static str,
    /// The row is only for messages that contain this. EC2 uses a few codes for many reasons.
    pub saying: Option<&'static str>,
    pub meaning: Meaning,
    /// What EC2 says with it.
    pub text: &'static str,
    /// What helps. `{region}` stands for the node's region.
    pub remedy: &'static str,
}

impl Row {
    /// What helps a node in this region.
    #[must_use]
    pub fn remedy_in(&self, region: &str) -> String {
        self.remedy.replace("{region}", region)
    }
}

/// What helps against a code that is in no row.
const UNKNOWN: Row = Row {
    code: "",
    saying: None,
    meaning: Meaning::Refused(Rest::Short),
    text: "any other code",
    remedy: "EC2's message says why; if it does not, look the code up in EC2's list of error codes",
};

const QUOTA: Row = Row {
    meaning: Meaning::Refused(Rest::Long),
    text: "a quota of the account is used up",
    remedy: "raise the quota that EC2's message names in the Service Quotas console of {region}",
    ..UNKNOWN
};

const MISSING: Row = Row {
    meaning: Meaning::NotFound,
    text: "something that the call names does not exist",
    remedy: "find out who deleted what EC2's message names: CloudTrail has the caller",
    ..UNKNOWN
};

const MALFORMED: Row = Row {
    meaning: Meaning::Refused(Rest::Long),
    text: "an id is malformed",
    remedy: table::DEFECT,
    ..UNKNOWN
};

/// The code as EC2's documentation spells it: CloudTrail and some SDK layers add a prefix.
#[must_use]
pub fn plain(code: &str) -> &str {
    let code = code.strip_prefix("Client.").unwrap_or(code);
    code.strip_prefix("Server.").unwrap_or(code)
}

/// The row for a code with this message.
#[must_use]
pub fn row(code: &str, message: &str) -> Row {
    let code = plain(code);
    let fits = |row: &&Row| row.saying.is_none_or(|words| message.contains(words));
    let mut rows = TABLE.iter().filter(|row| row.code == code);
    if let Some(row) = rows.find(fits) {
        return *row;
    }
    // New codes follow the pattern of the old ones.
    if code.ends_with("LimitExceeded") {
        QUOTA
    } else if code.ends_with(".NotFound") {
        MISSING
    } else if code.ends_with(".Malformed") {
        MALFORMED
    } else {
        UNKNOWN
    }
}

/// The code if the table has it: a metric's label must not contain arbitrary text from a proxy.
#[must_use]
pub fn bounded(code: &str) -> &'static str {
    let code = plain(code);
    let known = TABLE.iter().find(|row| row.code == code);
    known.map_or("other", |row| row.code)
}

#[cfg(test)]
mod tests;

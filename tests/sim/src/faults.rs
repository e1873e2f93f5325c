//! The kinds of faults in the simulation, and how often each of them happened.

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A kind of fault (rows of the fault model in brackets).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $name),* }

        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$name),*];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

faults! {
    /// The call takes effect, and its answer is lost [1, 3, 8].
    LostReply = "reply lost",
    /// EC2 never receives the call, and the caller cannot know [15].
    Unsent = "request lost",
    /// No connection [15].
    Refused = "connection refused",
    /// The call takes effect, and its answer is unreadable [15].
    Truncated = "answer truncated",
    /// 5xx without effect [15].
    Internal = "internal error",
    /// 5xx although the call took effect [15].
    InternalApplied = "internal error, applied",
    /// Everything is throttled [13].
    Throttled = "throttled",
    /// Other callers empty the account's buckets [13].
    Buckets = "bucket empty",
    /// IAM denies one action [14].
    Denied = "denied",
    /// EC2 refuses one action for a reason that somebody must remove: a quota, the account, a setting [53].
    Lasting = "call refused",
    /// Others use every free address [12].
    Exhausted = "subnet exhausted",
    /// There is no free /28 [11].
    Fragmented = "subnet fragmented",
    /// A new ENI is not found [16].
    Fresh = "fresh ENI not found",
    /// A list shows an older state, different for each ENI [16].
    Stale = "stale list",
    /// Fewer addresses than requested [9].
    Partial = "partial assign",
    /// `attaching` forever [5].
    AttachStall = "attach stalls",
    /// `detaching` until the faults end [21].
    DetachStall = "detach stalls",
    /// The link of an attached ENI appears late [5].
    LinkLate = "link late",
    /// An operator changes the tag of a subnet.
    TagChanged = "tag changed",
    /// An operator changes the node's ENIConfig.
    ClassChanged = "ENIConfig changed",
    /// The host's network refuses an ENI.
    HostFails = "host refuses ENI",
    /// Wiring a pod fails.
    WireFails = "wiring fails",
    /// An ENI that is not ours uses a slot [4, 6, 20].
    ForeignAttach = "foreign ENI attached",
    /// An ENI of an AWS service uses a slot [20].
    ForeignManaged = "managed ENI attached",
    /// Another actor detaches our ENI [18].
    ForeignDetach = "our ENI detached",
    /// Another actor deletes our ENI [18].
    ForeignDelete = "our ENI deleted",
    /// Another actor moves one of our addresses [19].
    Moved = "address moved away",
    /// Another actor unassigns our IPv6 prefix [19].
    PrefixTaken = "prefix unassigned",
    /// Another actor assigns our ENI a second one.
    PrefixAdded = "prefix assigned by others",
    /// The host has an address of ours itself, or a rule of another program decides its way.
    HostTakes = "address claimed by the host",
    /// The host gives such an address up.
    HostDrops = "address left by the host",
    /// An unattached ENI of a previous process [2].
    Leftover = "ENI left over",
    /// The daemon is killed and started again [27].
    Crash = "daemon killed",
    /// A request of the dead daemon still takes effect [2, 27].
    Posthumous = "call outlives daemon",
    /// A pod ends while no daemon runs.
    Orphaned = "pod ends unseen",
    /// The sandbox is deleted while its ADD waits [31].
    CalledOff = "waiting ADD deleted",
    /// The node is cordoned and uncordoned.
    Cordoned = "cordon",
}

/// How often each kind happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally([u64; Fault::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl Tally {
    pub const fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    #[must_use]
    pub const fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Kinds that never happened.
    pub fn missing(&self) -> impl Iterator<Item = Fault> + '_ {
        Fault::ALL
            .iter()
            .copied()
            .filter(|fault| self.of(*fault) == 0)
    }
}

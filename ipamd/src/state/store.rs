//! What must survive a restart: which sandbox has which address. One transaction per change, on disk before any reply.
//!
//! The file belongs to one boot of one machine: namespaces and links do not outlive the kernel, so a file of another
//! boot is moved aside. A lock prevents a second daemon. Makes no decisions about the pool.
//!
//! May use `node`, `runtime` and `telemetry`. Must not know the pool or the kernel.

mod attempts;
pub mod read_only;
pub(crate) mod schema;

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::Ipv4Net;
use nettypes::Asked;
use planner::{
    Demand, EniClass, EniId, EniIndex, Mac, Mono, Observed, Pod, Sandbox, placement::SubnetList,
};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use self::attempts::{FATAL, Lock};
use crate::{node::identity::Identity, runtime::clock, telemetry::metrics::Metrics};

const SANDBOXES: TableDefinition<'_, &str, &str> = TableDefinition::new("sandboxes");
const COOLING: TableDefinition<'_, u32, u64> = TableDefinition::new("cooling");
const COOLING_V6: TableDefinition<'_, u128, u64> = TableDefinition::new("cooling6");
const INTENTS: TableDefinition<'_, &str, &str> = TableDefinition::new("intents");
const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");

/// Keys of the table `about`, in addition to `version` and `boot`.
const IDENTITY: &str = "identity";
const ENIS: &str = "enis";
const VPC_BLOCKS: &str = "vpc_blocks";
const DEMAND: &str = "demand";
const SUBNETS: &str = "subnets";
/// The class of the node's ENIConfig.
const CLASS: &str = "eni_config";

/// The database's cache in bytes: a full node's records. The library's default is 1 GiB.
const CACHE: usize = 1 << 20;

/// The layout of the tables. A file of another version is moved aside.
const VERSION: &str = "1";

/// One wired sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub sandbox: Sandbox,
    pub pod: Pod,
    pub address: IpAddr,
    pub eni: EniId,
    pub index: EniIndex,
    /// The name that the host end shall have. A younger sandbox of the same pod may have it.
    pub host_name: String,
    pub host_mac: Option<Mac>,
    /// `None` if the pod was adopted without a record, as `mtu`.
    pub pod_mac: Option<Mac>,
    /// In bytes.
    pub mtu: Option<u32>,
    /// Another interface of the pod has its default route.
    pub secondary: bool,
    pub asked: Asked,
    /// Its address for destinations of the other family, if it has one.
    pub egress: Option<IpAddr>,
}

impl Record {
    /// Whether it was made from a link whose own record was lost. Not everything about such a pod is known.
    #[must_use]
    pub const fn is_adopted(&self) -> bool {
        self.mtu.is_none()
    }
}

/// The contents of an opened file.
#[derive(Debug, Default)]
pub struct Contents {
    pub records: Vec<Record>,
    pub cooling: Vec<(IpAddr, Mono)>,
    /// The node's identity, if the metadata service was read in this boot.
    pub identity: Option<Identity>,
    /// The last known CIDR blocks of the VPC; empty if never read.
    pub vpc_blocks: Vec<Ipv4Net>,
    /// The pool's ENIs, for serving before EC2 answers.
    pub enis: Vec<Observed>,
    /// The learned demand of pods, in boot time.
    pub demand: Option<Demand>,
    /// What EC2 said about subnets.
    pub subnets: SubnetList,
    /// The class of the node's ENIConfig, if one was known in this boot.
    pub class: Option<EniClass>,
    /// ClientTokens of ENIs that were being created or attached: each may or may not exist now.
    pub intents: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another ipamd holds the lock \"{}\"", path.display())]
    Locked { path: PathBuf },
    #[error("could not {operation} \"{}\"", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("could not {operation} the state file \"{}\"", path.display())]
    Database {
        operation: &'static str,
        path: PathBuf,
        source: Box<redb::Error>,
    },
}

/// The open file.
#[derive(Debug)]
pub struct Store {
    /// None after a failed write: the database does not trust its memory any more, and accepts no changes until it is
    /// opened again.
    database: RefCell<Option<Database>>,
    path: PathBuf,
    /// Records the duration of each transaction.
    metrics: Option<Arc<Metrics>>,
    _lock: Lock,
}

impl Store {
    /// Opens or creates the file for this `boot` (the kernel's boot id).
    ///
    /// A file that cannot be read, is of another version or boot, or on which two consecutive starts died, is renamed
    /// to `<path>.<why>`, and a new one is created.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another daemon runs; otherwise the error of the file system or the database.
    pub fn open(path: &Path, boot: &str) -> Result<(Self, Contents), StoreError> {
        let lock = Lock::take(&path.with_extension("lock"))?;
        let attempt = lock.attempt();
        if attempt.died_before() >= FATAL && path.exists() {
            tracing::error!("two starts in a row died while they opened the state file");
            set_aside(path, "fatal")?;
            attempt.is_the_first();
        }
        let (database, contents) = match usable(path, boot) {
            Ok(opened) => opened,
            Err(Unusable::System(source)) => return Err(unopened(path, source)),
            Err(Unusable::Content(why)) => {
                if path.exists() {
                    set_aside(path, why)?;
                }
                usable(path, boot).map_err(|why| match why {
                    Unusable::System(source) => unopened(path, source),
                    Unusable::Content(why) => unopened(path, io::Error::other(why)),
                })?
            }
        };
        drop(attempt);
        Ok((
            Self {
                database: RefCell::new(Some(database)),
                path: path.to_owned(),
                metrics: None,
                _lock: lock,
            },
            contents,
        ))
    }

    /// Records every transaction from now on.
    #[must_use]
    pub fn counted(self, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics: Some(metrics),
            ..self
        }
    }

    /// Writes one sandbox; durable when this returns.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn put(&self, record: &Record) -> Result<(), StoreError> {
        let (key, value) = (key(&record.sandbox), schema::of_record(record));
        self.change("write", |transaction| {
            transaction
                .open_table(SANDBOXES)?
                .insert(key.as_str(), value.as_str())?;
            match record.address {
                IpAddr::V4(a) => drop(transaction.open_table(COOLING)?.remove(u32::from(a))?),
                IpAddr::V6(a) => drop(transaction.open_table(COOLING_V6)?.remove(u128::from(a))?),
            }
            Ok(())
        })
    }

    /// Removes one sandbox that was never wired; durable when this returns.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn forget(&self, record: &Record) -> Result<(), StoreError> {
        self.change("forget in", |transaction| {
            let mut sandboxes = transaction.open_table(SANDBOXES)?;
            sandboxes.remove(key(&record.sandbox).as_str())?;
            Ok(())
        })
    }

    /// Removes one sandbox and records the end of its address's cooldown; durable when this returns.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn release(&self, record: &Record, cooling_until: Mono) -> Result<(), StoreError> {
        self.change("release in", |transaction| {
            transaction
                .open_table(SANDBOXES)?
                .remove(key(&record.sandbox).as_str())?;
            rest(transaction, record.address, cooling_until)
        })
    }

    /// Records that these addresses have no pod, and the end of the cooldown of each; durable when this returns.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn rest(&self, resting: &[(IpAddr, Mono)]) -> Result<(), StoreError> {
        self.change("note in", |transaction| {
            for (address, until) in resting {
                rest(transaction, *address, *until)?;
            }
            Ok(())
        })
    }

    /// Records that an ENI is being created with this ClientToken; `eni` when EC2 has returned its id.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn intend(&self, token: &str, eni: Option<&EniId>) -> Result<(), StoreError> {
        let eni = eni.map_or("", |eni| eni.0.as_str());
        self.change("note in", |transaction| {
            transaction.open_table(INTENTS)?.insert(token, eni)?;
            Ok(())
        })
    }

    /// Removes the intent with this token, or with this ENI: it is attached, or known not to exist.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn settle(&self, token_or_eni: &str) -> Result<(), StoreError> {
        self.change("note in", |transaction| {
            let mut intents = transaction.open_table(INTENTS)?;
            intents.retain(|token, eni| token != token_or_eni && eni != token_or_eni)?;
            Ok(())
        })
    }

    /// Records the node's identity.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn remember_identity(&self, me: &Identity) -> Result<(), StoreError> {
        self.remember(IDENTITY, &schema::of_identity(me))
    }

    /// Records the VPC's CIDR blocks.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn remember_vpc_blocks(&self, blocks: &[Ipv4Net]) -> Result<(), StoreError> {
        self.remember(VPC_BLOCKS, &schema::of_nets(blocks))
    }

    /// Records the pool's ENIs with their addresses.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn remember_enis(&self, enis: &[Observed]) -> Result<(), StoreError> {
        self.remember(ENIS, &schema::of_enis(enis))
    }

    /// Records the learned demand of pods.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn remember_demand(&self, demand: &Demand) -> Result<(), StoreError> {
        self.remember(DEMAND, &schema::of_demand(demand))
    }

    /// Records what EC2 said about subnets.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn remember_subnets(&self, list: &SubnetList) -> Result<(), StoreError> {
        self.remember(SUBNETS, &schema::of_subnets(list))
    }

    /// Records the class of the node's ENIConfig.
    ///
    /// # Errors
    /// The database's error. Nothing has changed.
    pub fn remember_class(&self, class: &EniClass) -> Result<(), StoreError> {
        match schema::of_class(class) {
            Some(text) => self.remember(CLASS, &text),
            None => Ok(()),
        }
    }

    fn remember(&self, what: &str, text: &str) -> Result<(), StoreError> {
        self.change("note in", |transaction| {
            transaction.open_table(ABOUT)?.insert(what, text)?;
            Ok(())
        })
    }

    fn change(
        &self,
        operation: &'static str,
        body: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let all = || -> Result<(), redb::Error> {
            let mut open = self.database.borrow_mut();
            let database = match open.take() {
                Some(database) => database,
                None => builder().open(&self.path)?,
            };
            let transaction = database.begin_write()?;
            body(&transaction)?;
            transaction.commit()?;
            *open = Some(database);
            Ok(())
        };
        let wrap = |source| StoreError::Database {
            operation,
            path: self.path.clone(),
            source: Box::new(source),
        };
        let begun = clock::now();
        all().map_err(wrap)?;
        if let Some(metrics) = &self.metrics {
            metrics.committed(clock::now().since(begun));
        }
        Ok(())
    }
}

fn rest(
    transaction: &redb::WriteTransaction,
    address: IpAddr,
    until: Mono,
) -> Result<(), redb::Error> {
    let until = u64::try_from(until.since_epoch().as_millis()).unwrap_or(u64::MAX);
    match address {
        IpAddr::V4(a) => drop(
            transaction
                .open_table(COOLING)?
                .insert(u32::from(a), until)?,
        ),
        IpAddr::V6(a) => drop(
            transaction
                .open_table(COOLING_V6)?
                .insert(u128::from(a), until)?,
        ),
    }
    Ok(())
}

fn set_aside(path: &Path, why: &str) -> Result<(), StoreError> {
    let aside = path.with_extension(why);
    tracing::error!(
        path = %path.display(),
        aside = %aside.display(),
        why,
        "the state file is unusable; moved it aside, creating a new one"
    );
    std::fs::rename(path, &aside).map_err(|source| StoreError::Io {
        operation: "set aside",
        path: path.to_owned(),
        source,
    })
}

/// Why a file is unusable.
enum Unusable {
    /// A new file must be created; the text is the extension for this one.
    Content(&'static str),
    /// The system refuses access: no space, no write permission, a broken disk. The contents may be valid.
    System(io::Error),
}

impl From<redb::Error> for Unusable {
    fn from(error: redb::Error) -> Self {
        match error {
            // The database's own errors about the contents have no errno.
            redb::Error::Io(source) if source.raw_os_error().is_some() => Self::System(source),
            _ => Self::Content("corrupt"),
        }
    }
}

fn unopened(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        operation: "open",
        path: path.to_owned(),
        source,
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// Opens the file and reads all of it.
fn usable(path: &Path, boot: &str) -> Result<(Database, Contents), Unusable> {
    // The database trusts the pages of a cleanly closed file, and panics on one that was damaged afterwards.
    let opened = std::panic::catch_unwind(|| opened(path, boot));
    opened.unwrap_or(Err(Unusable::Content("corrupt")))
}

fn opened(path: &Path, boot: &str) -> Result<(Database, Contents), Unusable> {
    let mut database = builder().create(path).map_err(redb::Error::from)?;
    // All checksums, including lists of free pages: damage there would show only in a later commit.
    database.check_integrity().map_err(redb::Error::from)?;
    match about(&database, boot)? {
        (version, _) if version != VERSION => return Err(Unusable::Content("version")),
        (_, written) if written != boot => return Err(Unusable::Content("boot")),
        _ => {}
    }
    let contents = read(&database)?.ok_or(Unusable::Content("corrupt"))?;
    Ok((database, contents))
}

/// The file's version and boot id, written now if it is new.
fn about(database: &Database, boot: &str) -> Result<(String, String), redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        let mut table = transaction.open_table(ABOUT)?;
        let mut ensure = |name: &str, value: &str| -> Result<String, redb::Error> {
            let known = table.get(name)?.map(|known| known.value().to_owned());
            if known.is_none() {
                table.insert(name, value)?;
            }
            Ok(known.unwrap_or_else(|| value.to_owned()))
        };
        (ensure("version", VERSION)?, ensure("boot", boot)?)
    };
    drop(transaction.open_table(SANDBOXES)?);
    drop(transaction.open_table(COOLING)?);
    drop(transaction.open_table(COOLING_V6)?);
    drop(transaction.open_table(INTENTS)?);
    transaction.commit()?;
    Ok(found)
}

fn read(database: &Database) -> Result<Option<Contents>, redb::Error> {
    let transaction = database.begin_read()?;
    let mut contents = Contents::default();
    for entry in transaction.open_table(SANDBOXES)?.iter()? {
        let (_, value) = entry?;
        let Some(record) = schema::to_record(value.value()) else {
            return Ok(None);
        };
        contents.records.push(record);
    }
    let moment = |until| Mono::from_epoch(std::time::Duration::from_millis(until));
    for entry in transaction.open_table(COOLING)?.iter()? {
        let (address, until) = entry?;
        let address = Ipv4Addr::from(address.value());
        contents
            .cooling
            .push((address.into(), moment(until.value())));
    }
    for entry in transaction.open_table(COOLING_V6)?.iter()? {
        let (address, until) = entry?;
        let address = Ipv6Addr::from(address.value());
        contents
            .cooling
            .push((address.into(), moment(until.value())));
    }
    for entry in transaction.open_table(INTENTS)?.iter()? {
        contents.intents.push(entry?.0.value().to_owned());
    }
    let about = transaction.open_table(ABOUT)?;
    let noted = |what| -> Result<Option<String>, redb::Error> {
        Ok(about.get(what)?.map(|text| text.value().to_owned()))
    };
    // Only hints: one that cannot be read is fetched again.
    contents.identity = noted(IDENTITY)?.as_deref().and_then(schema::to_identity);
    contents.vpc_blocks = noted(VPC_BLOCKS)?
        .as_deref()
        .and_then(schema::to_nets)
        .unwrap_or_default();
    contents.demand = noted(DEMAND)?.as_deref().and_then(schema::to_demand);
    contents.class = noted(CLASS)?.as_deref().and_then(schema::to_class);
    contents.subnets = noted(SUBNETS)?
        .as_deref()
        .and_then(schema::to_subnets)
        .unwrap_or_default();
    contents.enis = noted(ENIS)?
        .as_deref()
        .and_then(schema::to_enis)
        .unwrap_or_default();
    Ok(Some(contents))
}

fn key(sandbox: &Sandbox) -> String {
    // None of the three can contain a NUL: requests are validated.
    format!(
        "{}\0{}\0{}",
        sandbox.network, sandbox.container_id, sandbox.ifname
    )
}

#[cfg(test)]
mod tests;

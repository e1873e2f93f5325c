//! `ipamd max-pods`: how many pods an instance type supports, and how many addresses a warm target holds on it.
//!
//! Owns the options and their meaning. All numbers come from the planner ([`planner::limits`], [`planner::forecast`]), so
//! they are the same as in the daemon. `output` formats the result; `plan` parses and runs policies; `expression` evaluates
//! the operator's formula.
//!
//! May use `node`, `runtime` and `config`. Must not know a running daemon.

mod expression;
mod output;
mod plan;

use std::{process::ExitCode, time::Duration};

use clap::ValueEnum;
use planner::{
    InstanceType,
    limits::{self, MaxPods as Figures, Question, Unanswerable, Usage, max_pods::subnet_addresses},
};
use proto::error_chain::chain;
use stdout::errln;

use self::{expression::Expression, plan::Plan};

use crate::{
    config::{Environment, Proxies},
    ec2::instance_type::{self, InstanceTypeError},
};

/// The time limit for one call to the metadata service or to EC2.
const PATIENCE: Duration = Duration::from_secs(10);

const MANUAL: &str = "\
EXAMPLES
  The kubelet's --max-pods for this instance:
      ipamd max-pods --from-imds --prefix-delegation

  The calculation, line by line:
      ipamd max-pods m5.large --explain

  All known types with custom networking, as a table:
      ipamd max-pods --all --custom-networking --output table

  Check whether 40 nodes fit into a subnet with 900 free addresses (exit status 1 if not):
      ipamd max-pods m5.large --cluster-subnet-free 900 --nodes 40

  The addresses that the warm settings hold, for each number of pods:
      ipamd max-pods m5.large --plan 'WARM_IP_TARGET=5, MINIMUM_IP_TARGET=10'
      ipamd max-pods m5.large --plan 'WARM_IP_TARGET=5' --custom-networking
      ipamd max-pods m5.large --plan '8..12 pods, WARM_ENI_TARGET=1'

EXPRESSIONS
  The same as nodeadm's maxPodsExpression: the Common Expression Language with its math functions \
(math.least, math.greatest), and the names
      default_enis   ENIs of the default network card
      ips_per_eni    IPv4 addresses per ENI, including the primary one
      max_pods       the result without the expression and without a cap
  If the result is below 1 or cannot be computed, a warning is printed and max_pods is used.

LIMITS
  The limits of the instance types that AWS has published are compiled in. For other types, the command \
calls EC2 (DescribeInstanceTypes), with the AWS SDK's credentials, in AWS_REGION or the metadata \
service's region.";

/// Print how many pods an instance type supports
///
/// The result is for the kubelet's --max-pods: the number of pod addresses plus the pods that use the node's address,
/// limited to the maximum that Kubernetes recommends for the number of vCPUs. The daemon enforces the same number of pod
/// addresses. It refuses more pods with the calculation that --explain prints.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(super) struct MaxPods {
    /// Instance types, such as m5.large
    #[arg(value_name = "TYPE", group = "which")]
    types: Vec<String>,
    /// Use the instance that the command runs on, from the metadata service
    #[arg(long, group = "which")]
    from_imds: bool,
    /// All instance types that are compiled in
    #[arg(long, group = "which")]
    all: bool,

    /// Pods get addresses from /28 prefixes (ENABLE_PREFIX_DELEGATION); no effect on instances without Nitro
    #[arg(long)]
    prefix_delegation: bool,
    /// The primary ENI serves no pods (AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG, or a tag excludes the node's subnet)
    #[arg(long)]
    custom_networking: bool,
    /// The maximum number of ENIs (MAX_ENI)
    #[arg(long, value_name = "N")]
    max_eni: Option<u16>,
    /// Pods get IPv6 addresses from a /80 prefix (ENABLE_IPv6)
    #[arg(long)]
    ipv6: bool,
    /// Pods can have their own security groups: a trunk uses one ENI and adds branch interfaces (ENABLE_POD_ENI)
    #[arg(long)]
    pod_eni: bool,
    /// Pods that use the node's address; they count for the kubelet too [default: 2]
    #[arg(long, value_name = "N", default_value_t = 2, hide_default_value = true)]
    host_network_pods: u32,
    /// Do not limit the result to the recommended 110 pods (250 with more than 30 vCPUs)
    #[arg(long)]
    no_cap: bool,
    /// Calculate the result with this expression, for example '(default_enis - 1) * (ips_per_eni - 1) + 2'
    #[arg(long, value_name = "TEXT", value_parser = Expression::parse)]
    expression: Option<Expression>,

    /// The number of free addresses in the cluster's subnet: print how many full nodes fit into it
    #[arg(long, value_name = "N", conflicts_with = "plan")]
    cluster_subnet_free: Option<u32>,
    /// Check whether this number of nodes fits; exit status 1 if not
    #[arg(long, value_name = "M", requires = "cluster_subnet_free")]
    nodes: Option<u32>,
    /// Warm settings and numbers of pods: print the addresses and ENIs that the node holds
    ///
    /// A list separated by commas. NAME=VALUE sets one of WARM_ENI_TARGET, WARM_IP_TARGET, MINIMUM_IP_TARGET and
    /// WARM_PREFIX_TARGET. 'N pods' or 'N..M pods' selects the numbers of pods; the default is all that fit. The command
    /// runs the daemon's planner in virtual time. One pod is added per hour, and each line shows the end of an hour.
    #[arg(long, value_name = "POLICY", value_parser = Plan::parse, conflicts_with_all = ["ipv6", "pod_eni", "expression", "all"])]
    plan: Option<Plan>,

    /// Print the calculation, and the resources that the kubelet should reserve for this number of pods
    #[arg(long, conflicts_with_all = ["output", "plan"])]
    explain: bool,
    /// The output format [default: number]
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Form::Number, hide_default_value = true)]
    output: Form,
}

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Only the number; with several types, one line per type
    Number,
    /// A table
    Table,
    /// A JSON array of objects
    Json,
}

/// One instance type with its results.
#[derive(Debug)]
struct Row {
    instance: InstanceType,
    figures: Figures,
    room: Option<Room>,
}

/// How many full nodes fit into the subnet.
#[derive(Clone, Copy, Debug)]
struct Room {
    free: u32,
    /// The subnet addresses of a full node.
    each: u32,
    nodes: u32,
    wanted: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
enum MaxPodsError {
    #[error(transparent)]
    Kind(#[from] InstanceTypeError),
    #[error(transparent)]
    Unanswerable(#[from] Unanswerable),
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    #[error("the runtime does not start")]
    Runtime(#[source] std::io::Error),
    #[error("the answer could not be written")]
    Write(#[from] std::io::Error),
}

impl MaxPods {
    pub(super) fn run(self) -> ExitCode {
        let answered = match &self.plan {
            Some(plan) => self.forecast(plan).map(|()| true),
            None => self.answer(),
        };
        match answered {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(MaxPodsError::Write(error)) => stdout::ended("ipamd", Err(error)),
            Err(error) => super::print_error(&chain(&error)),
        }
    }

    fn forecast(&self, plan: &Plan) -> Result<(), MaxPodsError> {
        let mut forecasts = Vec::new();
        for instance in self.instances()? {
            let used = plan::Used {
                max_eni: self.max_eni,
                prefixes: self.prefix_delegation,
                custom_networking: self.custom_networking,
            };
            forecasts.push(plan.run(instance, used)?);
        }
        match self.output {
            Form::Json => output::forecasts_json(&forecasts)?,
            Form::Number | Form::Table => output::forecasts_table(&forecasts)?,
        }
        Ok(())
    }

    /// Whether the requested number of nodes fits, if there is one.
    fn answer(&self) -> Result<bool, MaxPodsError> {
        let question = self.question();
        let mut rows = Vec::new();
        for instance in self.instances()? {
            match self.figures(&instance, &question) {
                Ok(figures) => rows.push(self.row(instance, figures, &question)),
                // With all types, those that do not support the options are left out.
                Err(_) if self.all => {}
                Err(error) => return Err(error.into()),
            }
        }
        for row in &rows {
            if let Some(error) = &row.figures.expression_error {
                let (name, stands) = (&row.instance.name, row.figures.max_pods);
                errln!("ipamd: {name}: the expression is not usable: {error}; using {stands}");
            }
        }
        match self.output {
            _ if self.explain => output::explain(&rows)?,
            Form::Number => output::numbers(&rows)?,
            Form::Table => output::table(&rows)?,
            Form::Json => output::json(&rows)?,
        }
        Ok(rows
            .iter()
            .all(|row| row.room.is_none_or(|room| room.fits())))
    }

    fn figures(
        &self,
        instance: &InstanceType,
        question: &Question,
    ) -> Result<Figures, Unanswerable> {
        match &self.expression {
            Some(expression) => limits::max_pods_by(instance, question, expression),
            None => limits::max_pods(instance, question),
        }
    }

    fn row(&self, instance: InstanceType, figures: Figures, question: &Question) -> Row {
        let room = self.cluster_subnet_free.map(|free| {
            let each = subnet_addresses(&instance, question, &figures);
            Room {
                free,
                each,
                nodes: free.checked_div(each).unwrap_or(u32::MAX),
                wanted: self.nodes,
            }
        });
        Row {
            instance,
            figures,
            room,
        }
    }

    fn question(&self) -> Question {
        Question {
            usage: Usage {
                max_eni: self.max_eni,
                prefixes: self.prefix_delegation,
                custom_networking: self.custom_networking,
                trunk: self.pod_eni,
            },
            ipv6: self.ipv6,
            capped: !self.no_cap,
            host_network_pods: self.host_network_pods,
        }
    }

    fn instances(&self) -> Result<Vec<InstanceType>, MaxPodsError> {
        if self.all {
            return Ok(limits::all().to_vec());
        }
        // The table needs no runtime; other types need the network.
        let known: Option<Vec<_>> = self.types.iter().map(|name| limits::lookup(name)).collect();
        match known.filter(|_| !self.from_imds) {
            Some(known) => Ok(known.into_iter().cloned().collect()),
            None => super::block_on(self.ask()).map_err(MaxPodsError::Runtime)?,
        }
    }

    async fn ask(&self) -> Result<Vec<InstanceType>, MaxPodsError> {
        let proxies = Proxies::read(&Environment);
        if self.from_imds {
            return Ok(vec![
                instance_type::of_this_instance(&proxies, PATIENCE).await?,
            ]);
        }
        let mut found = Vec::new();
        for name in &self.types {
            found.push(instance_type::by_name(name, &Environment, &proxies, PATIENCE).await?);
        }
        Ok(found)
    }
}

impl Room {
    fn fits(&self) -> bool {
        self.wanted.is_none_or(|wanted| wanted <= self.nodes)
    }
}

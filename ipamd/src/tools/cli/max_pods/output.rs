//! Results as text. Columns are as wide as their widest cell.

use std::io;

use serde_json::{Value, json};
use stdout::{out, outln};

use super::{Room, Row, plan::Forecast};
use crate::tools::cli::table::Table;

/// One number per line; with several types, after the type's name.
pub(super) fn numbers(rows: &[Row]) -> io::Result<()> {
    for row in rows {
        let figure = row.room.map_or(row.figures.max_pods, |room| room.nodes);
        if rows.len() == 1 {
            outln!("{figure}")?;
        } else {
            outln!("{} {figure}", row.instance.name)?;
        }
    }
    Ok(())
}

pub(super) fn explain(rows: &[Row]) -> io::Result<()> {
    for (n, row) in rows.iter().enumerate() {
        if n > 0 {
            outln!()?;
        }
        for step in &row.figures.steps {
            outln!("{step}")?;
        }
        if let Some(room) = row.room {
            outln!("{}", fit(room))?;
        }
        outln!("max pods: {}", row.figures.max_pods)?;
    }
    Ok(())
}

fn fit(room: Room) -> String {
    let Room {
        free,
        each,
        nodes,
        wanted,
    } = room;
    let mut text = format!(
        "a full node takes {each} addresses of its subnet; {free} free ones are enough for {nodes} nodes"
    );
    if let Some(wanted) = wanted {
        let verdict = if room.fits() { "fit" } else { "do not fit" };
        text.push_str(&format!(": {wanted} {verdict}"));
    }
    text
}

pub(super) fn table(rows: &[Row]) -> io::Result<()> {
    let mut table = Table::new(&[
        "TYPE",
        "MAX PODS",
        "UNCAPPED",
        "ADDRESSES",
        "BRANCH",
        "MEMORY",
        "CPU",
    ]);
    let room = rows.iter().any(|row| row.room.is_some());
    if room {
        table.column("NODES");
    }
    for row in rows {
        let figures = &row.figures;
        let mut cells = vec![
            row.instance.name.to_string(),
            figures.max_pods.to_string(),
            figures.uncapped.to_string(),
            figures.addresses.to_string(),
            figures.branch_pods.to_string(),
            format!("{}Mi", figures.reserved_memory),
            figures
                .reserved_cpu
                .map_or_else(|| "-".to_owned(), |cpu| format!("{cpu}m")),
        ];
        cells.extend(row.room.map(|room| room.nodes.to_string()));
        table.row(cells);
    }
    out!("{table}")
}

pub(super) fn json(rows: &[Row]) -> io::Result<()> {
    print_json(rows.iter().map(of_row).collect())
}

fn of_row(row: &Row) -> Value {
    let figures = &row.figures;
    json!({
        "instanceType": row.instance.name,
        "maxPods": figures.max_pods,
        "uncapped": figures.uncapped,
        "cap": figures.cap,
        "podAddresses": figures.addresses,
        "branchPods": figures.branch_pods,
        "kubeReserved": {
            "memoryMiB": figures.reserved_memory,
            "cpuMillis": figures.reserved_cpu,
        },
        "steps": figures.steps,
        "subnet": row.room.map(|room| json!({
            "free": room.free,
            "perNode": room.each,
            "nodesThatFit": room.nodes,
            "fits": room.fits(),
        })),
    })
}

pub(super) fn forecasts_table(forecasts: &[Forecast]) -> io::Result<()> {
    for (n, forecast) in forecasts.iter().enumerate() {
        if n > 0 {
            outln!()?;
        }
        outln!("{} with {}", forecast.instance.name, forecast.policy)?;
        let mut table = Table::new(&[
            "PODS",
            "ENIS",
            "ADDRESSES",
            "FREE",
            "PREFIXES",
            "OF SUBNET",
            "EC2 CALLS",
        ]);
        for held in &forecast.held {
            table.row(vec![
                held.pods.to_string(),
                held.enis.to_string(),
                held.addresses.to_string(),
                held.free.to_string(),
                held.prefixes.to_string(),
                held.subnet_addresses.to_string(),
                held.calls.to_string(),
            ]);
        }
        out!("{table}")?;
    }
    Ok(())
}

pub(super) fn forecasts_json(forecasts: &[Forecast]) -> io::Result<()> {
    let of = |forecast: &Forecast| {
        let held = forecast.held.iter().map(|held| {
            json!({
                "pods": held.pods,
                "enis": held.enis,
                "addresses": held.addresses,
                "free": held.free,
                "prefixes": held.prefixes,
                "subnetAddresses": held.subnet_addresses,
                "ec2Calls": held.calls,
            })
        });
        json!({
            "instanceType": forecast.instance.name,
            "policy": forecast.policy,
            "held": held.collect::<Vec<_>>(),
        })
    };
    print_json(forecasts.iter().map(of).collect())
}

fn print_json(values: Vec<Value>) -> io::Result<()> {
    outln!("{:#}", Value::Array(values))
}

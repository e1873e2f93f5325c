//! Plots what grows with the number of pods on a node and what does not.

use std::{io, path::Path};

use plotters::prelude::*;

use crate::packets::AtDensity;

/// Writes two charts into one SVG: ADDs as the node fills, and round trips compared with the AWS VPC CNI's rules.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(path: &Path, adds: &[f64], seen: &[AtDensity]) -> io::Result<()> {
    charts(path, adds, seen).map_err(|e| io::Error::other(e.to_string()))
}

fn charts(path: &Path, adds: &[f64], seen: &[AtDensity]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (900, 760)).into_drawing_area();
    area.fill(&WHITE)?;
    let (upper, lower) = area.split_vertically(380);
    let pods = |n: usize| u32::try_from(n).map_or(f64::NAN, f64::from);
    let worst = adds.iter().copied().fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&upper)
        .caption(
            "ADD, process start to end, as one node fills",
            ("sans-serif", 18),
        )
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..pods(adds.len()), 0.0..worst * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("pods on the node")
        .y_desc("ms")
        .draw()?;
    let dots = adds.iter().enumerate();
    chart.draw_series(dots.map(|(n, took)| Circle::new((pods(n), *took), 2, BLUE.filled())))?;

    let most = seen
        .iter()
        .map(|point| point.there.round_trip)
        .fold(1.0, f64::max);
    let full = seen.last().map_or(1.0, |point| f64::from(point.pods));
    let mut chart = ChartBuilder::on(&lower)
        .caption(
            "Round trip between two pods of one node",
            ("sans-serif", 18),
        )
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..full, 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .x_desc("pods on the node")
        .y_desc("µs")
        .draw()?;
    let here = seen
        .iter()
        .map(|point| (f64::from(point.pods), point.here.round_trip));
    let there = seen
        .iter()
        .map(|point| (f64::from(point.pods), point.there.round_trip));
    chart
        .draw_series(LineSeries::new(here, BLUE.stroke_width(2)))?
        .label("Hawser")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLUE.stroke_width(2)));
    chart
        .draw_series(LineSeries::new(there, RED.stroke_width(2)))?
        .label("two ip rules per pod")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], RED.stroke_width(2)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

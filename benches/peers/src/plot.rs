//! Figures: everybody's medians over the length of a record, and over the number of threads.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::peer::OURS;
use crate::samples::{Samples, median};

const SIZE: (u32, u32) = (860, 460);
/// What a name takes from top to bottom.
const NAME_HEIGHT: i32 = 16;
/// The limit is drawn as well, in this colour.
const LIMIT: RGBColor = RGBColor(150, 150, 150);

/// For the others; each can be read on white.
const COLORS: [(u8, u8, u8); 9] = [
    (31, 119, 180),
    (44, 130, 44),
    (148, 103, 189),
    (140, 86, 75),
    (190, 90, 160),
    (90, 90, 90),
    (140, 140, 20),
    (20, 150, 160),
    (220, 120, 20),
];

/// A line: whose it is, and its points.
struct Curve {
    who: String,
    points: Vec<(f64, f64)>,
}

/// Unsynced appends of one writer.
pub(crate) fn appends(samples: &Samples, path: &Path) -> Result<()> {
    let workloads = [
        (64.0, "append-64"),
        (256.0, "append-256"),
        (1_024.0, "append-1k"),
        (4_096.0, "append-4k"),
        (16_384.0, "append-16k"),
    ];
    let curves = curves(samples, &workloads, "records/s");
    let titles = ["Unsynced appends of one writer", "bytes per record", "records per second"];
    draw(path, titles, &curves, &workloads.map(|(x, _)| x))
}

/// Durable commits of one to many threads.
pub(crate) fn durable(samples: &Samples, path: &Path) -> Result<()> {
    let workloads =
        [(1.0, "durable-1"), (4.0, "durable-4"), (16.0, "durable-16"), (64.0, "durable-64")];
    let curves = curves(samples, &workloads, "commits/s");
    let titles = ["Durable records of 256 bytes", "threads", "commits per second"];
    draw(path, titles, &curves, &workloads.map(|(x, _)| x))
}

fn curves(samples: &Samples, workloads: &[(f64, &str)], metric: &str) -> Vec<Curve> {
    let names = workloads.first().map(|(_, name)| samples.known(name, metric)).unwrap_or_default();
    let curve = |who: &str| Curve {
        who: who.to_owned(),
        points: workloads
            .iter()
            .map(|(x, name)| (*x, median(&samples.all(name, who, metric))))
            .filter(|(_, y)| y.is_finite())
            .collect(),
    };
    names.into_iter().map(curve).collect()
}

/// Both axes are logarithmic: what is compared is ratios.
fn draw(path: &Path, titles: [&str; 3], curves: &[Curve], xs: &[f64]) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    let ys = || curves.iter().flat_map(|curve| curve.points.iter().map(|(_, y)| *y));
    let (low, high) = (ys().fold(f64::MAX, f64::min), ys().fold(f64::MIN, f64::max));
    let (first, last) = (xs[0], xs[xs.len() - 1]);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&root)
        .caption(titles[0], ("sans-serif", 24))
        .margin(12)
        .margin_right(120)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d((first..last).log_scale(), (low * 0.8..high * 1.25).log_scale())
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc(titles[1])
        .y_desc(titles[2])
        .label_style(("sans-serif", 15))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| grouped(*y))
        .draw()
        .map_err(|error| failed(&error))?;
    for (index, curve) in curves.iter().enumerate() {
        let (color, width) = style(&curve.who, index);
        let line =
            LineSeries::new(curve.points.clone(), color.stroke_width(width)).point_size(width);
        chart.draw_series(line).map_err(|error| failed(&error))?;
    }
    // Every line has its name at its end, as far down as leaves the others readable.
    let end = |curve: &Curve| curve.points.last().map(|point| chart.backend_coord(point));
    let mut ends: Vec<_> = curves.iter().map(end).zip(curves.iter().enumerate()).collect();
    ends.sort_by_key(|(end, _)| end.map(|(_, y)| y));
    let mut lowest = i32::MIN;
    for (end, (index, curve)) in ends {
        let Some((x, y)) = end else { continue };
        let y = y.max(lowest.saturating_add(NAME_HEIGHT));
        lowest = y;
        let font = ("sans-serif", 17).into_font().color(&style(&curve.who, index).0);
        let name = Text::new(curve.who.clone(), (x + 8, y - NAME_HEIGHT / 2), font);
        root.draw(&name).map_err(|error| failed(&error))?;
    }
    root.present().map_err(|error| failed(&error))?;
    Ok(())
}

fn style(who: &str, index: usize) -> (RGBColor, u32) {
    if who == OURS {
        return (RGBColor(200, 30, 30), 3);
    }
    if crate::limits::NAMES.contains(&who) {
        return (LIMIT, 2);
    }
    let (r, g, b) = COLORS[index % COLORS.len()];
    (RGBColor(r, g, b), 1)
}

/// 1,000,000 is easier to read than 1000000.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut words = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            words.push(',');
        }
        words.push(digit);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [grouped(1e6), grouped(999.0), grouped(12_345.0)],
            ["1,000,000", "999", "12,345"]
        );
    }

    #[test]
    fn a_plot_has_a_line_for_everybody() {
        let mut samples = Samples::default();
        for workload in ["durable-1", "durable-4", "durable-16", "durable-64"] {
            samples.add(0, workload, OURS, "commits/s", 9_000.0);
            samples.add(0, workload, "wal-db", "commits/s", 3_000.0);
        }
        let path = std::env::temp_dir().join(format!("wal-durable-{}.svg", std::process::id()));
        durable(&samples, &path).unwrap();
        let drawn = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(drawn.contains(">towline<") || drawn.contains("towline"));
        assert!(drawn.contains("wal-db"));
    }
}

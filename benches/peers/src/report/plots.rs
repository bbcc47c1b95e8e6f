//! The groups as pictures: a panel for each case, a bar for each contender, the best at the top.

use std::io;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::scale::{Scale, short, three_digits};
use crate::results::Group;

type Area<'svg> = DrawingArea<SVGBackend<'svg>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

const OURS: RGBColor = RGBColor(0xd9, 0x48, 0x01);
const BARE: RGBColor = RGBColor(0x25, 0x25, 0x25);
const RIVALS: RGBColor = RGBColor(0x7b, 0xa3, 0xc9);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const FAINT: RGBColor = RGBColor(0x66, 0x66, 0x66);

const WIDTH: i32 = 960;
/// At most.
const COLUMNS: usize = 2;
/// Above the panels, with the title and what the colours mean.
const HEAD: i32 = 62;
/// A bar and the space around it.
const ROW: i32 = 19;
/// Of a panel: its name above the bars, and the numbers below.
const ABOVE: i32 = 30;
const BELOW: i32 = 30;
/// Beside the bars: the names, and the figures.
const NAMES: i32 = 200;
const FIGURES: i32 = 58;
/// Beside bars that are named by a sentence.
const WIDE_NAMES: i32 = 460;

struct Panel<'run> {
    title: String,
    bars: Vec<Bar<'run>>,
}

struct Bar<'run> {
    name: &'run str,
    value: f64,
    /// The quartiles.
    spread: (f64, f64),
}

/// Draws the groups into a file. `log`: where figures differ so much that the short bars could not be told apart.
pub fn draw(groups: &[&Group], title: &str, log: bool, file: &Path) -> io::Result<()> {
    let one_work = groups.iter().all(|group| group.work == groups[0].work);
    let panels: Vec<Panel<'_>> = groups.iter().map(|group| Panel::of(group, one_work)).collect();
    let rows: Vec<&[Panel<'_>]> = panels.chunks(COLUMNS).collect();
    let height = HEAD + rows.iter().map(|row| height_of(row)).sum::<i32>();
    let root = SVGBackend::new(file, (WIDTH as u32, height as u32)).into_drawing_area();
    draw_all(&root, &rows, title, log).map_err(io::Error::other)
}

/// Bars of how many times as fast something is, from 1 on.
pub fn draw_ratios(bars: &[(String, f64)], title: &str, file: &Path) -> io::Result<()> {
    let bars: Vec<_> = bars.iter().map(|(name, value)| Bar { name, value: *value, spread: (1.0, *value) }).collect();
    let height = HEAD + ROW * bars.len() as i32 + BELOW;
    let root = SVGBackend::new(file, (WIDTH as u32, height as u32)).into_drawing_area();
    draw_all_ratios(&root, &bars, title).map_err(io::Error::other)
}

fn draw_all_ratios(root: &Area<'_>, bars: &[Bar<'_>], title: &str) -> Drawn {
    root.fill(&WHITE)?;
    text(root, title, (12, 20), 17, &BLACK, HPos::Left, true)?;
    let high = bars.iter().map(|bar| bar.value).fold(2.0, f64::max);
    let axis = Axis { left: WIDE_NAMES, right: WIDTH - FIGURES, low: 1.0, high, log: true };
    let (first, last) = (HEAD, HEAD + ROW * bars.len() as i32);
    for tick in axis.ticks() {
        let x = axis.place(tick);
        root.draw(&PathElement::new([(x, first), (x, last + 3)], GRID))?;
        text(root, &format!("{}×", short(tick)), (x, last + 12), 11, &FAINT, HPos::Center, false)?;
    }
    for (row, bar) in (0..).zip(bars) {
        let middle = first + ROW * row + ROW / 2;
        let (end, thick) = (axis.place(bar.value), ROW / 2 - 3);
        text(root, bar.name, (axis.left - 8, middle), 12, &BLACK, HPos::Right, false)?;
        root.draw(&Rectangle::new([(axis.left, middle - thick), (end, middle + thick)], OURS.filled()))?;
        text(root, &format!("{}×", three_digits(bar.value)), (end + 6, middle), 12, &BLACK, HPos::Left, true)?;
    }
    text(root, "logarithmic scale", (WIDTH - 12, 46), 12, &FAINT, HPos::Right, false)?;
    root.present()
}

fn draw_all(root: &Area<'_>, rows: &[&[Panel<'_>]], title: &str, log: bool) -> Drawn {
    root.fill(&WHITE)?;
    let scale = if log { ", logarithmic scale" } else { "" };
    text(root, title, (12, 20), 17, &BLACK, HPos::Left, true)?;
    let legend = [(OURS, "ipc"), (BARE, "the bare system calls"), (RIVALS, "the standard library and other crates")];
    let mut left = 12;
    for (colour, meaning) in legend {
        root.draw(&Rectangle::new([(left, 40), (left + 12, 52)], colour.filled()))?;
        text(root, meaning, (left + 18, 46), 12, &FAINT, HPos::Left, false)?;
        left += 40 + 7 * meaning.len() as i32;
    }
    text(root, &format!("thin lines: quartiles{scale}"), (WIDTH - 12, 46), 12, &FAINT, HPos::Right, false)?;
    let mut top = HEAD;
    for row in rows {
        let width = WIDTH / rows[0].len() as i32;
        for (column, panel) in (0..).zip(*row) {
            panel.draw(root, (column * width, top), width, log)?;
        }
        top += height_of(row);
    }
    root.present()
}

fn height_of(row: &[Panel<'_>]) -> i32 {
    let bars = row.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    ABOVE + ROW * bars as i32 + BELOW
}

impl<'run> Panel<'run> {
    /// The title of the picture says which work it is, if that is the same for all.
    fn of(group: &'run Group, one_work: bool) -> Self {
        let scale = Scale::of(&group.work);
        let bar = |name: &'run str| {
            let summary = group.summary(name)?;
            let spread = scale.quartiles(&summary, group.bytes);
            Some(Bar { name, value: scale.value(summary.median, group.bytes), spread })
        };
        let mut bars: Vec<_> = group.series.iter().filter_map(|series| bar(&series.name)).collect();
        bars.sort_by(|one, other| one.value.total_cmp(&other.value));
        let better = if scale.more_is_better { "more" } else { "less" };
        if scale.more_is_better {
            bars.reverse();
        }
        let work = if one_work { String::new() } else { format!("{}, ", group.work) };
        let title = format!("{work}{} ({}, {better} is better)", group.case, scale.unit);
        Self { title, bars }
    }

    fn draw(&self, root: &Area<'_>, (left, top): (i32, i32), width: i32, log: bool) -> Drawn {
        let axis = Axis::over(&self.bars, log, left + NAMES, left + width - FIGURES);
        text(root, &self.title, (left + 12, top + 14), 13, &BLACK, HPos::Left, true)?;
        let (first, last) = (top + ABOVE, top + ABOVE + ROW * self.bars.len() as i32);
        for tick in axis.ticks() {
            let x = axis.place(tick);
            root.draw(&PathElement::new([(x, first), (x, last + 3)], GRID))?;
            text(root, &short(tick), (x, last + 12), 11, &FAINT, HPos::Center, false)?;
        }
        for (row, bar) in (0..).zip(&self.bars) {
            let middle = first + ROW * row + ROW / 2;
            let (colour, ours) = (colour(bar.name), super::is_ours(bar.name));
            let (end, thick) = (axis.place(bar.value), ROW / 2 - 3);
            text(root, bar.name, (axis.left - 8, middle), 12, &BLACK, HPos::Right, ours)?;
            root.draw(&Rectangle::new([(axis.left, middle - thick), (end, middle + thick)], colour.filled()))?;
            let (low, high) = (axis.place(bar.spread.0), axis.place(bar.spread.1));
            root.draw(&PathElement::new([(low, middle), (high, middle)], FAINT))?;
            text(root, &three_digits(bar.value), (end.max(high) + 6, middle), 12, &BLACK, HPos::Left, ours)?;
        }
        Ok(())
    }
}

fn colour(name: &str) -> RGBColor {
    match name {
        _ if super::is_ours(name) => OURS,
        _ if super::is_bare(name) => BARE,
        _ => RIVALS,
    }
}

/// From a figure to a place between left and right.
struct Axis {
    left: i32,
    right: i32,
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    fn over(bars: &[Bar<'_>], log: bool, left: i32, right: i32) -> Self {
        let high = bars.iter().map(|bar| bar.value.max(bar.spread.1)).fold(f64::MIN_POSITIVE, f64::max);
        let low = bars.iter().map(|bar| bar.value.min(bar.spread.0)).fold(high, f64::min);
        // The shortest bar is to be seen, and there is to be a tick or two.
        let low = if log { 10_f64.powf((low / 1.5).log10().floor()) } else { 0.0 };
        Self { left, right, low, high, log }
    }

    fn place(&self, value: f64) -> i32 {
        let part = match self.log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => value / self.high,
        };
        self.left + ((self.right - self.left) as f64 * part.clamp(0.0, 1.0)).round() as i32
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let steps: &[f64] = if self.high / self.low < 100.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let decades = (0..).map(|power| self.low * 10_f64.powi(power));
            let ticks = decades.flat_map(|decade| steps.iter().map(move |step| decade * step));
            let ticks: Vec<f64> = ticks.take_while(|tick| *tick <= self.high).collect();
            // No more than there is room for.
            return ticks.iter().copied().step_by(1 + ticks.len() / 7).collect();
        }
        let step = 10_f64.powf((self.high / 2.0).log10().floor());
        let step = [1.0, 2.0, 5.0].map(|times| step * times).into_iter().find(|step| self.high / step <= 5.0);
        let step = step.unwrap_or(self.high);
        (0..).map(|number| step * f64::from(number)).take_while(|tick| *tick <= self.high).collect()
    }
}

/// A line of text that is centred upon that height.
fn text(root: &Area<'_>, text: &str, place: (i32, i32), size: i32, colour: &RGBColor, to: HPos, bold: bool) -> Drawn {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    // The backend makes the font smaller by this; so it is the size that was asked for.
    let font = FontDesc::new(FontFamily::SansSerif, f64::from(size) * 1.24, style);
    let style = font.color(colour).pos(Pos::new(to, VPos::Center));
    root.draw(&Text::new(text, place, style))
}

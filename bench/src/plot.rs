//! Curves as SVG, drawn here: no plotting program is needed to publish a figure, and the file is small enough to read.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
/// Room for the axes' texts: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (70.0, 40.0, 20.0, 50.0);
/// One color a curve; told apart by people who see no red or green as well.
const COLORS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555"];

/// A figure.
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) curves: Vec<Curve>,
}

/// What an axis shows. Both axes are logarithmic: the curves span decades.
pub(crate) struct Axis {
    pub(crate) name: &'static str,
}

/// Named points, in the order in which they are joined.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Plot {
    /// The file. Points that are not above zero are left out: they have no logarithm.
    pub(crate) fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(Curve::shown);
        let x = Scale::over(points().map(|point| point.0), MARGIN.0, WIDTH - MARGIN.2);
        let y = Scale::over(points().map(|point| point.1), HEIGHT - MARGIN.3, MARGIN.1);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{}\" y=\"20\" text-anchor=\"middle\" font-size=\"14\">{}</text>\n",
            WIDTH / 2.0,
            escaped(&self.title)
        );
        self.axes(&mut svg, &x, &y);
        for (index, curve) in self.curves.iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            let line: String =
                curve.shown().map(|(a, b)| format!("{:.1},{:.1} ", x.place(a), y.place(b))).collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" points=\"{}\"/>",
                line.trim_end()
            );
            for (a, b) in curve.shown() {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{color}\"/>",
                    x.place(a),
                    y.place(b)
                );
            }
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" fill=\"{color}\">{}</text>",
                MARGIN.0 + 10.0,
                MARGIN.1 + 16.0 * (index as f64 + 1.0),
                escaped(&curve.name)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self, svg: &mut String, x: &Scale, y: &Scale) {
        let (left, top, right, bottom) = (MARGIN.0, MARGIN.1, WIDTH - MARGIN.2, HEIGHT - MARGIN.3);
        for tick in x.ticks() {
            let at = x.place(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                short(tick)
            );
        }
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                at + 4.0,
                short(tick)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(left, right),
            HEIGHT - 12.0,
            escaped(self.x.name),
            f64::midpoint(top, bottom),
            escaped(self.y.name)
        );
    }
}

impl Curve {
    fn shown(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0)
    }
}

/// A logarithmic scale from whole decade to whole decade.
struct Scale {
    low: i32,
    high: i32,
    from: f64,
    to: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) =
            values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        let (low, high) = if least.is_finite() {
            (least.log10().floor() as i32, most.log10().ceil() as i32)
        } else {
            (0, 1)
        };
        Self { low, high: high.max(low + 1), from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        (self.low..=self.high).map(|decade| 10_f64.powi(decade))
    }
}

/// 1000000 as 1M.
fn short(value: f64) -> String {
    match value {
        large if large >= 1e6 => format!("{}M", large / 1e6),
        middle if middle >= 1e3 => format!("{}k", middle / 1e3),
        small => format!("{small}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_between_the_axes_and_nothing_is_lost() {
        let curve = |name: &str, points: &[(f64, f64)]| Curve { name: name.into(), points: points.to_vec() };
        let plot = Plot {
            title: "a < b".into(),
            x: Axis { name: "sessions" },
            y: Axis { name: "ns" },
            curves: vec![
                curve("ours", &[(1.0, 200.0), (10_000.0, 240.0)]),
                curve("&", &[(1.0, 0.0), (10.0, 2_000.0)]),
            ],
        };
        let svg = plot.svg();
        assert_eq!(svg.matches("<circle").count(), 3, "zero has no place");
        assert!(svg.contains("a &lt; b") && svg.contains("&amp;") && svg.contains(">10k<"));
        let scale = Scale::over([2.0, 300.0].into_iter(), 0.0, 90.0);
        assert!((scale.place(10.0) - 30.0).abs() < 1e-9, "1 to 1000 on 90: a decade is 30");
    }
}
